"""Fields that come, go, hide and move by themselves; partial records; deletions told by logs and listings."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from warehouse_land import (
    ACCOUNT,
    NOON,
    OTHER_ACCOUNT,
    TYPES,
    SalesforcePull,
    counts,
    deal,
    deals_of,
    hs,
    inbound,
    one,
    opp_id,
    opportunity,
    rows,
    sales,
    stamp,
)

from connectors.landing import Field, LandedFile, Manifest
from warehouse import derive
from warehouse.connection import open_warehouse
from warehouse.load import known_fields, load

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MADE = stamp(NOON - 30 * DAY)


class Night(SalesforcePull):
    """An increment in which only what is given was said."""

    def __init__(self, root: Path, run: int) -> None:
        super().__init__(root, run)

    def fields(self, records: list[dict[str, Any]], *, full: bool = False, formulas: tuple[str, ...] = (), **types: str) -> Night:
        """Partial records, as refresh.py lands them. full: of all deals."""
        manifest = Manifest(self.source, "salesforce", "Opportunity.fields", "Id", "full" if full else "incremental", complete=full)
        manifest.fields = [Field(n, types.get(n, TYPES.get(n, "string")), calculated=n in formulas) for n in records[0]]
        return self._write(manifest, records)

    def gone(self, obj: str, ids: dict[str, datetime]) -> Night:
        manifest = Manifest(self.source, "salesforce", f"{obj}.deleted", "id", "incremental", watermark=NOON)
        return self._write(manifest, [{"id": key, "deletedDate": stamp(at)} for key, at in ids.items()])

    def listing(self, obj: str, ids: list[str], *, complete: bool = True) -> Night:
        manifest = Manifest(self.source, "salesforce", f"{obj}.ids", "Id", "full", complete=complete)
        manifest.fields = [Field("Id", "id")]
        return self._write(manifest, [{"Id": key} for key in ids])

    def _write(self, manifest: Manifest, records: list[dict[str, Any]]) -> Night:
        data = orjson.dumps(records)
        (self.landing.object_directory(manifest.object) / "part-00000.json").write_bytes(data)
        manifest.files = [LandedFile("part-00000.json", "json_array", len(records), len(data))]
        self._finish(manifest)
        return self


def payload(con: Any, number: int) -> dict[str, Any]:
    found = one(con, "select payload from raw.salesforce_opportunity where id = $1", opp_id(number))["payload"]
    fields: dict[str, Any] = orjson.loads(found)
    assert list(fields) == sorted(fields)
    return fields


def custom(con: Any, number: int) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(deals_of(con)[opp_id(number)]["custom"])
    return fields


def notice(result: list[Any], name: str = "Opportunity") -> str:
    return next(c.notice for c in result if c.object == name) or ""


# Partial records ----------------------------------------------------------------------------------------------------------------


def test_a_formula_that_moved_reaches_custom_and_changes_no_deal(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(n) for n in (1, 2, 3)], full=True), now=NOON)
    before = deals_of(con)
    told = [{"Id": opp_id(1), "Weighted__c": 555.0}, {"Id": opp_id(2), "Weighted__c": 200.0}, {"Id": opp_id(3), "Weighted__c": None}]
    seen: list[str] = []
    night = Night(tmp_path, 2).add("Opportunity", []).fields([*told, {"Id": opp_id(99), "Weighted__c": 1.0}], formulas=("Weighted__c",))
    result = load(con, night.done(), now=NOON + DAY, after_step=seen.append)
    assert (custom(con, 1)["Weighted__c"], custom(con, 2)["Weighted__c"], "Weighted__c" in custom(con, 3)) == ("555", "200", False)
    after = deals_of(con)
    assert {key: deal | {"custom": None} for key, deal in after.items()} == {key: deal | {"custom": None} for key, deal in before.items()}
    assert counts(result, "Opportunity") == (0, 0, 0, 0, 0)
    assert counts(result, "Opportunity.fields") == (0, 0, 1, 2, 0)  # of four records one is not here, one says the same
    assert "deals derived" not in seen  # nothing that a deal means has moved
    assert payload(con, 1)["Weighted__c"] == "555" and len(payload(con, 1)) == len(payload(con, 2))
    # A record that comes whole afterwards is the same record: what the refresh wrote is not a change, nor does it disturb the order.
    again = [opportunity(1, Weighted__c=555.0), opportunity(3, Weighted__c=None)]
    assert counts(load(con, sales(tmp_path, 3, again), now=NOON + 2 * DAY), "Opportunity") == (0, 0, 2, 0, 0)


def test_a_mapped_formula_is_evidence_and_its_move_a_change(con: Any, tmp_path: Path) -> None:
    mapped = {"need": "Weighted__c", "lost_reason": "Loss_Reason__c"}
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON, fields=mapped)
    night = Night(tmp_path, 2).fields(
        [{"Id": opp_id(n), "Weighted__c": 7.5 * n, "Loss_Reason__c": reason} for n, reason in ((1, "Price"), (2, None))],
        formulas=("Weighted__c", "Loss_Reason__c"),
    )
    result = load(con, night.add("Opportunity", []).done(), now=NOON + DAY, fields=mapped)
    deal = deals_of(con)[opp_id(1)]
    assert orjson.loads(deal["evidence"]) == {"lost_reason": "Price", "need": "7.5"}
    assert (deal["lost_reason"], deal["synced_at"], deal["crm_modified_at"]) == ("Price", NOON + DAY, NOON)
    assert counts(result, "Opportunity") == (0, 2, 0, 0, 0)


def test_fields_that_deals_are_derived_from_are_derived(con: Any, tmp_path: Path) -> None:
    """A merge moved a deal to another account and its stamp stayed; without tasks, the CRM's own day of the last activity counts."""
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True, Task=None, Event=None), now=NOON)
    night = Night(tmp_path, 2).fields([{"Id": opp_id(1), "AccountId": OTHER_ACCOUNT, "LastActivityDate": "2026-11-19"}])
    result = load(con, night.add("Opportunity", []).done(), now=NOON + DAY)
    deal = deals_of(con)[opp_id(1)]
    assert (deal["account_id"], deal["account_name"]) == (OTHER_ACCOUNT, "Südwind AG")
    assert deal["last_activity_at"] == datetime(2026, 11, 18, 23, tzinfo=NOON.tzinfo)
    assert counts(result, "Opportunity") == (0, 1, 0, 0, 0)


