"""Salesforce pulls become opportunities, whichever way they travelled."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from warehouse_land import (
    ACCOUNT,
    ADA,
    BO,
    NOON,
    OTHER_ACCOUNT,
    SalesforcePull,
    account,
    counts,
    deals_of,
    history,
    one,
    opp_id,
    opportunity,
    rows,
    sales,
    stage_rows,
    stamp,
    user,
)  # fmt: skip

from warehouse import ops
from warehouse.errors import LandingError
from warehouse.load import known, load

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_deal_as_people_see_it(con: Any, tmp_path: Path) -> None:
    record = opportunity(
        7, Amount=12500.5, Probability=75.0, StageName="Proposal/Price Quote", ForecastCategoryName="Best Case", NextStep="Call Karin",
        Loss_Reason__c="Price", Seats__c=40.0, LastStageChangeDate=stamp(NOON - 4 * DAY), RecordTypeId="012000000000007AAA",
    )  # fmt: skip
    types = [{"Id": "012000000000007AAA", "Name": "New Business", "SystemModstamp": stamp(NOON)}]
    mapped = {"lost_reason": "Loss_Reason__c", "size": "Seats__c"}
    load(con, sales(tmp_path, 1, [record], full=True, RecordType=types), now=NOON, fields=mapped)
    deal = deals_of(con)[opp_id(7)]
    expected = {
        "opportunity_key": f"sales:{opp_id(7)}", "source": "sales", "crm": "salesforce", "name": "Deal 7",
        "url": f"https://acme.example/{opp_id(7)}",
        "account_name": "Nordwind GmbH", "owner_name": "Ada Seller", "owner_active": True, "pipeline": "New Business",
        "pipeline_id": "012000000000007AAA", "crm_stage": "Proposal/Price Quote", "stage": "proposal", "stage_rank": 3, "is_closed": False,
        "is_won": False, "is_deleted": False, "amount": Decimal("12500.50"), "currency": "EUR", "amount_home": Decimal("12500.50"),
        "probability": Decimal("0.75"), "forecast_category": "best_case", "close_date": date(2026, 12, 31), "next_step": "Call Karin",
        "stage_entered_at": NOON - 4 * DAY, "stage_default_probability": Decimal("0.75"), "created_at": NOON - 30 * DAY, "contact_count": 0,
        "lost_reason": "Price", "activity_capability": "full", "closed_at": None, "crm_modified_at": NOON, "synced_at": NOON,
    }  # fmt: skip
    assert {name: deal[name] for name in expected} == expected
    assert orjson.loads(deal["evidence"]) == {"lost_reason": "Price", "size": "40"}
    assert orjson.loads(deal["custom"])["Loss_Reason__c"] == "Price"
    assert not {"Name", "Amount", "Plumbline_Status__c"} & orjson.loads(deal["custom"]).keys()


def test_rest_and_bulk_deliver_the_same_deal(con: Any, tmp_path: Path) -> None:
    """Typed JSON with a nested parent, and text with the parent's field as a column: the same payload, the same hash."""
    awkward = {
        "Name": 'He said "yes",\nthen no — Ünïcode', "Description": "first\r\nsecond", "Amount": 12345678.10, "Seats__c": 3.0,
        "Probability": 33.3,
        "Kickoff__c": stamp(NOON), "Weighted__c": -0.5,
    }  # fmt: skip
    records = [opportunity(1, Account={"attributes": {"type": "Account"}, "Name": "Nordwind GmbH"}, **awkward),
               opportunity(2, Account={"attributes": {"type": "Account"}, "Name": None}, Amount=None)]  # fmt: skip
    load(con, sales(tmp_path, 1, records, full=True), now=NOON)
    rest = rows(con, "select id, payload from raw.salesforce_opportunity order by id")
    hashes = rows(con, "select opportunity_id, row_hash from core.opportunity order by 1")
    bulk = load(con, sales(tmp_path, 2, records, form="csv"), now=NOON + HOUR)
    assert rows(con, "select id, payload from raw.salesforce_opportunity order by id") == rest
    assert rows(con, "select opportunity_id, row_hash from core.opportunity order by 1") == hashes
    assert counts(bulk, "Opportunity") == (0, 0, 2, 0, 0)
    payload = orjson.loads(rest[0]["payload"])
    assert payload["Amount"] == "12345678.1"
    assert payload["Account.Name"] == "Nordwind GmbH"
    assert payload["Description"] == "first\nsecond"
    assert "Loss_Reason__c" not in payload
    assert list(payload) == sorted(payload)


