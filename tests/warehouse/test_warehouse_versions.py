"""What deals were: from the CRM's history, from what syncs saw, and from both."""

from __future__ import annotations

import random
import shutil
import tempfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warehouse_land import ADA, BO, NOON, deal, history, inbound, one, opp_id, opportunity, past, rows, sales, stage_rows, stamp, timeline_faults

from warehouse import stages
from warehouse.connection import open_warehouse
from warehouse.load import load

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MADE = NOON - 30 * DAY
LATE = "Negotiation/Review"


def told(number: int, seq: int, at: datetime, field: str, old: Any, new: Any, kind: str = "Text") -> dict[str, Any]:
    """A row of OpportunityFieldHistory."""
    return {
        "Id": f"017{number:06d}{seq:06d}AAA", "OpportunityId": opp_id(number), "Field": field, "DataType": kind, "OldValue": old, "NewValue": new,
        "CreatedDate": stamp(at), "IsDeleted": False,
    }  # fmt: skip


def versions(con: Any, *columns: str, key: str = f"sales:{opp_id(1)}") -> list[tuple[Any, ...]]:
    """(valid_from, columns …) of a deal's versions. Each ends where the next begins, the last one not at all."""
    found = rows(con, "from core.opportunity_version where opportunity_key = $1 order by valid_from", key)
    assert [v["valid_to"] for v in found] == [*(v["valid_from"] for v in found[1:]), None]
    assert all(v["valid_to"] is None or v["valid_from"] < v["valid_to"] for v in found)
    return [tuple(v[c] for c in ("valid_from", *columns)) for v in found]


def test_history_rows_tell_what_a_deal_was_before_the_first_sync(con: Any, tmp_path: Path) -> None:
    told_rows = [
        history(1, 1, MADE, "Prospecting", "2026-12-31", 500.0) | {"ForecastCategory": "Pipeline", "Probability": 10.0},
        history(1, 2, MADE + DAY, "Prospecting", "2027-01-31", 500.0) | {"ForecastCategory": "BestCase", "Probability": 10.0},
        history(1, 3, MADE + 2 * DAY, LATE, "2027-01-31", 750.0) | {"ForecastCategory": "Forecast", "Probability": 90.0},
    ]
    now = opportunity(1, StageName=LATE, Amount=750.0, CloseDate="2027-01-31", ForecastCategoryName="Commit", Probability=90.0)
    load(con, sales(tmp_path, 1, [now], full=True, OpportunityHistory=told_rows), now=NOON)
    assert versions(con, "crm_stage", "stage", "amount", "amount_home", "close_date", "forecast_category", "probability", "origin") == [
        (MADE, "Prospecting", "prequalified", 500, 500, date(2026, 12, 31), "pipeline", Decimal("0.1"), "crm_history"),
        (MADE + DAY, "Prospecting", "prequalified", 500, 500, date(2027, 1, 31), "best_case", Decimal("0.1"), "crm_history"),
        (MADE + 2 * DAY, LATE, "negotiation", 750, 750, date(2027, 1, 31), "commit", Decimal("0.9"), "crm_history"),
    ]