def test_what_deals_are_derived_from_is_never_light(con: Any, tmp_path: Path) -> None:
    names = re.findall(r'"(\w+)": "VARCHAR"', (derive.HERE / "salesforce" / "deal.sql").read_text())
    told = [{"name": name, "calculated": True} for name in (*names, "Rank__c", "Mapped__c", "plumbline_new__c")]
    assert len(names) > 20 and derive.light_fields(con, "sales", ["Mapped__c"], told) == ["Rank__c"]


# Fields that come ----------------------------------------------------------------------------------------------------------------


def test_a_new_field_is_partial_until_it_was_read_of_all_deals(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True), now=NOON)
    known = known_fields(con, "sales")["Opportunity"]
    assert (known["Amount"], known["Weighted__c"]) == ("currency", "calculated currency")
    load(con, sales(tmp_path, 2, [opportunity(1, NOON + HOUR, CreatedDate=MADE, Tier__c="Gold")]), now=NOON + DAY)
    assert "Tier__c" not in known_fields(con, "sales")["Opportunity"]  # deal 2 may have had one before we could see it
    night = Night(tmp_path, 3).fields([{"Id": opp_id(n), "Tier__c": "Gold"} for n in (1, 2)], full=True)
    result = load(con, night.add("Opportunity", [opportunity(1, NOON + HOUR, CreatedDate=MADE, Tier__c="Gold")]).done(), now=NOON + 2 * DAY)
    assert known_fields(con, "sales")["Opportunity"] == known | {"Tier__c": "string"}
    assert custom(con, 2)["Tier__c"] == "Gold"
    assert counts(result, "Opportunity") == (0, 1, 1, 0, 0)  # deal 2 says something new, deal 1 does not
    assert one(con, "select count(*) as n from core.field where object = 'Opportunity.fields'") == {"n": 0}


def test_a_refresh_of_open_deals_does_not_pass_for_a_back_fill(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    night = Night(tmp_path, 2).fields([{"Id": opp_id(1), "Tier__c": "Gold"}])
    load(con, night.add("Opportunity", [opportunity(1, Tier__c="Gold")]).done(), now=NOON + DAY)
    assert "Tier__c" not in known_fields(con, "sales")["Opportunity"]


def test_a_field_of_another_type_is_unknown_until_it_was_read_of_all_deals(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1, Rank__c="007")], full=True), now=NOON)
    retyped = SalesforcePull(tmp_path, 2)
    TYPES["Rank__c"] = "double"
    try:
        load(con, retyped.add("Opportunity", [opportunity(2, Rank__c=7.0)]).done(), now=NOON + DAY)
        assert "Rank__c" not in known_fields(con, "sales")["Opportunity"]
        night = Night(tmp_path, 3).fields([{"Id": opp_id(n), "Rank__c": 7.0} for n in (1, 2)], full=True)
        load(con, night.add("Opportunity", [opportunity(2, Rank__c=7.0)]).done(), now=NOON + 2 * DAY)
    finally:
        del TYPES["Rank__c"]
    assert known_fields(con, "sales")["Opportunity"]["Rank__c"] == "double"
    assert payload(con, 1)["Rank__c"] == payload(con, 2)["Rank__c"] == "7"