def test_bulk_writes_large_numbers_with_an_exponent(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, Amount="1.25E7")], full=True, form="csv"), now=NOON)
    assert deals_of(con)[opp_id(1)]["amount"] == 12500000
    again = load(con, sales(tmp_path, 2, [opportunity(1, Amount=12500000.0)]), now=NOON)
    assert counts(again, "Opportunity") == (0, 0, 1, 0, 0)


def test_of_a_record_that_was_read_twice_in_one_second_the_last_reading_counts(con: Any, tmp_path: Path) -> None:
    """A pull that was gone on with holds the deals as they were, and what changed since: Salesforce stamps whole seconds."""
    pull = sales(tmp_path, 1, [opportunity(n, NextStep="as it was") for n in range(1, 40)], full=True)
    manifest = orjson.loads((pull / "Opportunity" / "manifest.json").read_bytes())
    for reading, words in ((2, "third"), (1, "second")):
        path = pull / "Opportunity" / f"part-{reading}-00000.json"
        path.write_bytes(orjson.dumps([opportunity(n, NextStep=words) for n in range(1, 40, reading)]))
        size = path.stat().st_size
        rows_of_it = len(range(1, 40, reading))
        manifest["files"].append({"name": path.name, "format": "json_array", "rows": rows_of_it, "bytes": size, "columns": [], "reading": reading})
    (pull / "Opportunity" / "manifest.json").write_bytes(orjson.dumps(manifest))
    load(con, pull, now=NOON)
    found = {row["opportunity_id"]: row["next_step"] for row in rows(con, "select opportunity_id, next_step from core.opportunity")}
    assert found == {opp_id(n): "third" if n % 2 else "second" for n in range(1, 40)}


def test_the_same_pull_twice_changes_nothing(con: Any, tmp_path: Path) -> None:
    told = [history(1, 1, NOON - DAY, "Prospecting")]
    pull = sales(tmp_path, 1, [opportunity(i) for i in range(1, 6)], full=True, OpportunityHistory=told)
    first = load(con, pull, now=NOON)
    found = con.execute("select schema_name || '.' || table_name from duckdb_tables() where schema_name in ('core', 'raw')").fetchall()
    tables = {row[0] for row in found} - {"core.source", "core.field"}
    before = {table: sorted(map(str, con.execute(f"from {table}").fetchall())) for table in tables}
    second = load(con, pull, now=NOON + HOUR)
    assert counts(first, "Opportunity") == (5, 0, 0, 0, 0)
    assert counts(second, "Opportunity") == (0, 0, 5, 0, 0)
    assert {table: sorted(map(str, con.execute(f"from {table}").fetchall())) for table in before} == before
    recorded = one(con, "select fetched, unchanged, inserted from ops.sync_object where object = 'Opportunity'")
    assert recorded == {"fetched": 5, "unchanged": 5, "inserted": 0}  # one pull, one row, as it was loaded last


def test_our_own_writes_come_back_as_echoes(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON)
    before = deals_of(con)
    written = opportunity(
        1, NOON + HOUR, CreatedDate=opportunity(1)["CreatedDate"], Plumbline_Status__c="at_risk", Plumbline_Score__c=55.0,
        Weighted__c=999.0,
        Plumbline_Issues__c="close_date_past;no_contact", Plumbline_Top_Issue__c="The close date is past",
        Plumbline_Flagged_Since__c="2026-11-18",
    )  # fmt: skip
    result = load(con, sales(tmp_path, 2, [written]), now=NOON + DAY)
    assert counts(result, "Opportunity") == (0, 0, 0, 1, 0)
    after = deals_of(con)[opp_id(1)]
    moved = {name for name, value in after.items() if value != before[opp_id(1)][name]}
    assert moved == {"crm_modified_at", "custom"}  # the formula's value is in custom, and no change of the deal
    assert after["synced_at"] == NOON
    flag = one(con, "from core.crm_flag")
    assert flag == {
        "opportunity_key": f"sales:{opp_id(1)}", "status": "at_risk", "score": 55, "top_issue": "The close date is past",
        "issues": "close_date_past;no_contact", "flagged_since": date(2026, 11, 18), "snooze_until": None,
    }  # fmt: skip
    empty = dict.fromkeys(("Plumbline_Issues__c", "Plumbline_Top_Issue__c", "Plumbline_Flagged_Since__c"))
    cleared = opportunity(1, NOON + 2 * HOUR, CreatedDate=opportunity(1)["CreatedDate"], **empty)
    assert counts(load(con, sales(tmp_path, 3, [cleared]), now=NOON + DAY), "Opportunity") == (0, 0, 0, 1, 0)
    assert rows(con, "from core.crm_flag") == []


