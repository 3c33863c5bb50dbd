"""HubSpot's property histories: who changed a deal and by what, and what they leave unsaid."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from warehouse_land import ADA, BO, HS_OWNERS, NOON, USERS, deal, deals_of, history, hs, inbound, one, opp_id, opportunity, pipeline, rows, sales, user

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