def test_tracked_fields_tell_the_rest_a_lookup_in_names_and_in_ids(con: Any, tmp_path: Path) -> None:
    """What was there before the first change is its old value; ids may come in 15 characters; what is no field is left aside."""
    types = [{"Id": f"01200000000000{i}AAA", "Name": name, "SystemModstamp": stamp(NOON)} for i, name in enumerate(["New", "Renewal"])]
    changes = [
        told(1, 1, MADE, "created", None, None), told(1, 2, MADE + DAY, "Owner", "Bo Gone", "Ada Seller"),
        told(1, 3, MADE + DAY, "Owner", BO[:15], ADA[:15], "EntityId"), told(1, 4, MADE + 2 * DAY, "NextStep", None, "Call"),
        told(1, 5, MADE + 3 * DAY, "NextStep", "Call", "Quote"), told(1, 6, MADE + 4 * DAY, "RecordType", "New", "Renewal"),
        told(1, 7, MADE + 4 * DAY, "RecordType", "012000000000000AAA", "012000000000001AAA", "EntityId"),
        told(1, 8, MADE + 5 * DAY, "locked", None, None), told(1, 9, MADE + 6 * DAY, "Description", None, None),
    ]  # fmt: skip
    now = opportunity(1, OwnerId=ADA, NextStep="Quote", RecordTypeId="012000000000001AAA")
    load(con, sales(tmp_path, 1, [now], full=True, OpportunityFieldHistory=changes, RecordType=types), now=NOON)
    assert versions(con, "owner_id", "next_step", "pipeline") == [
        (MADE, BO, None, "New"), (MADE + DAY, ADA, None, "New"), (MADE + 2 * DAY, ADA, "Call", "New"), (MADE + 3 * DAY, ADA, "Quote", "New"),
        (MADE + 4 * DAY, ADA, "Quote", "Renewal"),
    ]  # fmt: skip


def test_a_value_that_was_emptied_is_empty_and_not_as_before(con: Any, tmp_path: Path) -> None:
    changes = [told(1, 1, MADE + DAY, "NextStep", "Call", None), told(1, 2, MADE + 2 * DAY, "Amount", 5000.0, None, "Currency")]
    load(con, sales(tmp_path, 1, [opportunity(1, Amount=None)], full=True, OpportunityFieldHistory=changes), now=NOON)
    assert versions(con, "next_step", "amount") == [(MADE, "Call", 5000), (MADE + DAY, None, 5000), (MADE + 2 * DAY, None, None)]


def test_within_a_second_the_last_row_counts_and_each_move_is_an_event(con: Any, tmp_path: Path) -> None:
    at = MADE + DAY
    story = [history(1, 1, MADE, "Prospecting"), history(1, 2, at, "Qualification"), history(1, 3, at, LATE), history(1, 4, at, LATE, amount=2.0)]
    load(con, sales(tmp_path, 1, [opportunity(1, StageName=LATE, Amount=2.0)], full=True, OpportunityHistory=story), now=NOON)
    assert versions(con, "crm_stage", "amount") == [(MADE, "Prospecting", 1000), (at, LATE, 2)]
    assert [(e["at"], e["kind"]) for e in rows(con, 'from core.stage_event order by "at", to_crm_stage desc')] == [
        (MADE, "enter"), (at, "advance"), (at, "skip"),
    ]  # fmt: skip


def test_where_old_history_is_gone_its_first_row_tells_what_was_before(con: Any, tmp_path: Path) -> None:
    first = history(1, 5, MADE + 9 * DAY, "Qualification", "2027-03-31", 800.0) | {"PrevAmount": 500.0, "PrevCloseDate": "2026-12-31"}
    changes = [told(1, 1, MADE + 9 * DAY, "StageName", "Prospecting", "Qualification", "DynamicEnum")]
    now = opportunity(1, Amount=800.0, CloseDate="2027-03-31")
    load(con, sales(tmp_path, 1, [now], full=True, OpportunityHistory=[first], OpportunityFieldHistory=changes), now=NOON)
    assert versions(con, "crm_stage", "amount", "close_date") == [
        (MADE, "Prospecting", 500, date(2026, 12, 31)), (MADE + 9 * DAY, "Qualification", 800, date(2027, 3, 31)),
    ]  # fmt: skip


def test_a_deal_without_history_was_what_it_is_but_for_a_stage_that_it_entered_later(con: Any, tmp_path: Path) -> None:
    entered = NOON - 5 * DAY
    deals = [opportunity(1, StageName="Closed Won", IsClosed=True, IsWon=True, LastStageChangeDate=stamp(entered)), opportunity(2)]
    load(con, sales(tmp_path, 1, deals, full=True, OpportunityHistory=None, OpportunityFieldHistory=None), now=NOON)
    assert versions(con, "crm_stage", "stage", "is_closed", "amount", "origin") == [
        (MADE, None, "unmapped", False, 1000, "observed"), (entered, "Closed Won", "closed_won", True, 1000, "observed"),
    ]  # fmt: skip
    assert versions(con, "crm_stage", "origin", key=f"sales:{opp_id(2)}") == [(MADE, "Qualification", "observed")]