def test_changed_values_change_the_row_and_open_a_version(con: Any, tmp_path: Path) -> None:
    made = stamp(NOON - 30 * DAY)
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON)
    moved = opportunity(1, NOON + HOUR, Amount=5000.0, CreatedDate=made, NextStep="Send the quote")
    result = load(con, sales(tmp_path, 2, [moved]), now=NOON + DAY)
    assert counts(result, "Opportunity") == (0, 1, 0, 0, 0)
    deal = deals_of(con)[opp_id(1)]
    assert (deal["amount"], deal["synced_at"], deal["next_step_changed_at"]) == (5000, NOON + DAY, NOON + HOUR)
    of_deal = "select valid_from, valid_to, amount from core.opportunity_version where opportunity_key = $1 order by 1"
    versions = rows(con, of_deal, f"sales:{opp_id(1)}")
    assert versions == [
        {"valid_from": NOON - 30 * DAY, "valid_to": NOON + HOUR, "amount": 1000},
        {"valid_from": NOON + HOUR, "valid_to": None, "amount": 5000},
    ]


def test_a_record_nobody_touched_since_it_was_made_has_been_so_all_the_time(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, NOON - 9 * DAY, CreatedDate=stamp(NOON - 9 * DAY))], full=True), now=NOON)
    assert one(con, "select valid_from, origin from core.opportunity_version") == {"valid_from": NOON - 9 * DAY, "origin": "observed"}


def test_a_clock_set_back_leaves_no_empty_version(con: Any, tmp_path: Path) -> None:
    made = stamp(NOON - 30 * DAY)
    load(con, sales(tmp_path, 1, [opportunity(1, CreatedDate=made)], full=True), now=NOON)
    for run, amount in ((2, 2.0), (3, 3.0)):
        load(con, sales(tmp_path, run, [opportunity(1, NOON + run * HOUR, Amount=amount, CreatedDate=made)]), now=NOON - DAY)
    versions = rows(con, "select valid_from, valid_to, amount from core.opportunity_version")
    assert versions == [{"valid_from": NOON - 30 * DAY, "valid_to": None, "amount": 3}]


def test_deletions_and_returns(con: Any, tmp_path: Path) -> None:
    """In the recycle bin, out of it again, deleted for good as the delete log tells, missing from a complete listing, and back."""
    load(con, sales(tmp_path, 1, [opportunity(i) for i in range(1, 5)], full=True), now=NOON)
    binned = opportunity(1, NOON + HOUR, IsDeleted=True)
    result = load(con, sales(tmp_path, 2, [binned], deleted={opp_id(2): NOON + HOUR, opp_id(9): NOON}), now=NOON + DAY)
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 2)
    gone = {key: deal["deleted_at"] for key, deal in deals_of(con).items() if deal["is_deleted"]}
    assert gone == {opp_id(1): NOON + HOUR, opp_id(2): NOON + HOUR}
    # The log still names what was restored since; the overlap delivers the deleted one again.
    back = opportunity(2, NOON + 2 * HOUR)
    log = {opp_id(1): NOON + HOUR, opp_id(2): NOON + HOUR}
    result = load(con, sales(tmp_path, 3, [binned, back], deleted=log), now=NOON + 2 * DAY)
    assert counts(result, "Opportunity") == (0, 1, 1, 0, 0)
    assert {key for key, deal in deals_of(con).items() if deal["is_deleted"]} == {opp_id(1)}
    result = load(con, sales(tmp_path, 4, [opportunity(2, NOON + 2 * HOUR), opportunity(3)], full=True), now=NOON + 3 * DAY)
    assert counts(result, "Opportunity") == (0, 0, 2, 0, 1)
    deals = deals_of(con)
    assert {key: (deal["is_deleted"], deal["deleted_at"]) for key, deal in deals.items()} == {
        opp_id(1): (True, NOON + HOUR), opp_id(2): (False, None), opp_id(3): (False, None), opp_id(4): (True, NOON + 3 * DAY),
    }  # fmt: skip
    load(con, sales(tmp_path, 5, [opportunity(4)]), now=NOON + 4 * DAY)  # it could not be seen for a while
    assert not deals_of(con)[opp_id(4)]["is_deleted"]
    of_deal = "select is_deleted from core.opportunity_version where opportunity_key = $1 order by valid_from"
    shown = rows(con, of_deal, f"sales:{opp_id(4)}")
    assert [row["is_deleted"] for row in shown] == [False, True, False]