# Fields that go ------------------------------------------------------------------------------------------------------------------


def hidden(deal: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in deal.items() if name not in names}


@pytest.mark.parametrize("form", ["json_array", "csv"])
def test_a_hidden_field_keeps_its_last_values_and_is_said_aloud_once(con: Any, tmp_path: Path, form: str) -> None:
    first = [opportunity(n, NextStep=f"Call {n}", Seats__c=float(n), Weighted__c=9.0) for n in (1, 2, 3)]
    load(con, sales(tmp_path, 1, first, full=True), now=NOON)

    def held() -> dict[str, Any]:
        return {key: (deal["row_hash"], {**orjson.loads(deal["custom"]), "LastModifiedDate": None}, deal["next_step"])
                for key, deal in deals_of(con).items()}  # fmt: skip

    before = held()
    saved = [opportunity(1, NOON + HOUR, CreatedDate=MADE), opportunity(2, NOON + HOUR, CreatedDate=MADE, Amount=77.0)]
    night = [hidden(deal, "NextStep", "Seats__c", "Weighted__c") for deal in saved]
    result = load(con, sales(tmp_path, 2, night, form=form), now=NOON + DAY)
    assert counts(result, "Opportunity") == (0, 1, 0, 1, 0)  # a new amount, and an echo: what is hidden has not changed
    after = held()
    assert after[opp_id(1)] == before[opp_id(1)] and after[opp_id(3)] == before[opp_id(3)]
    assert after[opp_id(2)][1:] == before[opp_id(2)][1:]
    assert one(con, "select count(*) as n from core.opportunity_version where opportunity_key = $1", f"sales:{opp_id(1)}") == {"n": 1}
    assert notice(result) == (
        "NextStep, Seats__c, Weighted__c are no longer visible (removed, or hidden from the user): their last values are kept, "
        "rules that need them say unknown"
    )
    lost = rows(con, "select name, type, is_calculated, lost_at from core.field_lost order by name")
    assert lost[0] == {"name": "NextStep", "type": "string", "is_calculated": False, "lost_at": NOON + DAY}
    assert [row["name"] for row in lost] == ["NextStep", "Seats__c", "Weighted__c"] and lost[2]["is_calculated"]
    assert not {"NextStep", "Seats__c", "Weighted__c"} & known_fields(con, "sales")["Opportunity"].keys()
    again = load(con, sales(tmp_path, 3, [hidden(first[2], "NextStep", "Seats__c", "Weighted__c")], full=True), now=NOON + 2 * DAY)
    assert notice(again) == "" and deals_of(con)[opp_id(3)]["next_step"] == "Call 3"
    assert rows(con, "select name, type, is_calculated, lost_at from core.field_lost order by name") == lost


def test_a_field_that_is_visible_again_is_read_of_all_deals(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(n, NextStep="Call") for n in (1, 2)], full=True), now=NOON)
    load(con, sales(tmp_path, 2, [hidden(opportunity(1, NOON + HOUR, CreatedDate=MADE), "NextStep")]), now=NOON + DAY)
    assert one(con, "select name from core.field_lost")["name"] == "NextStep"
    night = Night(tmp_path, 3).fields([{"Id": opp_id(1), "NextStep": None}, {"Id": opp_id(2), "NextStep": "Wait"}], full=True)
    result = load(con, night.add("Opportunity", []).done(), now=NOON + 2 * DAY)
    assert [deals_of(con)[opp_id(n)]["next_step"] for n in (1, 2)] == [None, "Wait"]
    assert rows(con, "from core.field_lost") == [] and "NextStep" in known_fields(con, "sales")["Opportunity"]
    assert counts(result, "Opportunity") == (0, 2, 0, 0, 0)
    assert one(con, "select next_step from core.opportunity_version where valid_to is null and opportunity_key = $1", f"sales:{opp_id(2)}")