def test_an_observed_change_takes_historys_instant_once_history_is_there(con: Any, tmp_path: Path) -> None:
    """At two in the night a sync sees what happened at two in the afternoon; the history rows come a week later."""
    made = stamp(MADE)
    load(con, sales(tmp_path, 1, [opportunity(1, CreatedDate=made)], full=True, OpportunityHistory=None), now=NOON)
    # The deal was touched again in the evening, so its stamp does not tell when the stage moved.
    moved = opportunity(1, NOON + 9 * HOUR, StageName=LATE, NextStep="Sign", Amount=7.0, CreatedDate=made)
    load(con, sales(tmp_path, 2, [moved], OpportunityHistory=None), now=NOON + 14 * HOUR)
    seen = [(MADE, "Qualification", None, 1000, "observed"), (NOON + 9 * HOUR, LATE, "Sign", 7, "observed")]
    assert versions(con, "crm_stage", "next_step", "amount", "origin") == seen
    late = [history(1, 1, MADE, "Qualification"), history(1, 2, NOON + 2 * HOUR, LATE), history(1, 3, NOON + 9 * HOUR, LATE, amount=7.0)]
    load(con, sales(tmp_path, 3, [], OpportunityHistory=late), now=NOON + 7 * DAY)
    assert versions(con, "crm_stage", "next_step", "amount", "origin") == [
        (MADE, "Qualification", None, 1000, "crm_history"), (NOON + 2 * HOUR, LATE, None, 1000, "crm_history"),
        (NOON + 9 * HOUR, LATE, "Sign", 7, "crm_history"),
    ]  # fmt: skip
    assert [(e["at"], e["to_crm_stage"]) for e in rows(con, 'from core.stage_event order by "at"')] == [
        (MADE, "Qualification"), (NOON + 2 * HOUR, LATE),
    ]  # fmt: skip


def test_what_only_syncs_saw_stays_when_history_is_built_anew(con: Any, tmp_path: Path) -> None:
    made, steps = stamp(MADE), ["Call", "Quote", None, "Sign"]
    for night, step in enumerate(steps):
        record = opportunity(1, NOON + night * DAY, NextStep=step, CreatedDate=made)
        load(con, sales(tmp_path, night, [record], full=not night), now=NOON + night * DAY + 14 * HOUR)
    late = [history(1, 1, MADE, "Qualification"), history(1, 2, NOON + 1.5 * DAY, "Qualification", "2027-02-01")]
    record = opportunity(1, NOON + 3 * DAY, NextStep="Sign", CreatedDate=made)
    load(con, sales(tmp_path, 9, [record], OpportunityHistory=late), now=NOON + 9 * DAY)
    # The record still says the close date that it had: until it is read again, it has the last word about the present.
    assert versions(con, "next_step", "close_date") == [
        (MADE, "Call", date(2026, 12, 31)), (NOON + DAY, "Quote", date(2026, 12, 31)), (NOON + 1.5 * DAY, "Quote", date(2027, 2, 1)),
        (NOON + 2 * DAY, None, date(2026, 12, 31)), (NOON + 3 * DAY, "Sign", date(2026, 12, 31)),
    ]  # fmt: skip