def test_the_known_file_tells_what_is_here(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1), opportunity(2, IsClosed=True), opportunity(3, IsDeleted=True)]
    load(con, sales(tmp_path, 1, deals, full=True), now=NOON)
    known(con, "sales", tmp_path / "known.ndjson")
    lines = [orjson.loads(line) for line in (tmp_path / "known.ndjson").read_bytes().splitlines()]
    assert [(line["id"], line["is_deleted"], line["is_closed"]) for line in lines] == [
        (opp_id(1), False, False), (opp_id(2), False, True), (opp_id(3), True, False),
    ]  # fmt: skip
    assert datetime.fromisoformat(lines[2]["deleted_at"]) == NOON
    known(con, "elsewhere", tmp_path / "none.ndjson")
    assert (tmp_path / "none.ndjson").read_bytes() == b""


def test_merged_accounts_take_their_deals_along(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, AccountId=OTHER_ACCOUNT)], full=True), now=NOON)
    loser = account(OTHER_ACCOUNT, "Südwind AG", IsDeleted=True, MasterRecordId=ACCOUNT, SystemModstamp=stamp(NOON + HOUR))
    result = load(con, sales(tmp_path, 2, [], Account=[loser]), now=NOON + DAY)  # the deal's own stamp need not have moved
    deal = deals_of(con)[opp_id(1)]
    assert (deal["account_id"], deal["account_name"]) == (ACCOUNT, "Nordwind GmbH")
    assert counts(result, "Opportunity") == (0, 1, 0, 0, 0)
    assert one(con, "select is_deleted, merged_into from core.account where account_id = $1", OTHER_ACCOUNT) == {
        "is_deleted": True, "merged_into": f"sales:{ACCOUNT}",
    }  # fmt: skip


def test_renamed_accounts_and_owners_who_left_show_on_their_deals(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2, OwnerId=BO)], full=True), now=NOON)
    assert deals_of(con)[opp_id(2)]["owner_active"] is False
    users = [user(ADA, "Ada Married", IsActive=False), user(BO, "Bo Gone", IsActive=False)]
    renamed = [account(ACCOUNT, "Nordwind SE", SystemModstamp=stamp(NOON + HOUR))]
    result = load(con, sales(tmp_path, 2, [], User=users, Account=renamed), now=NOON + DAY)
    deal = deals_of(con)[opp_id(1)]
    assert (deal["owner_name"], deal["owner_active"], deal["account_name"]) == ("Ada Married", False, "Nordwind SE")
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)  # the deal itself says what it said


def test_integration_users_are_no_sellers_and_their_tasks_are_ours(con: Any, tmp_path: Path) -> None:
    robot = "005000000000009"  # copied by hand, in 15 characters
    tasks = [
        task(1, 1, done=NOON - 5 * DAY), task(2, 1, done=NOON - DAY, CreatedById=robot + "AAB"), task(3, 1, due="2026-11-25"),
        task(4, 1, due="2026-11-22", CreatedById=robot + "AAB"), task(5, 1, done=NOON - 2 * DAY, IsDeleted=True),
    ]  # fmt: skip
    users = [user(ADA, "Ada Seller"), user(robot + "AAB", "Robot")]
    pull = sales(tmp_path, 1, [opportunity(1), opportunity(2, OwnerId=robot + "AAB")], full=True, Task=tasks, User=users)
    load(con, pull, now=NOON, integration_users=[robot])
    deals = deals_of(con)
    assert deals[opp_id(1)]["last_activity_at"] == NOON - 5 * DAY
    assert deals[opp_id(1)]["next_activity_at"].date() == date(2026, 11, 24)  # midnight in Berlin, 23:00 the day before in UTC
    assert deals[opp_id(2)]["owner_active"] is False
    assert one(con, "select count(*) as n from core.activity where is_ours")["n"] == 2


def task(number: int, deal: int, *, done: datetime | None = None, due: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"00T{number:012d}AAA", "WhatId": opp_id(deal), "Subject": "Call", "Status": "Completed" if done else "Not Started",
        "IsClosed": done is not None, "ActivityDate": due, "CompletedDateTime": stamp(done) if done else None,
        "CreatedDate": stamp(NOON - 40 * DAY), "OwnerId": ADA, "CreatedById": ADA, "IsDeleted": False, "SystemModstamp": stamp(NOON),
    } | fields  # fmt: skip


def event(number: int, deal: int, starts: datetime, hours: float = 1, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"00U{number:012d}AAA", "WhatId": opp_id(deal), "Subject": "Meeting", "ActivityDate": starts.date().isoformat(),
        "StartDateTime": stamp(starts), "EndDateTime": stamp(starts + timedelta(hours=hours)), "IsAllDayEvent": False,
        "OwnerId": ADA, "CreatedById": ADA, "IsDeleted": False, "SystemModstamp": stamp(NOON),
    } | fields  # fmt: skip