def test_a_field_that_goes_while_the_first_sync_reads_is_lost_from_the_start(con: Any, tmp_path: Path) -> None:
    """The first page has it; the journal of a killed pull or a later page does not, nor does the describe of the run that ends."""
    pages = [hidden(opportunity(1), "Tier__c"), opportunity(2, Tier__c="A")]
    result = load(con, sales(tmp_path, 1, pages, full=True), now=NOON)
    assert notice(result).startswith("Tier__c is no longer visible")
    assert rows(con, "select name, type from core.field_lost") == [{"name": "Tier__c", "type": None}]
    assert rows(con, "from core.field where object = 'Opportunity' and (type is null or name = 'Tier__c')") == []
    again = load(con, sales(tmp_path, 2, [hidden(opportunity(2, NOON + HOUR), "Tier__c")]), now=NOON + DAY)
    assert notice(again) == "" and custom(con, 2)["Tier__c"] == "A"
    night = Night(tmp_path, 3).fields([{"Id": opp_id(n), "Tier__c": "A"} for n in (1, 2)], full=True)
    load(con, night.add("Opportunity", []).done(), now=NOON + 2 * DAY)
    assert rows(con, "from core.field_lost") == [] and [custom(con, n)["Tier__c"] for n in (1, 2)] == ["A", "A"]


def test_a_hidden_field_of_an_account_keeps_its_values_too(con: Any, tmp_path: Path) -> None:
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True), now=NOON)
    renamed = {"Id": ACCOUNT, "Name": "Nordwind SE", "MasterRecordId": None, "IsDeleted": False, "SystemModstamp": stamp(NOON + HOUR)}
    result = load(con, sales(tmp_path, 2, [], Account=[renamed]), now=NOON + DAY)
    held = one(con, "select name, industry, employees from core.account where account_id = $1", ACCOUNT)
    assert held == {"name": "Nordwind SE", "industry": "Energy", "employees": 120}
    assert notice(result, "Account").startswith("Industry, NumberOfEmployees are no longer visible")


def test_a_property_that_a_portal_archives_keeps_its_values_too(con: Any, tmp_path: Path) -> None:
    at = NOON - 30 * DAY
    first = [deal(n, NOON, tier=f"T{n}", createdate=hs(at), hs_createdate=hs(at)) for n in (1, 2, 3)]
    load(con, inbound(tmp_path, 1, first, full=True), now=NOON)
    saved = [deal(n, NOON + HOUR, createdate=hs(at), hs_createdate=hs(at)) for n in (1, 2)]
    archived = [{**saved[1], "archived": True, "archivedAt": hs(NOON + HOUR)}]
    result = load(con, inbound(tmp_path, 2, saved[:1], archived=archived), now=NOON + DAY)
    assert notice(result, "deals").startswith("tier is no longer visible")
    assert counts(result, "deals") == (0, 0, 0, 1, 1)
    kept = {key: orjson.loads(row["custom"])["tier"] for key, row in deals_of(con).items()}
    assert kept == {"1": "T1", "2": "T2", "3": "T3"}


def test_fields_that_are_not_read_any_more_were_not_taken_from_us(tmp_path: Path) -> None:
    """A warehouse from before ages were left out of what is read."""
    path = tmp_path / "w.duckdb"
    with open_warehouse(path, threads=1) as warehouse:
        load(warehouse.con, sales(tmp_path, 1, [opportunity(1, AgeInDays=30, Idle__c=1)], full=True), now=NOON)
        warehouse.con.execute("drop table raw.opportunity_seen; delete from ops.schema_migration where version >= 2")
    with open_warehouse(path, threads=1) as warehouse:
        result = load(warehouse.con, sales(tmp_path, 2, [opportunity(1, NOON + HOUR)]), now=NOON + DAY)
        assert notice(result).startswith("Idle__c is no longer visible")
        assert "AgeInDays" not in custom(warehouse.con, 1)


# Deletions ----------------------------------------------------------------------------------------------------------------------


