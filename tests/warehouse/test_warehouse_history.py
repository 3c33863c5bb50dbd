"""HubSpot's property histories: who changed a deal and by what, and what they leave unsaid."""

from __future__ import annotations

import random
import shutil
import tempfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from warehouse_land import (
    ADA,
    BO,
    DEFAULT_STAGES,
    HS_OWNERS,
    NOON,
    USERS,
    deal,
    deals_of,
    history,
    hs,
    inbound,
    one,
    opp_id,
    opportunity,
    pipeline,
    rows,
    sales,
    timeline_faults,
    user,
)

from warehouse.connection import open_warehouse
from warehouse.load import load

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
MADE = NOON - 30 * DAY
MS = timedelta(milliseconds=1)


def value(at: datetime, text: str, kind: str = "CRM_UI", by: str | None = None, user_id: int | None = None) -> dict[str, Any]:
    """A past value of a property."""
    entry: dict[str, Any] = {"value": text, "timestamp": hs(at), "sourceType": kind}
    return entry | ({"sourceId": by} if by else {}) | ({"updatedByUserId": user_id} if user_id else {})


def story(number: int, **histories: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of deals.history, of values in the order in which they came. HubSpot gives the newest first, twenty at most."""
    return {"id": str(number), "propertiesWithHistory": {name: values[::-1][:20] for name, values in histories.items()}}


def events(con: Any, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[c] for c in columns) for row in rows(con, 'from core.stage_event order by opportunity_key, "at"')]


def versions(con: Any, *columns: str, number: int = 1) -> list[tuple[Any, ...]]:
    found = rows(con, "from core.opportunity_version where opportunity_key = $1 order by valid_from", f"inbound:{number}")
    return [tuple(v[c] for c in ("valid_from", *columns)) for v in found]


# ---- who and what ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "by", "user_id", "expected"),
    [
        ("CRM_UI", "userId:71", 71, ("7", "person")), ("CRM_UI", "userId:71", None, ("7", "person")),
        ("CRM_UI", None, None, (None, "person")), ("MOBILE_IOS", "userId:81", 81, ("8", "person")),
        ("CRM_UI", "userId:99", 99, ("userId:99", "person")),  # a user who owns nothing
        ("CRM_UI", "userId:500", 500, ("userId:500", "integration")),  # configured: a tool that works with a user of its own
        ("INTEGRATION", "19460027", None, (None, "plumbline")), ("INTEGRATION", "555", 71, ("7", "integration")),
        ("API", None, None, (None, "integration")), ("AUTOMATION_PLATFORM", "enrollmentId:1;actionExecutionIndex:0", None, (None, "workflow")),
        ("IMPORT", "8812", 71, ("7", "import")), ("MERGE_OBJECTS", None, None, (None, "merge")), ("CALCULATED", None, None, (None, "crm")),
        ("SOMETHING_OF_NEXT_YEAR", None, None, (None, None)), ("SOMETHING_OF_NEXT_YEAR", None, 71, ("7", "person")),
    ],
)  # fmt: skip
def test_hubspot_tells_who_moved_a_deal_and_by_what(
    con: Any, tmp_path: Path, kind: str, by: str | None, user_id: int | None, expected: tuple[Any, Any]
) -> None:
    owners = [HS_OWNERS[0], HS_OWNERS[1] | {"userIdIncludingInactive": 81}]
    told = story(1, dealstage=[value(MADE, "appointmentscheduled", "IMPORT"), value(MADE + DAY, "qualifiedtobuy", kind, by, user_id)])
    pull = inbound(tmp_path, 1, [deal(1, hs_createdate=hs(MADE))], full=True, owners=owners, history=[told])
    load(con, pull, now=NOON, integration_users=["500"], own_ids=["19460027"])
    assert events(con, "changed_by", "changed_through") == [(None, "import"), expected]
    assert versions(con, "changed_by", "changed_through") == [(MADE, None, "import"), (MADE + DAY, *expected)]
    shown = one(con, "select stage_changed_by, stage_changed_through from bi.opportunity")
    names = {"7": "Cleo Maker", "8": "Dan Left"}
    assert tuple(shown.values()) == (names.get(expected[0], expected[0]), expected[1])


def test_a_version_is_told_by_the_change_of_the_stage_else_by_the_last_one(con: Any, tmp_path: Path) -> None:
    at, later = MADE + DAY, MADE + 2 * DAY
    told = story(
        1, dealstage=[value(MADE, "appointmentscheduled", user_id=71), value(at, "qualifiedtobuy", user_id=71)],
        amount=[value(MADE, "5", "API"), value(at, "1000", "AUTOMATION_PLATFORM")], hs_next_step=[value(later, "Call", "API")],
        closedate=[value(MADE + 3 * SECOND, "2026-12-30T23:00:00Z", "CALCULATED")],
    )  # fmt: skip
    record = deal(1, hs_createdate=hs(MADE - 200 * MS), hs_next_step="Call")
    load(con, inbound(tmp_path, 1, [record], full=True, history=[told]), now=NOON)
    assert versions(con, "changed_through", "changed_by") == [
        (MADE - 200 * MS, "person", "7"), (at, "person", "7"), (later, "integration", None),
    ]  # fmt: skip
    # What a sync alone saw, nobody is named for.
    load(con, inbound(tmp_path, 2, [deal(1, NOON + HOUR, hs_createdate=hs(MADE - 200 * MS), hs_next_step="Sign")]), now=NOON + DAY)
    assert versions(con, "origin", "changed_through", "changed_by")[-1] == (NOON + HOUR, "observed", None, None)


def test_a_user_who_becomes_an_owner_is_named_in_what_was_before(con: Any, tmp_path: Path) -> None:
    told = [story(1, dealstage=[value(MADE, "qualifiedtobuy", by="userId:90", user_id=90)])]
    load(con, inbound(tmp_path, 1, [deal(1, hs_createdate=hs(MADE))], full=True, history=told), now=NOON)
    assert events(con, "changed_by") == [("userId:90",)]
    eve = HS_OWNERS[0] | {"id": "9", "firstName": "Eve", "userId": 90}
    load(con, inbound(tmp_path, 2, [], owners=[*HS_OWNERS, eve]), now=NOON + DAY)
    assert (events(con, "changed_by"), versions(con, "changed_by")) == ([("9",)], [(MADE, "9")])


def test_salesforce_tells_the_user_and_the_kind_of_user_tells_the_rest(con: Any, tmp_path: Path) -> None:
    robot, flow, zap, left = (f"00500000000000{n}AAA" for n in (3, 4, 5, 6))
    users = [*USERS, user(robot, "Plumbline"), user(flow, "Automated Process", UserType="AutomatedProcess"), user(zap, "Zap")]
    steps = [(MADE, "Prospecting", ADA), (MADE + DAY, "Qualification", BO), (MADE + 2 * DAY, "Needs Analysis", flow),
             (MADE + 3 * DAY, "Qualification", zap), (MADE + 4 * DAY, "Needs Analysis", robot), (MADE + 5 * DAY, "Qualification", left)]  # fmt: skip
    told = [history(1, n, at, stage) | {"CreatedById": by} for n, (at, stage, by) in enumerate(steps)]
    change = {"Id": "017000000000001AAA", "OpportunityId": opp_id(1), "Field": "NextStep", "OldValue": None, "NewValue": "Call",
              "CreatedById": BO, "CreatedDate": hs(MADE + 6 * DAY), "IsDeleted": False}  # fmt: skip
    pull = sales(tmp_path, 1, [opportunity(1, NextStep="Call")], full=True, User=users, OpportunityHistory=told, OpportunityFieldHistory=[change])
    load(con, pull, now=NOON, integration_users=[robot[:15], zap], own_ids=[robot])
    expected = [(ADA, "person"), (BO, "person"), (flow, "workflow"), (zap, "integration"), (robot, "plumbline"), (left, None)]
    assert events(con, "changed_by", "changed_through") == expected
    found = [(v["changed_by"], v["changed_through"]) for v in rows(con, "from core.opportunity_version order by valid_from")]
    assert found == [*expected, (BO, "person")]


# ---- the edges ---------------------------------------------------------------------------------------------------------------------


def test_what_the_portal_has_forgotten_is_unknown_and_stays_once_told(con: Any, tmp_path: Path) -> None:
    """Thirty amounts and stages, of which HubSpot keeps twenty; next steps begin with the year in which somebody made the property."""
    days = [MADE + n * DAY for n in range(30)]
    names = ["appointmentscheduled", "qualifiedtobuy"]
    told = story(
        1, amount=[value(at, str(n)) for n, at in enumerate(days)], dealstage=[value(at, names[n % 2]) for n, at in enumerate(days)],
        hs_next_step=[value(days[20], "Call")],
    )  # fmt: skip
    record = deal(1, days[-1], hs_createdate=hs(MADE), amount="29", hs_next_step="Call")
    load(con, inbound(tmp_path, 1, [record], full=True, history=[told]), now=NOON)
    found = versions(con, "amount", "crm_stage", "next_step")
    assert found[0] == (MADE, None, None, None)
    assert [v[:3] for v in found[1:]] == [(days[n], n, names[n % 2]) for n in range(10, 30)]
    assert [v[3] for v in found[1:]] == [None] * 10 + ["Call"] * 10
    assert events(con, "at", "from_crm_stage")[0] == (days[10], None)
    later = story(1, amount=[*told["propertiesWithHistory"]["amount"][::-1], value(NOON, "30")])
    record = deal(1, NOON, hs_createdate=hs(MADE), amount="30", hs_next_step="Call")
    load(con, inbound(tmp_path, 2, [record], history=[later]), now=NOON + DAY)
    assert [v[1] for v in versions(con, "amount")] == [None, *range(10, 31)]


def test_values_of_one_instant_keep_their_order(con: Any, tmp_path: Path) -> None:
    """An import writes twice in a millisecond; the next night HubSpot has forgotten the earlier one."""
    at = MADE + DAY
    stages = [value(MADE, "appointmentscheduled"), value(at, "presentationscheduled", "IMPORT"), value(at, "qualifiedtobuy", "API")]
    load(con, inbound(tmp_path, 1, [deal(1, hs_createdate=hs(MADE))], full=True, history=[story(1, dealstage=stages)]), now=NOON)
    moves = [("appointmentscheduled", "import"), ("presentationscheduled", "integration")]
    kept = rows(con, "select from_crm_stage, changed_through from core.stage_event where from_crm_stage is not null order by 1")
    assert [tuple(row.values()) for row in kept] == moves
    assert versions(con, "crm_stage", "changed_through")[1:] == [(at, "qualifiedtobuy", "integration")]
    result = load(con, inbound(tmp_path, 2, [], history=[story(1, dealstage=stages[2:])]), now=NOON + DAY)
    assert next(c.unchanged for c in result if c.object == "deals.history") == 1
    assert versions(con, "crm_stage")[1:] == [(at, "qualifiedtobuy")]


def test_a_deal_of_another_pipeline_is_there_with_its_new_stage_at_once(con: Any, tmp_path: Path) -> None:
    at = MADE + DAY
    told = story(
        1, dealstage=[value(MADE, "qualifiedtobuy"), value(at + 3 * MS, "901")],
        pipeline=[value(MADE, "default"), value(at, "p2"), value(at + 2 * DAY, "default")],
    )  # fmt: skip
    partner = pipeline("p2", "Partner", [("901", "Pitch", 0.5, False)])
    record = deal(1, hs_createdate=hs(MADE), dealstage="901", hs_deal_stage_probability="0.5")
    load(con, inbound(tmp_path, 1, [record], full=True, history=[told], pipelines=[pipeline(), partner]), now=NOON)
    assert versions(con, "pipeline", "crm_stage") == [
        (MADE, "Sales Pipeline", "qualifiedtobuy"), (at + 3 * MS, "Partner", "901"), (at + 2 * DAY, "Sales Pipeline", "901"),
    ]  # fmt: skip


def test_a_merge_leaves_both_stories_and_the_record_the_last_word(con: Any, tmp_path: Path) -> None:
    """Where HubSpot mixes the loser's past values into those of the survivor, what a sync saw is believed all the same; an amount that the
    survivor lacked is adopted."""
    first = [story(1, dealstage=[value(MADE, "appointmentscheduled")], amount=[]), story(2, dealstage=[value(MADE + HOUR, "qualifiedtobuy")])]
    deals = [deal(1, hs_createdate=hs(MADE), dealstage="appointmentscheduled", amount=None), deal(2, hs_createdate=hs(MADE + HOUR))]
    load(con, inbound(tmp_path, 1, deals, full=True, history=first), now=NOON)
    at = NOON + HOUR
    mixed = story(
        1, dealstage=[value(MADE, "appointmentscheduled"), value(MADE + HOUR, "qualifiedtobuy"), value(at, "appointmentscheduled", "MERGE_OBJECTS")],
        amount=[value(at, "2000", "MERGE_OBJECTS")],
    )  # fmt: skip
    survivor = deal(1, at, hs_createdate=hs(MADE), dealstage="appointmentscheduled", amount="2000", hs_merged_object_ids="2")
    load(con, inbound(tmp_path, 2, [survivor], history=[mixed]), now=NOON + DAY)
    assert versions(con, "crm_stage", "amount", "changed_through") == [
        (MADE, "appointmentscheduled", None, "person"), (MADE + HOUR, "qualifiedtobuy", None, "person"),
        (NOON, "appointmentscheduled", None, None), (at, "appointmentscheduled", 2000, "merge"),
    ]  # fmt: skip
    assert versions(con, "crm_stage", "is_deleted", number=2) == [(MADE + HOUR, "qualifiedtobuy", False), (NOON + DAY, "qualifiedtobuy", True)]
    assert deals_of(con)["2"]["merged_into"] == "inbound:1"


def test_a_merge_that_makes_a_new_record_counts_no_deal_twice(con: Any, tmp_path: Path) -> None:
    """Three deals of one import; two become a new record with the past of one of them, later merged with the third into another new one."""
    stages = {"1": "appointmentscheduled", "2": "qualifiedtobuy", "3": "qualifiedtobuy"}
    moved = [value(MADE, "appointmentscheduled"), value(MADE + DAY, "qualifiedtobuy")]
    pasts = {"1": [value(MADE, stages["1"])], "2": moved, "3": [value(MADE, stages["3"])]}
    made = {"hs_createdate": hs(MADE)}
    deals = [deal(int(key), dealstage=stage, amount="100", **made) for key, stage in stages.items()]
    told = [story(int(key), dealstage=entries, amount=[value(MADE, "100")]) for key, entries in pasts.items()]
    load(con, inbound(tmp_path, 1, deals, full=True, history=told), now=NOON)
    first = story(4, dealstage=moved, amount=[value(MADE, "100"), value(NOON + HOUR, "150")])
    survivor = deal(4, NOON + HOUR, amount="150", hs_merged_object_ids="1;2", **made)
    load(con, inbound(tmp_path, 2, [survivor], history=[first]), now=NOON + DAY)
    alive = "select split_part(opportunity_key, ':', 2), crm_stage, amount from bi.opportunity_as_of($1::timestamptz) where not is_deleted order by 1"
    before = [("1", "appointmentscheduled", 100), ("3", "qualifiedtobuy", 100), ("4", "qualifiedtobuy", 100)]
    assert con.execute(alive, [NOON - DAY]).fetchall() == before
    assert con.execute(alive, [NOON + DAY]).fetchall() == [("3", "qualifiedtobuy", 100), ("4", "qualifiedtobuy", 150)]
    second = story(5, dealstage=[value(MADE, "qualifiedtobuy")], amount=[value(MADE, "100")])
    survivor = deal(5, NOON + 2 * DAY, amount="100", hs_merged_object_ids="1;2;4;3", **made)
    load(con, inbound(tmp_path, 3, [survivor], history=[second]), now=NOON + 2 * DAY)
    assert [row[0] for row in con.execute(alive, [NOON - DAY]).fetchall()] == ["1", "4", "5"]
    assert [row[0] for row in con.execute(alive, [NOON + 2 * DAY]).fetchall()] == ["5"]
    # Those that went are told as before when they are looked at again, each alone.
    facts = "select distinct opportunity_key, crm_stage, amount, is_deleted from core.opportunity_version order by all"
    told_once = con.execute(facts).fetchall()
    for number in (1, 2, 3):
        load(con, inbound(tmp_path, 3 + number, [], history=[story(number, hs_next_step=[value(MADE, "Call")])]), now=NOON + (2 + number) * DAY)
    assert con.execute(facts).fetchall() == told_once


def test_a_deal_was_in_the_currency_that_it_was_in(con: Any, tmp_path: Path) -> None:
    """HubSpot tells since when; before anybody named a currency, a deal was in that of the portal."""
    told = [
        story(1, dealstage=[value(MADE, "qualifiedtobuy")], amount=[value(MADE, "100")], deal_currency_code=[value(MADE + DAY, "USD")]),
        story(2, dealstage=[value(MADE, "qualifiedtobuy")], amount=[value(MADE, "100")],
              deal_currency_code=[value(MADE, "GBP"), value(MADE + DAY, "USD"), value(MADE + 2 * DAY, "")]),
    ]  # fmt: skip
    made = {"hs_createdate": hs(MADE), "amount": "100"}
    deals = [deal(1, deal_currency_code="USD", **made), deal(2, deal_currency_code=None, **made)]
    load(con, inbound(tmp_path, 1, deals, full=True, history=told), now=NOON)
    assert versions(con, "currency") == [(MADE, "EUR"), (MADE + DAY, "USD")]
    assert versions(con, "currency", number=2) == [(MADE, "GBP"), (MADE + DAY, "USD"), (MADE + 2 * DAY, "EUR")]


# ---- beside a plain reading --------------------------------------------------------------------------------------------------------

BERLIN = ZoneInfo("Europe/Berlin")
PARTNER = [("p2open", "Pitch", 0.5, False), ("p2won", "Signed", 1.0, True)]
CLOSED = {"closedwon", "closedlost", "p2won"}
CHOICES: dict[str, list[str]] = {
    "dealstage": [*(key for key, *_ in DEFAULT_STAGES), *(key for key, *_ in PARTNER)], "pipeline": ["default", "p2"],
    "amount": ["", "10", "20.50", "1e3"], "closedate": ["", *(f"2026-{m}-15T22:30:00Z" for m in ("09", "10", "11", "12")), "2026-12-20T22:30:00Z"],
    "hubspot_owner_id": ["", "7", "8"], "hs_next_step": ["", "Call", "Sign"], "hs_manual_forecast_category": ["", "PIPELINE", "COMMIT"],
}  # fmt: skip
SOURCES = {"CRM_UI": ("7", "person"), "API": (None, "integration"), "AUTOMATION_PLATFORM": (None, "workflow"), "NEW_WORD": (None, None)}
Entry = tuple[datetime, int, str, str]  # at, order within the instant, value, source


class Life:
    """A deal's past values, all of them, and what a plain reading of those that were delivered says."""

    def __init__(self, draw: random.Random, most: int = 30) -> None:
        self.created = MADE - draw.choice([0, 200]) * MS
        self.all: dict[str, list[Entry]] = {}
        for name, choices in CHOICES.items():
            at, entries = MADE + (0 if name in ("dealstage", "pipeline") or draw.random() < 0.6 else draw.randrange(1, 90)) * HOUR, []
            for _ in range(draw.choice([1, 1, 2, 5, 9, most]) if name != "pipeline" else draw.choice([1, 2, 3])):
                instant = [e for e in entries if e[0] == at]
                text = draw.choice([c for c in choices if c not in {e[2] for e in instant}])
                entries.append((at, len(instant), text, draw.choice(list(SOURCES))))
                at += draw.choice([0 * MS, 1 * MS, HOUR, 7 * HOUR, DAY] if len(instant) + 2 <= min(3, len(choices)) else [HOUR, 2 * DAY])
            self.all[name] = entries
        for at, _, text, source in list(self.all["dealstage"]):  # what HubSpot does itself
            if text in CLOSED and draw.random() < 0.8:
                self._add("closedate", at - draw.choice([0, 400, 1000]) * MS, hs(at), source)
            if text.startswith("p2") and draw.random() < 0.8:
                self._add("pipeline", at + draw.choice([-300, -1, 0, 2]) * MS, "p2", source)
        self.known: dict[str, list[Entry]] = {name: [] for name in CHOICES}

    def _add(self, name: str, at: datetime, text: str, source: str) -> None:
        if all(e[0] != at for e in self.all[name]) and at >= MADE:
            self.all[name] = sorted([*self.all[name], (at, 0, text, source)])

    def line(self, number: int, until: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
        """The deal and its history as HubSpot tells them at an instant: twenty values of each property."""
        then = {name: [e for e in entries if e[0] <= until] for name, entries in self.all.items()}
        for name, entries in then.items():
            self.known[name] = sorted({*self.known[name], *entries[-20:]})
        record = deal(number, max(e[0] for entries in then.values() for e in entries), hs_createdate=hs(self.created), createdate=hs(self.created))
        record["properties"] |= {name: entries[-1][2] if entries else None for name, entries in then.items()}
        for name in ("hs_is_closed", "hs_is_closed_won", "hs_deal_stage_probability", "amount_in_home_currency"):
            record["properties"][name] = None
        return record, story(
            number, **{name: [value(at, text, source, user_id=71 if source == "CRM_UI" else None) for at, _, text, source in entries]
                       for name, entries in then.items() if entries}
        )  # fmt: skip

    def moves(self) -> list[tuple[Any, ...]]:
        entries = self.known["dealstage"]
        told = [(at, text, *SOURCES[source]) for at, _, text, source in entries]
        return [(a[0], b and b[1], *a[1:]) for a, b in zip(told, [None, *told], strict=False) if b is None or a[1] != b[1]]

    def versions(self) -> list[tuple[Any, ...]]:
        stages = [e[0] for e in self.known["dealstage"]]
        told: list[tuple[datetime, str, Entry]] = []
        for name, entries in self.known.items():
            for n, (at, _, text, source) in enumerate(entries):
                entry = (at, -sum(e[0] == at for e in entries[n + 1 :]), text, source)
                near = [s for s in stages if abs(s - entry[0]) <= SECOND] if name == "pipeline" else []
                told.append((min(near, key=lambda s: (abs(s - entry[0]), s)) if near else entry[0], name, entry))
        told.sort(key=lambda t: (t[0], t[2][0], t[2][1], t[1]))
        state: dict[str, Any] = {}
        who: dict[str, Entry] = {}
        for name in CHOICES:
            mine = [t for t in told if t[1] == name]
            first = mine[0] if mine else None
            came_along = first is not None and first[0] <= self.created + timedelta(minutes=1)
            forgotten = len(mine) >= 20
            guess = first is not None and (came_along or (name in ("dealstage", "pipeline") and not forgotten))
            state[name] = plain(name, first[2][2]) if first and guess else None
            if first and came_along:
                who[name] = first[2]
        found = [(self.created, tuple(state.values()), actor(who))]
        for at in sorted({t[0] for t in told}):
            now = {t[1]: t[2] for t in told if t[0] == at}
            state |= {name: plain(name, entry[2]) for name, entry in now.items()}
            if at == self.created:
                found = []
            if not found or found[-1][1] != tuple(state.values()):
                found.append((at, tuple(state.values()), actor(now)))
        return found

    def pushes(self) -> int | None:
        dates = [(at, plain("closedate", text)) for at, _, text, _ in self.known["closedate"]]
        dates = [d for d in dates if d[1] is not None]
        moves = self.moves()
        closed = [(m[0], n and n[0]) for m, n in zip(moves, [*moves[1:], None], strict=True) if m[2] in CLOSED]
        days: dict[date, list[date]] = {}
        for (_, old), (at, new) in pairwise(dates):
            if old != new and not any(at + SECOND >= since and (until is None or at <= until) for since, until in closed):
                days.setdefault(at.astimezone(BERLIN).date(), [old])[1:] = [new]
        net = [pair for pair in days.values() if pair[1] > pair[0]]
        later = [(new - old).days >= 7 or (new.year, new.month) > (old.year, old.month) for old, new in net]
        return sum(later) if dates else None


def plain(name: str, text: str) -> Any:
    if name == "pipeline":
        return {"default": "Sales Pipeline", "p2": "Partner"}[text]
    if not text:
        return None
    if name == "amount":
        return Decimal(text).quantize(Decimal("0.01"))
    if name == "closedate":
        return datetime.fromisoformat(text).astimezone(BERLIN).date()
    return text.lower() if name == "hs_manual_forecast_category" else text


def actor(now: dict[str, Entry]) -> tuple[str | None, str | None]:
    """Of several changes that of the stage, else the last one."""
    return SOURCES[max(now.items(), key=lambda one: (one[0] == "dealstage", one[1][0], one[1][1], one[0]))[1][3]] if now else (None, None)


@pytest.mark.parametrize("seed", range(3))
def test_histories_read_as_a_plain_reading_of_them_does(con: Any, tmp_path: Path, seed: int) -> None:
    """Two hundred deals, read on two nights, of which HubSpot told what it still knew."""
    draw = random.Random(seed)
    lives = [Life(draw) for _ in range(200)]
    pipelines = [pipeline(), pipeline("p2", "Partner", PARTNER)]
    for night, until in enumerate((MADE + 9 * DAY, NOON + DAY)):
        told = [life.line(number, until) for number, life in enumerate(lives, 1)]
        pull = inbound(tmp_path, night, [t[0] for t in told], full=not night, history=[t[1] for t in told], pipelines=pipelines)
        load(con, pull, now=until)
    columns = ("crm_stage", "pipeline", "amount", "close_date", "owner_id", "next_step", "forecast_category")
    found: dict[str, list[Any]] = {}
    for row in rows(con, "from core.opportunity_version order by opportunity_key, valid_from"):
        version = (row["valid_from"], tuple(row[c] for c in columns), (row["changed_by"], row["changed_through"]))
        before = found.setdefault(row["opportunity_key"], [])
        if not before or before[-1][1] != version[1]:  # stages of this test stand in pipelines that do not have them: probabilities waver
            before.append(version)
    moved: dict[str, list[Any]] = {}
    for row in rows(con, 'from core.stage_event order by opportunity_key, "at"'):
        move = tuple(row[c] for c in ("at", "from_crm_stage", "to_crm_stage", "changed_by", "changed_through"))
        moved.setdefault(row["opportunity_key"], []).append(move)
    deals = deals_of(con)
    for number, life in enumerate(lives, 1):
        assert found[f"inbound:{number}"] == life.versions(), number
        assert sorted(moved[f"inbound:{number}"], key=str) == sorted(life.moves(), key=str), number
        assert deals[str(number)]["close_date_pushes"] == life.pushes(), number
    assert sum(len(v) for v in found.values()) > 3000 and sum(life.pushes() or 0 for life in lives) > 50
    assert timeline_faults(con) == []
    told_once = con.execute("from core.opportunity_version order by all").fetchall()
    again = [life.line(number, NOON + DAY)[1] for number, life in enumerate(lives, 1)]
    load(con, inbound(tmp_path, 9, [], history=again, pipelines=pipelines), now=NOON + 2 * DAY)
    assert con.execute("from core.opportunity_version order by all").fetchall() == told_once


@settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), nights=st.lists(st.integers(0, 40 * 24), min_size=1, max_size=3))
def test_a_past_told_over_several_nights_is_the_past_told_at_once(empty_warehouse: Path, seed: int, nights: list[int]) -> None:
    """Fifty deals: what each night tells of them joins what was known. Each sync leaves whole timelines, and one that comes again changes nothing."""
    draw = random.Random(seed)
    lives = [Life(draw, most=15) for _ in range(50)]
    pipelines = [pipeline(), pipeline("p2", "Partner", PARTNER)]
    end = MADE + 400 * DAY
    told = []
    # Stages of this test stand in pipelines that do not have them: probabilities, which have no history, waver.
    columns = "crm_stage, stage, pipeline, amount, currency, amount_home, close_date, owner_id, next_step, forecast_category, is_closed, is_won"
    state = f"""select opportunity_key, valid_from, {columns}, changed_by, changed_through from core.opportunity_version
                window deal as (partition by opportunity_key order by valid_from)
                qualify ({columns}) is distinct from lag(({columns})) over deal or lag(valid_from) over deal is null order by 1, 2"""
    for instants in ([end], [*sorted(MADE + HOUR + n * HOUR for n in nights), end]):
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copyfile(empty_warehouse, Path(scratch) / "w.duckdb")
            with open_warehouse(Path(scratch) / "w.duckdb", threads=1) as warehouse:
                for night, until in enumerate(instants):
                    lines = [life.line(number, until) for number, life in enumerate(lives, 1)]
                    pull = inbound(
                        Path(scratch), night, [line[0] for line in lines], full=True, history=[line[1] for line in lines], pipelines=pipelines
                    )
                    load(warehouse.con, pull, now=until)
                    assert timeline_faults(warehouse.con) == []
                told.append([warehouse.con.execute(sql).fetchall() for sql in (state, 'from core.stage_event order by all')])
                before = warehouse.con.execute("from core.opportunity_version order by all").fetchall()
                load(warehouse.con, pull, now=until + DAY)
                assert warehouse.con.execute("from core.opportunity_version order by all").fetchall() == before
    for once, piecemeal in zip(*told, strict=True):
        assert [row for row in once if row not in piecemeal] == [row for row in piecemeal if row not in once] == []
    assert len(told[0][0]) > 500