def test_a_meeting_becomes_the_last_activity_when_it_is_over_and_that_changes_no_deal(con: Any, tmp_path: Path) -> None:
    meeting = event(1, 1, NOON + 3 * HOUR)
    pull = sales(tmp_path, 1, [opportunity(1)], full=True, Event=[meeting], Task=[task(1, 1, done=NOON - 9 * DAY)])
    load(con, pull, now=NOON)
    deal = deals_of(con)[opp_id(1)]
    assert (deal["last_activity_at"], deal["next_activity_at"]) == (NOON - 9 * DAY, NOON + 3 * HOUR)
    evening = NOON + 6 * HOUR
    result = load(con, sales(tmp_path, 2, []), now=evening)
    deal = deals_of(con)[opp_id(1)]
    assert deal["last_activity_at"] == NOON + 4 * HOUR
    assert deal["next_activity_at"] == NOON + 3 * HOUR  # a meeting of today counts until the day is over
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)
    load(con, sales(tmp_path, 3, []), now=NOON + DAY)
    assert deals_of(con)[opp_id(1)]["next_activity_at"] is None
    assert one(con, "select is_done from core.activity where kind = 'event'")["is_done"] is True


def test_without_tasks_the_crms_own_date_serves_never_from_the_future(con: Any, tmp_path: Path) -> None:
    deals = [opportunity(1, LastActivityDate="2026-11-10"), opportunity(2, LastActivityDate="2026-11-25")]
    load(con, sales(tmp_path, 1, deals, full=True, Task=None, Event=None), now=NOON)
    found = deals_of(con)
    assert found[opp_id(1)]["activity_capability"] == "tasks_only"
    assert found[opp_id(1)]["last_activity_at"] == datetime(2026, 11, 9, 23, tzinfo=UTC)
    assert found[opp_id(2)]["last_activity_at"] == NOON
    result = load(con, sales(tmp_path, 2, [], Task=None, Event=None), now=NOON + 6 * DAY)
    assert deals_of(con)[opp_id(2)]["last_activity_at"] == datetime(2026, 11, 24, 23, tzinfo=UTC)
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)


def test_contacts_that_could_not_be_read_are_unknown_not_none(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True, OpportunityContactRole=None), now=NOON)
    assert deals_of(con)[opp_id(1)]["contact_count"] is None
    roles = [
        role(1, 1, "003A"), role(2, 1, "003A", Role="Economic Buyer", IsPrimary=True), role(3, 1, "003B"),
        role(4, 1, "003C", IsDeleted=True),
    ]  # fmt: skip
    result = load(con, sales(tmp_path, 2, [], OpportunityContactRole=roles), now=NOON + DAY)
    assert deals_of(con)[opp_id(1)]["contact_count"] == 2
    assert counts(result, "Opportunity") == (0, 1, 0, 0, 0)  # attached without moving the deal's stamp
    attached = rows(con, "select contact_id, role, is_primary from core.contact_role order by 1")
    assert attached == [
        {"contact_id": "003A", "role": "Economic Buyer", "is_primary": True},
        {"contact_id": "003B", "role": "Influencer", "is_primary": False},
    ]  # fmt: skip


def role(number: int, deal: int, contact: str, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"00K{number:012d}AAA", "OpportunityId": opp_id(deal), "ContactId": contact, "Role": "Influencer", "IsPrimary": False,
        "IsDeleted": False, "SystemModstamp": stamp(NOON),
    } | fields  # fmt: skip