def test_history_that_is_ahead_of_the_record_waits_for_it(con: Any, tmp_path: Path) -> None:
    """A pull that stopped has the history of today and the deals of yesterday."""
    made = stamp(MADE)
    load(con, sales(tmp_path, 1, [opportunity(1, CreatedDate=made)], full=True, OpportunityHistory=[history(1, 1, MADE, "Qualification")]), now=NOON)
    load(con, sales(tmp_path, 2, [], OpportunityHistory=[history(1, 2, NOON + HOUR, LATE)]), now=NOON + DAY)
    assert versions(con, "crm_stage") == [(MADE, "Qualification")]
    assert one(con, "select stage_entered_at from core.opportunity")["stage_entered_at"] <= NOON + HOUR
    record = opportunity(1, NOON + HOUR, StageName=LATE, LastStageChangeDate=stamp(NOON + HOUR), CreatedDate=made)
    load(con, sales(tmp_path, 3, [record]), now=NOON + 2 * DAY)
    assert versions(con, "crm_stage") == [(MADE, "Qualification"), (NOON + HOUR, LATE)]
    assert [e["to_crm_stage"] for e in rows(con, 'from core.stage_event order by "at"')] == ["Qualification", LATE]


def test_a_deal_is_gone_from_its_deletion_to_its_return(con: Any, tmp_path: Path) -> None:
    made = stamp(MADE)
    load(con, sales(tmp_path, 1, [opportunity(1, CreatedDate=made)], full=True), now=NOON)
    load(con, sales(tmp_path, 2, [], deleted={opp_id(1): NOON + HOUR}), now=NOON + DAY)
    load(con, sales(tmp_path, 3, [opportunity(1, NOON + 30 * HOUR, CreatedDate=made)]), now=NOON + 2 * DAY)
    assert versions(con, "is_deleted", "crm_stage") == [
        (MADE, False, "Qualification"), (NOON + HOUR, True, "Qualification"), (NOON + 30 * HOUR, False, "Qualification"),
    ]  # fmt: skip


CURRENCIES = [{"Id": f"01L{i}", "IsoCode": c, "ConversionRate": r, "IsCorporate": c == "EUR"}
    for i, (c, r) in enumerate([("EUR", 1.0), ("USD", 1.25)])]


def dated(since: str, until: str, rate: float) -> dict[str, Any]:
    return {"Id": f"04w{since}", "IsoCode": "USD", "StartDate": since, "NextStartDate": until, "ConversionRate": rate}


def test_each_version_is_converted_at_the_rate_of_its_own_close_date(con: Any, tmp_path: Path) -> None:
    """Also of a deal that is in the home currency by now; rates that are corrected correct the past."""
    story = [
        history(1, 1, MADE, "Qualification", "2026-06-30", 1000.0) | {"CurrencyIsoCode": "USD"},
        history(1, 2, MADE + DAY, "Qualification", "2026-12-31", 1000.0) | {"CurrencyIsoCode": "USD"},
        history(1, 3, MADE + 2 * DAY, "Qualification", "2026-12-31", 900.0) | {"CurrencyIsoCode": "EUR"},
    ]
    rates = [dated("2026-01-01", "2026-07-01", 1.1), dated("2026-07-01", "9999-12-31", 1.2)]
    deals = [opportunity(1, Amount=900.0), opportunity(2)]
    pull = sales(tmp_path, 1, deals, full=True, OpportunityHistory=story, CurrencyType=CURRENCIES, DatedConversionRate=rates)
    load(con, pull, now=NOON)
    assert [v[2] for v in versions(con, "currency", "amount_home")] == [Decimal("909.09"), Decimal("833.33"), 900]
    moved = [rates[0], dated("2026-07-01", "9999-12-31", 2.0)]
    load(con, sales(tmp_path, 2, [], CurrencyType=CURRENCIES, DatedConversionRate=moved), now=NOON + DAY)
    assert [v[2] for v in versions(con, "currency", "amount_home")] == [Decimal("909.09"), 500, 900]