def role(number: int, deal: int, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    return {"Id": f"00K{number:012d}AAA", "OpportunityId": opp_id(deal), "ContactId": f"003{number}", "Role": None, "IsPrimary": False,
            "IsDeleted": False, "SystemModstamp": stamp(at)} | fields  # fmt: skip


def task(number: int, what: str | None, done: datetime, at: datetime = NOON, **fields: Any) -> dict[str, Any]:
    return {"Id": f"00T{number:012d}AAA", "WhatId": what, "Subject": "Call", "Status": "Completed", "IsClosed": True, "ActivityDate": None,
            "CompletedDateTime": stamp(done), "CreatedDate": MADE, "OwnerId": None, "CreatedById": None, "IsDeleted": False,
            "SystemModstamp": stamp(at)} | fields  # fmt: skip


def test_contacts_and_activities_that_were_purged_leave_their_deals(con: Any, tmp_path: Path) -> None:
    done = [task(1, opp_id(1), NOON - DAY), task(2, opp_id(1), NOON - 5 * DAY)]
    roles = [role(1, 1), role(2, 1)]
    load(con, sales(tmp_path, 1, [opportunity(1)], full=True, OpportunityContactRole=roles, Task=done), now=NOON)
    assert deals_of(con)[opp_id(1)]["contact_count"] == 2
    night = Night(tmp_path, 2).add("Opportunity", []).gone("OpportunityContactRole", {roles[0]["Id"]: NOON + HOUR})
    result = load(con, night.gone("Task", {done[0]["Id"]: NOON + HOUR, "00T000000000077AAA": NOON}).done(), now=NOON + DAY)
    deal = deals_of(con)[opp_id(1)]
    assert (deal["contact_count"], deal["last_activity_at"]) == (1, NOON - 5 * DAY)
    assert counts(result, "Task.deleted") == (0, 0, 0, 0, 1)


def test_what_was_restored_stays_whatever_the_log_says(con: Any, tmp_path: Path) -> None:
    """Deleted and restored within the second that stamps have, or later; and one that is really gone."""
    load(con, sales(tmp_path, 1, [opportunity(n) for n in (1, 2, 3)], full=True), now=NOON)
    at = NOON + HOUR
    night = Night(tmp_path, 2)
    night.add("Opportunity", [opportunity(1, at, CreatedDate=MADE), opportunity(2, at + HOUR, CreatedDate=MADE)])
    load(con, night.gone("Opportunity", {opp_id(n): at for n in (1, 2, 3)}).done(), now=NOON + DAY)
    assert [deals_of(con)[opp_id(n)]["is_deleted"] for n in (1, 2, 3)] == [False, False, True]
    # The log is read with an overlap. A deal that no increment shows any more, and whose stamp is the log's, went for good.
    load(con, Night(tmp_path, 3).add("Opportunity", []).gone("Opportunity", {opp_id(1): at}).done(), now=NOON + 2 * DAY)
    assert [deals_of(con)[opp_id(n)]["is_deleted"] for n in (1, 2, 3)] == [True, False, True]


def test_a_listing_of_what_is_there_marks_the_rest_as_gone(con: Any, tmp_path: Path) -> None:
    roles = [role(1, 1), role(2, 1)]
    load(con, sales(tmp_path, 1, [opportunity(n) for n in (1, 2, 3)], full=True, OpportunityContactRole=roles), now=NOON)
    short = Night(tmp_path, 2).add("Opportunity", []).listing("Opportunity", [opp_id(1)], complete=False)
    load(con, short.done(), now=NOON + DAY)
    assert not any(deal["is_deleted"] for deal in deals_of(con).values())
    night = Night(tmp_path, 3).add("Opportunity", [opportunity(4, NOON + HOUR)])  # made after the listing had begun
    night.listing("Opportunity", [opp_id(1), opp_id(2), opp_id(77)]).listing("OpportunityContactRole", [roles[1]["Id"]])
    result = load(con, night.done(), now=NOON + 2 * DAY)
    found = {key: (deal["is_deleted"], deal["deleted_at"]) for key, deal in deals_of(con).items()}
    assert found == {opp_id(n): (n == 3, NOON + 2 * DAY if n == 3 else None) for n in (1, 2, 3, 4)}
    assert deals_of(con)[opp_id(1)]["contact_count"] == 1
    assert counts(result, "Opportunity") == (1, 1, 0, 0, 1)


def test_a_task_that_moved_to_another_record_leaves_its_deal(con: Any, tmp_path: Path) -> None:
    done = [task(n, opp_id(1), NOON - n * DAY) for n in (1, 2, 3)]
    load(con, sales(tmp_path, 1, [opportunity(1), opportunity(2)], full=True, Task=done), now=NOON)
    moved = [
        task(1, ACCOUNT, NOON - DAY, NOON + HOUR), task(2, opp_id(2), NOON - 2 * DAY, NOON + HOUR),
        task(9, ACCOUNT, NOON - DAY, NOON + HOUR),
    ]  # fmt: skip
    load(con, sales(tmp_path, 2, [], Task=moved), now=NOON + DAY)
    deals = deals_of(con)
    assert [deals[opp_id(n)]["last_activity_at"] for n in (1, 2)] == [NOON - 3 * DAY, NOON - 2 * DAY]
    assert one(con, "select count(*) as n from raw.salesforce_task") == {"n": 3}  # the account's own task is none of ours
    assert rows(con, "select opportunity_key, count(*) as n from core.activity group by 1 order by 1") == [
        {"opportunity_key": f"sales:{opp_id(n)}", "n": 1} for n in (1, 2)
    ]