def test_stage_history_tells_what_happened_and_when(con: Any, tmp_path: Path) -> None:
    day = [NOON - (30 - i) * DAY for i in range(31)]
    story = [
        history(1, 1, day[0], "Prospecting"), history(1, 2, day[2], "Qualification"), history(1, 3, day[3], "Qualification", "2027-01-15"),
        history(1, 4, day[5], "Negotiation/Review", "2027-01-15"), history(1, 5, day[7], "Needs Analysis", "2027-01-15"),
        history(1, 6, day[9], "Closed Lost", "2026-10-30"), history(1, 7, day[11], "Proposal/Price Quote", "2027-01-15"),
        history(1, 8, day[20], "Closed Won", "2026-11-10"),
    ]  # fmt: skip
    born_won = [history(2, 1, day[20], "Closed Won")]
    deals = [
        opportunity(1, StageName="Closed Won", IsClosed=True, IsWon=True, LastStageChangeDate=stamp(day[20])),
        opportunity(2, StageName="Closed Won", IsClosed=True, IsWon=True), opportunity(3),
    ]  # fmt: skip
    load(con, sales(tmp_path, 1, deals, full=True, OpportunityHistory=story + born_won), now=NOON)
    of_deal = 'select "at", from_stage, to_stage, kind from core.stage_event where opportunity_key = $1 order by 1'
    assert [tuple(move.values()) for move in rows(con, of_deal, f"sales:{opp_id(1)}")] == [
        (day[0], None, "prequalified", "enter"), (day[2], "prequalified", "qualified", "advance"),
        (day[5], "qualified", "negotiation", "skip"), (day[7], "negotiation", "discovery", "regress"),
        (day[9], "discovery", "closed_lost", "lost"), (day[11], "closed_lost", "proposal", "reopen"),
        (day[20], "proposal", "closed_won", "won"),
    ]  # fmt: skip
    found = deals_of(con)
    assert (found[opp_id(1)]["closed_at"], found[opp_id(1)]["stage_entered_at"]) == (day[20], day[20])
    assert (found[opp_id(2)]["closed_at"], found[opp_id(2)]["stage"]) == (day[20], "closed_won")
    assert one(con, "select kind from core.stage_event where opportunity_key = $1", f"sales:{opp_id(2)}") == {"kind": "won"}
    # A deal without history entered its stage at its creation, as far as anybody knows; its pushes are unknown, not none.
    assert found[opp_id(3)]["stage_entered_at"] == NOON - 30 * DAY
    assert found[opp_id(3)]["close_date_pushes"] is None


PUSHES: list[tuple[list[tuple[float, str]], int]] = [
    ([], 0),
    ([(1, "2026-12-20")], 1),  # ten days later
    ([(1, "2026-12-16")], 0),  # six days, the same month
    ([(1, "2026-12-30"), (5, "2027-01-02")], 2),  # three days, but another month
    ([(1, "2026-11-25")], 0),  # pulled in
    ([(1, "2026-12-30"), (1.1, "2026-12-10")], 0),  # there and back within a day
    ([(1, "2026-12-13"), (1.1, "2026-12-18")], 1),  # small steps of one day add up
    ([(1, "2026-12-13"), (2, "2026-12-16"), (3, "2026-12-19")], 0),  # small steps of several days do not
]


def test_a_deal_that_comes_back_to_a_stage_within_a_second_keeps_each_of_its_moves(con: Any, tmp_path: Path) -> None:
    born = NOON - DAY
    moves = [history(1, seq, born, stage) for seq, stage in enumerate(["Prospecting", "Qualification", "Prospecting"])]
    record = opportunity(1, StageName="Prospecting", CreatedDate=stamp(born))
    load(con, sales(tmp_path, 1, [record], full=True, OpportunityHistory=moves[:1]), now=NOON)
    load(con, sales(tmp_path, 2, [record], OpportunityHistory=moves), now=NOON + HOUR)
    told = rows(con, "select from_crm_stage, to_crm_stage from core.stage_event order by all nulls first")
    assert [tuple(row.values()) for row in told] == [(None, "Prospecting"), ("Prospecting", "Qualification"), ("Qualification", "Prospecting")]


def test_what_counts_as_a_push(con: Any, tmp_path: Path) -> None:
    start, deals, told = NOON - 20 * DAY - 6 * HOUR, [], []
    for number, (changes, _) in enumerate(PUSHES, 1):
        told.append(history(number, 1, start, "Qualification", "2026-12-10"))
        told += [history(number, n, start + days * DAY, "Qualification", to) for n, (days, to) in enumerate(changes, 2)]
        deals.append(opportunity(number, CloseDate=told[-1]["CloseDate"]))
    load(con, sales(tmp_path, 1, deals, full=True, OpportunityHistory=told), now=NOON)
    found = deals_of(con)
    assert [found[opp_id(n)]["close_date_pushes"] for n in range(1, len(PUSHES) + 1)] == [pushes for _, pushes in PUSHES]


def test_dates_moved_by_closing_or_while_closed_are_no_pushes(con: Any, tmp_path: Path) -> None:
    told = [
        history(1, 1, NOON - 20 * DAY, "Qualification", "2026-10-10"), history(1, 2, NOON - 10 * DAY, "Closed Lost", "2026-11-10"),
        history(1, 3, NOON - 9 * DAY, "Closed Lost", "2026-12-24"), history(1, 4, NOON - 8 * DAY, "Qualification", "2027-03-31"),
        history(1, 5, NOON - 7 * DAY, "Qualification", "2027-05-31"),
    ]  # fmt: skip
    load(con, sales(tmp_path, 1, [opportunity(1, CloseDate="2027-05-31")], full=True, OpportunityHistory=told), now=NOON)
    assert deals_of(con)[opp_id(1)]["close_date_pushes"] == 1