def test_the_stage_map_and_closed_flags_hold_for_the_past_too(con: Any, tmp_path: Path) -> None:
    odd = ("Orbit Check", 30, False, False)
    story = [
        history(1, 1, MADE, "Orbit Check"), history(1, 2, MADE + DAY, "Closed Lost"), history(1, 3, MADE + 2 * DAY, "Qualification"),
        history(1, 4, MADE + 3 * DAY, "Nobody Defines This"), history(1, 5, MADE + 4 * DAY, "Qualification"),
    ]  # fmt: skip
    pull = sales(tmp_path, 1, [opportunity(1)], full=True, OpportunityHistory=story, OpportunityStage=stage_rows(odd))
    load(con, pull, now=NOON)
    expected = ["unmapped", "closed_lost", "qualified", "unmapped", "qualified"]
    assert [v[1:] for v in versions(con, "stage", "is_closed", "is_won")] == [(s, s == "closed_lost", False) for s in expected]
    stages.confirm(con, "sales", "*", "Orbit Check", "discovery", NOON)
    assert [v[1] for v in versions(con, "stage")] == ["discovery", *expected[1:]]
    # The admin makes a stage of the past a closed one: nothing of the deal moved.
    closed = stage_rows(("Orbit Check", 0, True, False))
    load(con, sales(tmp_path, 2, [], OpportunityStage=closed), now=NOON + DAY)
    assert [v[1:] for v in versions(con, "stage", "is_closed")][:2] == [("closed_lost", True), ("closed_lost", True)]


def test_property_histories_of_hubspot_tell_versions_too(con: Any, tmp_path: Path) -> None:
    """What had no value before its first one was empty; the close date is a day of the business time zone, also when that changes."""
    story = past(
        1, dealstage=[(MADE, "appointmentscheduled"), (MADE + 2 * DAY, "qualifiedtobuy")], pipeline=[(MADE, "default")],
        amount=[(MADE + DAY, "100"), (MADE + 3 * DAY, "")], closedate=[(MADE, "2026-12-30T23:30:00Z")],
        hubspot_owner_id=[(MADE, "8"), (MADE + 2 * DAY, "7")], hs_next_step=[(MADE + 4 * DAY, "Call")],
        hs_manual_forecast_category=[(MADE + DAY, "BEST_CASE")],
    )  # fmt: skip
    now = deal(1, amount="", hs_next_step="Call", hs_manual_forecast_category="BEST_CASE", closedate="2026-12-30T23:30:00Z")
    load(con, inbound(tmp_path, 1, [now], full=True, history=[story]), now=NOON)
    expected = [
        (MADE, "prequalified", None, "8", None, None), (MADE + DAY, "prequalified", 100, "8", None, "best_case"),
        (MADE + 2 * DAY, "qualified", 100, "7", None, "best_case"), (MADE + 3 * DAY, "qualified", None, "7", None, "best_case"),
        (MADE + 4 * DAY, "qualified", None, "7", "Call", "best_case"),
    ]  # fmt: skip
    columns = ("stage", "amount", "owner_id", "next_step", "forecast_category")
    assert versions(con, *columns, key="inbound:1") == expected
    assert {v[1:] for v in versions(con, "close_date", "pipeline", "origin", key="inbound:1")} == {
        (date(2026, 12, 31), "Sales Pipeline", "crm_history"),
    }  # fmt: skip
    load(con, inbound(tmp_path, 2, []), now=NOON + DAY, business={"timezone": "America/New_York"})
    assert versions(con, *columns, key="inbound:1") == expected
    assert {v[1] for v in versions(con, "close_date", key="inbound:1")} == {date(2026, 12, 30)}


def test_only_deals_that_were_touched_are_looked_at(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON)
    con.execute("update core.opportunity_version set next_step = 'by hand'")
    load(con, sales(tmp_path, 2, [opportunity(1, NOON + HOUR, Amount=5.0, CreatedDate=stamp(MADE))]), now=NOON + DAY)
    assert [v[1] for v in versions(con, "next_step")] == [None, None]
    assert versions(con, "next_step", key=f"sales:{opp_id(2)}") == [(MADE, "by hand")]


# ---- whatever happened, whatever came when ----------------------------------------------------------------------------------------