def test_a_move_that_history_does_not_explain_is_still_an_event(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True, OpportunityHistory=None), now=NOON)
    moved = opportunity(
        1, NOON + 5 * HOUR, StageName="Needs Analysis", CreatedDate=stamp(NOON - 30 * DAY), LastStageChangeDate=stamp(NOON + 4 * HOUR)
    )
    load(con, sales(tmp_path, 2, [moved], OpportunityHistory=None), now=NOON + DAY)
    events = rows(con, 'select "at", to_crm_stage, kind from core.stage_event order by 1')
    assert [tuple(e.values()) for e in events] == [
        (NOON - 30 * DAY, "Qualification", "enter"), (NOON + 4 * HOUR, "Needs Analysis", "advance"),
    ]  # fmt: skip
    assert deals_of(con)[opp_id(1)]["stage_entered_at"] == NOON + 4 * HOUR


CURRENCIES = [
    {"Id": f"01L{i}", "IsoCode": code, "ConversionRate": rate, "IsCorporate": code == "EUR", "SystemModstamp": stamp(NOON)}
    for i, (code, rate) in enumerate([("EUR", 1.0), ("USD", 1.25), ("GBP", 0.8)])
]  # fmt: skip


def dated(code: str, since: str, until: str, rate: float) -> dict[str, Any]:
    return {"Id": f"04w{code}{since}", "IsoCode": code, "StartDate": since, "NextStartDate": until, "ConversionRate": rate}


def test_amounts_are_converted_at_the_rate_of_the_close_date(con: Any, tmp_path: Path) -> None:
    deals = [
        opportunity(1, CurrencyIsoCode="USD", Amount=1000.0), opportunity(2, CurrencyIsoCode="USD", Amount=1000.0, CloseDate="2026-06-30"),
        opportunity(3, CurrencyIsoCode="CHF", Amount=1000.0), opportunity(4, CurrencyIsoCode="USD", Amount=None),
    ]  # fmt: skip
    rates = [dated("USD", "2026-01-01", "2026-07-01", 1.1), dated("USD", "2026-07-01", "9999-12-31", 1.2)]
    load(con, sales(tmp_path, 1, deals, full=True, CurrencyType=CURRENCIES, DatedConversionRate=rates), now=NOON)
    home = {key: deal["amount_home"] for key, deal in deals_of(con).items()}
    assert home == {opp_id(1): Decimal("833.33"), opp_id(2): Decimal("909.09"), opp_id(3): None, opp_id(4): None}
    # Business in pounds: the rate is the quotient of two.
    load(con, sales(tmp_path, 2, []), now=NOON, business={"currency": "GBP"})
    deals_now = deals_of(con)
    assert deals_now[opp_id(1)]["amount_home"] == Decimal("666.67")  # 1000 / 1.2 * 0.8
    assert one(con, "select home_currency from core.source")["home_currency"] == "GBP"
    assert rows(con, "select distinct currency from core.exchange_rate order by 1") == [{"currency": "EUR"}, {"currency": "USD"}]


def test_new_rates_restate_amounts_without_a_change_of_the_deal(con: Any, tmp_path: Path) -> None:
    in_dollars = opportunity(1, CurrencyIsoCode="USD", Amount=1000.0)
    load(con, sales(tmp_path, 1, [in_dollars], full=True, CurrencyType=CURRENCIES), now=NOON)
    assert deals_of(con)[opp_id(1)]["amount_home"] == 800
    moved = [{**c, "ConversionRate": 2.0 if c["IsoCode"] == "USD" else c["ConversionRate"]} for c in CURRENCIES]
    result = load(con, sales(tmp_path, 2, [], CurrencyType=moved), now=NOON + DAY)
    assert deals_of(con)[opp_id(1)]["amount_home"] == 500
    assert one(con, "select amount_home from core.opportunity_version")["amount_home"] == 500
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)


def test_bad_values_become_empty_and_are_counted_aloud(con: Any, tmp_path: Path) -> None:
    bad = [opportunity(1, Amount="a lot", CloseDate="soon"), opportunity(2, Amount="99999999999999999999"), opportunity(3)]
    result = load(con, sales(tmp_path, 1, bad, full=True), now=NOON)
    found = deals_of(con)
    assert (found[opp_id(1)]["amount"], found[opp_id(1)]["close_date"], found[opp_id(2)]["amount"]) == (None, None, None)
    notice = next(c.notice for c in result if c.object == "Opportunity")
    assert notice == "values that cannot be read and were left empty: 2 of Amount, 1 of CloseDate"
    assert one(con, "select notice from ops.sync_object where object = 'Opportunity'")["notice"] == notice


def test_a_new_field_comes_along_by_itself(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON)
    old_hash = deals_of(con)[opp_id(2)]["row_hash"]
    deals = [opportunity(1, NOON + HOUR, Tier__c="Gold", CreatedDate=stamp(NOON - 30 * DAY)), opportunity(2, Tier__c=None)]
    result = load(con, sales(tmp_path, 2, deals), now=NOON + DAY)
    assert counts(result, "Opportunity") == (0, 1, 1, 0, 0)
    assert orjson.loads(deals_of(con)[opp_id(1)]["custom"])["Tier__c"] == "Gold"
    assert deals_of(con)[opp_id(2)]["row_hash"] == old_hash
    field = one(con, "select first_seen_at, is_custom from core.field where name = 'Tier__c'")
    assert field == {"first_seen_at": NOON + DAY, "is_custom": True}


def test_a_field_that_becomes_hidden_is_not_counted_on_any_more(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, Plumbline_Issues__c="x"), opportunity(2, Plumbline_Issues__c=None)], full=True), now=NOON)
    custom = deals_of(con)[opp_id(1)]["custom"]
    hidden = [{k: v for k, v in opportunity(2).items() if k != "NextStep"}]
    load(con, sales(tmp_path, 2, hidden), now=NOON + DAY)
    told = {row["name"] for row in rows(con, "select name from core.field where object = 'Opportunity'")}
    assert "StageName" in told and not told & {"NextStep", "Plumbline_Issues__c"}
    assert deals_of(con)[opp_id(1)]["custom"] == custom
    load(con, sales(tmp_path, 3, [opportunity(2)]), now=NOON + 2 * DAY)
    assert one(con, "select first_seen_at from core.field where name = 'NextStep'") == {"first_seen_at": NOON + 2 * DAY}


def test_changed_settings_restate_what_is_there(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, Loss_Reason__c="Price")], full=True), now=NOON)
    assert deals_of(con)[opp_id(1)]["lost_reason"] is None
    result = load(con, sales(tmp_path, 2, []), now=NOON, fields={"lost_reason": "Loss_Reason__c"})
    assert deals_of(con)[opp_id(1)]["lost_reason"] == "Price"
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)


def test_watermarks_are_committed_with_the_rows(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    marks = ops.watermarks(con, "sales")
    assert marks["Opportunity"] == NOON
    assert ops.watermarks(con, "elsewhere") == {}


def test_half_a_pull_is_refused_and_leaves_no_trace(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    before = deals_of(con)
    unfinished = SalesforcePull(tmp_path, 2, full=True)
    unfinished.add("Opportunity", [opportunity(2)])
    with pytest.raises(LandingError, match=r"no pull\.json"):
        load(con, unfinished.landing.directory, now=NOON)
    short = sales(tmp_path, 3, [opportunity(2), opportunity(3)], full=True)
    (short / "Opportunity" / "part-00000.json").write_bytes(orjson.dumps([opportunity(2)]))
    with pytest.raises(LandingError, match="has 1 rows, its manifest says 2"):
        load(con, short, now=NOON)
    torn = sales(tmp_path, 4, [opportunity(2), opportunity(3)], full=True)
    (torn / "Opportunity" / "part-00000.json").write_bytes(orjson.dumps([opportunity(2), opportunity(3)])[:-40])
    with pytest.raises(LandingError, match="cannot be read"):
        load(con, torn, now=NOON)
    assert deals_of(con) == before


def test_stage_definitions_are_shared_by_record_types(con: Any, tmp_path: Path) -> None:
    names = enumerate(["New", "Renewal", "Unused"])
    types = [{"Id": f"01200000000000{i}AAA", "Name": name, "SystemModstamp": stamp(NOON)} for i, name in names]
    deals = [opportunity(1, RecordTypeId="012000000000000AAA"), opportunity(2, RecordTypeId="012000000000001AAA")]
    load(con, sales(tmp_path, 1, deals, full=True, RecordType=types, OpportunityStage=stage_rows()), now=NOON)
    assert rows(con, "select pipeline, count(*) as n from core.stage_map group by 1 order by 1") == [
        {"pipeline": "New", "n": 7}, {"pipeline": "Renewal", "n": 7},
    ]  # fmt: skip