NAMES = ["Prospecting", "Qualification", "Closed Won", "Closed Lost"]
CHANGES = st.lists(
    st.tuples(
        st.integers(1, 3),  # which deal
        st.integers(0, 30),  # hours since the last change: 0 is the same second
        st.sampled_from(["StageName", "Amount", "CloseDate", "OwnerId", "NextStep", "IsDeleted"]),
        st.integers(0, 3),
    ),
    max_size=25,
)
# After how many of the changes a sync comes, and whether it may read each kind of history, and whether it reads all.
SYNCS = st.lists(st.tuples(st.integers(0, 25), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=4)


class Org:
    """Three deals, what was done to them, and what they were after each deed."""

    def __init__(self, changes: list[tuple[int, int, str, int]]) -> None:
        values: dict[str, list[Any]] = {
            "StageName": NAMES, "Amount": [None, 1.0, 2.0, 3.0], "CloseDate": [f"2027-0{n}-01" for n in range(1, 5)], "OwnerId": [ADA, BO, ADA, BO],
            "NextStep": [None, "Call", "Quote", "Sign"], "IsDeleted": [False, True, False, True],
        }  # fmt: skip
        first = {name: choice[0] for name, choice in values.items()}
        self.states = {n: [(MADE, dict(first))] for n in (1, 2, 3)}
        self.history = [self._row(n, 0, MADE, first) for n in (1, 2, 3)]
        self.fields: list[dict[str, Any]] = []
        self.at, self.seen = [MADE], [(3, 0)]  # after each change: how many rows of either history there were
        for number, hours, name, choice in changes:
            at, (_, before) = self.at[-1] + hours * HOUR, self.states[number][-1]
            after = before | {name: values[name][choice]}
            self.at.append(at)
            if after != before and (name == "IsDeleted" or not before["IsDeleted"]):
                self.states[number].append((at, after))
                if name in ("StageName", "Amount", "CloseDate"):
                    self.history.append(self._row(number, len(self.history), at, after))
                if name == "OwnerId":
                    self.fields.append(told(number, len(self.fields), at, "Owner", before[name], after[name], "EntityId"))
            self.seen.append((len(self.history), len(self.fields)))

    @staticmethod
    def _row(number: int, seq: int, at: datetime, state: dict[str, Any]) -> dict[str, Any]:
        return history(number, seq, at, state["StageName"], state["CloseDate"], state["Amount"])

    def pull(self, root: Path, run: int, until: int, since: datetime, *, full: bool, histories: tuple[bool, bool]) -> Path:
        """Everything, or what moved since. What history could not be read another time is read again."""
        deals = []
        for number, states in self.states.items():
            at, state = [s for s in states if s[0] <= self.at[until]][-1]
            entered = [at for (at, state), (_, before) in zip(states[1:], states, strict=False) if state["StageName"] != before["StageName"]]
            closed = state["StageName"].startswith("Closed")
            if full or at >= since:
                deals.append(opportunity(
                    number, at, CreatedDate=stamp(MADE), IsClosed=closed, IsWon=state["StageName"] == "Closed Won",
                    LastStageChangeDate=next((stamp(e) for e in reversed(entered) if e <= at), None), **state,
                ))  # fmt: skip
        rows_there, fields_there = self.seen[until]
        return sales(
            root, run, deals, full=full, OpportunityHistory=self.history[:rows_there] if histories[0] else None,
            OpportunityFieldHistory=self.fields[:fields_there] if histories[1] else None,
        )  # fmt: skip


def check(con: Any, org: Org, until: int, *, whole: bool) -> None:
    """No gap, no overlap, the present is the deal; and, where all was read, every tracked value is right at every instant."""
    assert timeline_faults(con) == []
    for number, states in org.states.items():
        found = versions(con, "crm_stage", "amount", "close_date", "owner_id", "next_step", "is_deleted", key=f"sales:{opp_id(number)}")
        if not whole:
            continue
        lasting = [s for s, n in zip(states, [*states[1:], (None, None)], strict=True) if s[0] != n[0] and s[0] <= org.at[until]]
        for at, state in lasting:
            row = [v for v in found if v[0] <= at][-1]
            assert row[1:5] == (state["StageName"], state["Amount"], date.fromisoformat(state["CloseDate"]), state["OwnerId"]), at


@settings(max_examples=9, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(changes=CHANGES, syncs=SYNCS)
def test_versions_are_whole_whatever_happened_and_whatever_came_when(empty_warehouse: Path, changes: list[Any], syncs: list[Any]) -> None:
    org = Org(changes)
    last = len(changes)
    nights = [*sorted((min(until, last), *rest) for until, *rest in syncs), (last, True, True, False)]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "w.duckdb"
        shutil.copyfile(empty_warehouse, path)
        with open_warehouse(path, threads=1) as warehouse:
            con, since = warehouse.con, MADE
            for run, (until, *readable, full) in enumerate(nights):
                now = org.at[until] + 12 * HOUR
                pull = org.pull(Path(scratch), run, until, since, full=full or not run, histories=(readable[0], readable[1]))
                load(con, pull, now=now)
                check(con, org, until, whole=all(readable))
                since = org.at[until]
            before = con.execute("from core.opportunity_version order by all").fetchall()
            load(con, pull, now=now + DAY)
            assert con.execute("from core.opportunity_version order by all").fetchall() == before


def test_the_order_in_which_history_arrives_makes_no_difference(con: Any, empty_warehouse: Path, tmp_path: Path) -> None:
    draw = random.Random(5)
    org = Org([(draw.randrange(1, 4), draw.randrange(30), "StageName" if i % 2 else "Amount", draw.randrange(4)) for i in range(40)])
    last = len(org.at) - 1
    load(con, org.pull(tmp_path, 1, last, MADE, full=True, histories=(True, True)), now=NOON + 90 * DAY)
    expected = con.execute("from core.opportunity_version order by all").fetchall()
    path = tmp_path / "other.duckdb"
    shutil.copyfile(empty_warehouse, path)
    with open_warehouse(path, threads=1) as other:
        load(other.con, org.pull(tmp_path, 2, last, MADE, full=True, histories=(False, False)), now=NOON + 90 * DAY)
        pieces = draw.sample(org.history, len(org.history))
        for run in range(4):
            load(other.con, sales(tmp_path, 3 + run, [], OpportunityHistory=pieces[run::4]), now=NOON + (91 + run) * DAY)
        assert other.con.execute("from core.opportunity_version order by all").fetchall() == expected
    assert len(expected) > 20


def test_a_warehouse_of_before_keeps_what_its_syncs_saw(empty_warehouse: Path, tmp_path: Path) -> None:
    """Versions were all that it had of past observations."""
    path, made = tmp_path / "w.duckdb", stamp(MADE)
    shutil.copyfile(empty_warehouse, path)
    with open_warehouse(path, threads=1) as warehouse:
        for night, step in enumerate(["Call", "Quote", "Sign"]):
            record = opportunity(1, NOON + night * DAY, NextStep=step, CreatedDate=made)
            load(warehouse.con, sales(tmp_path, night, [record], full=not night), now=NOON + night * DAY)
        before = versions(warehouse.con, "next_step", "close_date")
        warehouse.con.execute("drop table raw.opportunity_seen; delete from ops.schema_migration where version >= 3")
    with open_warehouse(path, threads=1) as warehouse:
        late = [history(1, 1, MADE, "Qualification"), history(1, 2, NOON + 3 * DAY, "Qualification", amount=5.0)]
        record = opportunity(1, NOON + 3 * DAY, NextStep="Sign", Amount=5.0, CreatedDate=made)
        load(warehouse.con, sales(tmp_path, 9, [record], OpportunityHistory=late), now=NOON + 4 * DAY)
        found = versions(warehouse.con, "next_step", "amount", "close_date")
    assert [v[1] for v in before] == ["Call", "Quote", "Sign"]
    assert [(at, step, day) for at, step, _, day in found[:3]] == before
    assert [(at, step, amount) for at, step, amount, _ in found[3:]] == [(NOON + 3 * DAY, "Sign", 5)]
