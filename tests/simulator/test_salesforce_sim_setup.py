"""What admins do in Setup, and what of it an API user sees: fields, tracking, processes, rates, rights."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from salesforce_sim_help import NOW, World, plain, world

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import SalesforceOrg


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world() as w:
        yield w


@pytest.fixture
def w(served: World) -> World:
    served.reset()
    return served


def field(w: World, name: str, sobject: str = "Opportunity") -> dict[str, Any] | None:
    return next((f for f in getattr(w.sf, sobject).describe()["fields"] if f["name"] == name), None)


def ask(w: World, soql: str) -> tuple[int, Any]:
    answer = w.raw.get(f"{w.data}/query/", params={"q": soql})
    return answer.status_code, answer.json()


def test_a_reset_org_is_as_new(w: World) -> None:
    def look() -> tuple[Any, ...]:
        counts = [w.org.rows(f'SELECT count(*) FROM "{o.name}"')[0][0] for o in w.org.tables()]
        return counts, w.sf.Opportunity.describe(), w.column("SELECT Name FROM User ORDER BY Id"), w.org.calls_today

    before, first = look(), w.deal()
    w.org.add_field("Opportunity", "Tier__c", "string")
    w.org.remove_field("Opportunity", "Win_Reason__c")
    w.org.hide_field("Opportunity", "NextStep")
    w.org.set_read_only()
    w.org.hide_records("Opportunity", [first])
    w.faults.arm("status", status=503, times=None)
    w.org.hold_jobs, w.org.daily_limit, w.org.bulk_page = True, 5, 1
    w.org.late(3600)
    old = w.raw.headers["Authorization"]
    w.reset()
    assert look() == before and w.deal() == first and w.org.in_flight() == set()
    assert not w.org.jobs.all() and w.org.bulk_page is None and w.org.daily_limit == 115_000
    w.raw.headers["Authorization"] = old
    assert ask(w, "SELECT Id FROM User")[0] == 401, "sessions have ended"
    w.start()
    w.clock.set(NOW + timedelta(days=3))
    w.org.reset()
    w.start()
    assert w.column("SELECT CreatedDate FROM Organization") == ["2026-11-26T09:00:00.000+0000"]


def test_a_removed_field_is_gone_and_no_stamp_moves(w: World) -> None:
    deal = w.deal(Win_Reason__c="Price", Loss_Reason__c="Price")
    stamps = w.row(deal, "SystemModstamp", "LastModifiedDate")
    w.clock.advance(timedelta(hours=1))
    w.org.remove_field("Opportunity", "Win_Reason__c")
    w.org.remove_field("Opportunity", "Loss_Reason__c")
    assert field(w, "Win_Reason__c") is None and ask(w, "SELECT Win_Reason__c FROM Opportunity")[1][0]["errorCode"] == "INVALID_FIELD"
    assert w.row(deal, "SystemModstamp", "LastModifiedDate") == stamps
    assert "Loss_Reason__c" not in w.org.tracked_fields
    w.org.update("Opportunity", deal, {"StageName": "Qualification"})  # tracking goes on without it
    w.org.add_field("Opportunity", "Win_Reason__c", "double")
    assert field(w, "Win_Reason__c")["type"] == "double" and w.sf.Opportunity.get(deal)["Win_Reason__c"] is None
    with pytest.raises(ValueError, match="no custom field"):
        w.org.remove_field("Opportunity", "Amount")
    w.org.add_field("Opportunity", "Base__c", "double")
    w.org.add_field("Opportunity", "Twice__c", "double", formula="Base__c * 2")
    with pytest.raises(ValueError, match=r"referenced elsewhere: Opportunity.Twice__c"):
        w.org.remove_field("Opportunity", "Base__c")


@pytest.mark.parametrize(
    ("old", "value", "new", "keys", "now"),
    [
        ("string", "17.5", "double", {}, 17.5),
        ("string", "many", "double", {}, None),
        ("double", 17.5, "string", {}, "17.5"),
        ("double", 1700, "string", {}, "1700"),
        ("string", "2026-03-01", "date", {}, "2026-03-01"),
        ("picklist", "Gold", "string", {}, "Gold"),
        ("string", "Gold medal", "string", {"length": 4}, "Gold"),
        ("currency", 99, "percent", {"precision": 5, "scale": 1}, 99.0),
        ("date", "2026-03-01", "datetime", {}, "2026-03-01T00:00:00.000+0000"),
        ("string", "true", "boolean", {}, True),
    ],
)
def test_a_field_changes_its_type(w: World, old: str, value: Any, new: str, keys: dict[str, Any], now: Any) -> None:
    w.org.add_field("Opportunity", "Tier__c", old, "Tier")
    deal, empty = w.deal(Tier__c=value), w.deal()
    w.clock.advance(timedelta(hours=1))
    w.org.change_type("Opportunity", "Tier__c", new, **keys)
    assert (field(w, "Tier__c")["type"], field(w, "Tier__c")["label"]) == (new, "Tier")
    assert w.column(f"SELECT Tier__c FROM Opportunity WHERE Id IN ('{deal}', '{empty}') ORDER BY Id") == [now, False if new == "boolean" else None]
    assert w.row(deal, "SystemModstamp") == (NOW.replace(tzinfo=None),)
    csv = w.raw.get(f"{w.data}/jobs/query/{w.bulk('SELECT Tier__c FROM Opportunity')['id']}/results").text
    assert csv.startswith('"Tier__c"\n')


def test_people_fill_fields_that_the_api_user_does_not_see_yet(w: World) -> None:
    w.org.add_field("Opportunity", "Tier__c", "picklist", picklist=["Gold"], hidden=True)
    deal = w.deal(Tier__c="Gold")
    stamp = w.row(deal, "SystemModstamp")
    assert field(w, "Tier__c") is None
    refused = w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"Tier__c": "Gold"})
    assert refused.json()[0]["errorCode"] == "INVALID_FIELD"
    w.org.hide_field("Opportunity", "Tier__c", hidden=False)
    assert w.sf.Opportunity.get(deal)["Tier__c"] == "Gold" and w.row(deal, "SystemModstamp") == stamp


def test_formulas_read_what_the_api_user_may_not(w: World) -> None:
    w.org.hide_field("Opportunity", "Amount")
    w.org.set_formula("Opportunity", "Weighted_Amount__c", "Amount * 2")
    assert w.sf.Opportunity.get(w.deal(Amount=5))["Weighted_Amount__c"] == 10.0


def test_what_is_tracked_can_be_asked_for(w: World) -> None:
    soql = "SELECT QualifiedApiName, IsFieldHistoryTracked FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = 'Opportunity'"
    told = {r["QualifiedApiName"]: r["IsFieldHistoryTracked"] for r in w.records(soql)}
    assert {n for n, tracked in told.items() if tracked} == set(w.org.tracked_fields) and told["OwnerId"] and not told["Description"]
    assert set(told) == {f["name"] for f in w.sf.Opportunity.describe()["fields"]}
    deal = w.deal()
    w.org.set_field_history_tracking(["NextStep"])
    w.org.update("Opportunity", deal, {"NextStep": "x", "StageName": "Qualification"})
    history = f"SELECT Field FROM OpportunityFieldHistory WHERE OpportunityId = '{deal}' ORDER BY Id"
    assert w.column(history) == ["created", "NextStep"]
    w.org.set_field_history_tracking([])
    assert not any(r["IsFieldHistoryTracked"] for r in w.records(soql))
    w.org.update("Opportunity", deal, {"NextStep": "y"})
    assert w.column(history) == ["created", "NextStep"] and w.column(history.replace(deal, w.deal())) == []
    with pytest.raises(ValueError, match="can be tracked, not Nope, Days_Open__c"):
        w.org.set_field_history_tracking(["NextStep", "Nope", "Days_Open__c"])


def test_definitions_are_queried_as_the_platform_allows(w: World) -> None:
    status, said = ask(w, "SELECT QualifiedApiName FROM FieldDefinition")
    assert status == 400 and said[0] == {
        "errorCode": "MALFORMED_QUERY", "message": "FieldDefinition: a filter on a reified column is required [EntityDefinitionId,DurableId]",
    }  # fmt: skip
    assert ask(w, "SELECT Id FROM FieldDefinition WHERE DurableId = 'x' OR EntityDefinitionId = 'Opportunity'")[0] == 400
    one = w.sf.query("SELECT DataType, EntityDefinition.Label FROM FieldDefinition WHERE DurableId = 'Opportunity.Amount'")["records"]
    assert plain(one) == [{"DataType": "Currency(16, 2)", "EntityDefinition": {"Label": "Opportunity"}}]
    assert one[0]["attributes"]["url"].endswith("/FieldDefinition/Opportunity.Amount")
    assert w.column("SELECT KeyPrefix FROM EntityDefinition WHERE QualifiedApiName = 'Account'") == ["001"]
    refused = w.raw.post(f"{w.data}/jobs/query", json={"operation": "query", "query": "SELECT Id FROM EntityDefinition"})
    assert "is not supported by the Bulk API" in refused.json()[0]["message"]


def test_record_types_and_their_sales_processes(w: World) -> None:
    process = w.org.add_sales_process("Renewals", is_active=False)
    renewal = w.org.add_record_type("Renewal", sales_process=process)
    soql = "SELECT Name, DeveloperName, BusinessProcess.Name FROM RecordType WHERE SobjectType = 'Opportunity' ORDER BY Id"
    assert [list(r.values()) for r in w.records(soql)] == [
        ["New Business", "New_Business", {"Name": "Standard Sales Process"}], ["Renewal", "Renewal", {"Name": "Renewals"}],
    ]  # fmt: skip
    fields = "SELECT Name, IsActive, TableEnumOrId FROM BusinessProcess ORDER BY Id"
    assert [list(r.values()) for r in w.records(fields)] == [
        ["Standard Sales Process", True, "Opportunity"], ["Renewals", False, "Opportunity"],
    ]  # fmt: skip
    deal = w.deal(RecordTypeId=renewal)
    stamp = w.row(deal, "SystemModstamp")
    w.clock.advance(timedelta(hours=1))
    w.org.rename_record_type(renewal, "Contract Renewal")
    assert w.column(f"SELECT RecordType.Name FROM Opportunity WHERE Id = '{deal}'") == [{"Name": "Contract Renewal"}]
    assert w.column(f"SELECT SystemModstamp FROM RecordType WHERE Id = '{renewal}'") == ["2026-11-23T10:00:00.000+0000"]
    assert w.row(deal, "SystemModstamp") == stamp
    assert "Contract Renewal" in [r["name"] for r in w.sf.Opportunity.describe()["recordTypeInfos"]]


def test_a_record_type_offers_the_stages_of_its_process(w: World) -> None:
    short = w.org.add_sales_process("Short", stages=["Prospecting", "Closed Won", "Closed Lost"])
    renewal = w.org.add_record_type("Renewal", sales_process=short)

    def offered(record_type: str, field: str = "StageName") -> Any:
        return w.raw.get(f"{w.data}/ui-api/object-info/Opportunity/picklist-values/{record_type}/{field}").json()

    told = offered(renewal)
    assert [v["value"] for v in told["values"]] == ["Prospecting", "Closed Won", "Closed Lost"] and told["controllerValues"] == {}
    assert told["values"][1]["attributes"] == {
        "closed": True, "defaultProbability": 100.0, "forecastCategoryName": "Closed", "picklistAtrributesValueType": "OpportunityStage",
        "won": True,
    }  # fmt: skip
    assert len(offered("012000000000000AAA")["values"]) == 10
    w.org.change_stage("Closed Won", is_active=False)
    w.org.set_process_stages(short, ["Prospecting", "Qualification", "Closed Won"])
    assert [v["value"] for v in offered(renewal)["values"]] == ["Prospecting", "Qualification"]
    assert [v["label"] for v in offered(renewal, "Product_Line__c")["values"]] == ["Platform", "Analytics", "Services"]
    assert offered(renewal, "Amount")[0]["errorCode"] == offered("0125g00000zzzzz")[0]["errorCode"] == "NOT_FOUND"


def test_a_changed_stage_leaves_its_deals_what_they_were_given(w: World) -> None:
    deal = w.deal(StageName="Qualification", Amount=100)
    w.clock.advance(timedelta(hours=1))
    w.org.change_stage("Qualification", probability=35, forecast_category="BestCase", is_active=False)
    stage = "SELECT DefaultProbability, ForecastCategoryName, IsActive, SystemModstamp FROM OpportunityStage WHERE ApiName = 'Qualification'"
    assert [list(r.values()) for r in w.records(stage)] == [[35.0, "Best Case", False, "2026-11-23T10:00:00.000+0000"]]
    assert w.row(deal, "Probability", "ForecastCategory") == (10, "Pipeline")
    w.org.change_stage("Qualification", is_closed=True)
    assert w.row(deal, "IsClosed", "SystemModstamp") == (True, NOW.replace(tzinfo=None))
    assert w.row(w.deal(StageName="Qualification"), "Probability", "ForecastCategory") == (35, "BestCase")


def test_rates_change_and_no_deal_moves(w: World) -> None:
    deal = w.deal(Amount=100, CurrencyIsoCode="USD")
    w.clock.advance(timedelta(hours=1))
    w.org.set_rate("USD", "1.25")
    w.org.set_rate("GBP", "0.8")
    rates = "SELECT IsoCode, ConversionRate, IsCorporate FROM CurrencyType ORDER BY IsoCode"
    assert [list(r.values()) for r in w.records(rates)] == [["EUR", 1.0, True], ["GBP", 0.8, False], ["USD", 1.25, False]]
    assert w.column("SELECT SUM(Amount) FROM Opportunity") == [80.0] and w.row(deal, "SystemModstamp") == (NOW.replace(tzinfo=None),)
    for day, rate in ((date(2026, 1, 1), "1.1"), (date(2026, 7, 1), "1.2"), (date(2026, 4, 1), "1.15"), (date(2026, 7, 1), "1.21")):
        w.org.set_dated_rate("USD", day, Decimal(rate))
    dated = "SELECT StartDate, NextStartDate, ConversionRate FROM DatedConversionRate ORDER BY StartDate"
    assert [list(r.values()) for r in w.records(dated)] == [
        ["2026-01-01", "2026-04-01", 1.1], ["2026-04-01", "2026-07-01", 1.15], ["2026-07-01", "9999-12-31", 1.21],
    ]  # fmt: skip


# --- rights of the API user -------------------------------------------------------------------------------------------


def test_a_read_only_user_reads_and_is_refused_everything_else(w: World) -> None:
    deal, w.org.in_progress_polls = w.deal(), 0
    w.org.set_read_only()
    described = w.sf.Opportunity.describe()
    assert not any(described[flag] for flag in ("createable", "updateable", "deletable", "undeletable"))
    assert not any(f["updateable"] or f["createable"] for f in described["fields"]) and described["queryable"]
    assert not next(o for o in w.sf.describe()["sobjects"] if o["name"] == "Opportunity")["updateable"]
    one = w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"NextStep": "x"})
    refusal = {"errorCode": "INSUFFICIENT_ACCESS_OR_READONLY", "message": "insufficient access rights on object id", "fields": []}
    assert (one.status_code, one.json()) == (403, [refusal])
    assert w.raw.delete(f"{w.data}/sobjects/Opportunity/{deal}").json() == [refusal]
    made = w.raw.post(f"{w.data}/sobjects/Opportunity", json={"Name": "N", "StageName": "Prospecting", "CloseDate": "2026-12-31"})
    assert (made.status_code, made.json()[0]["errorCode"]) == (400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY")
    records = [{"attributes": {"type": "Opportunity"}, "id": deal, "Plumbline_Score__c": 5}]
    many = w.sf.restful("composite/sobjects", method="PATCH", json={"records": records})
    assert [e["statusCode"] for e in many[0]["errors"]] == ["INSUFFICIENT_ACCESS_OR_READONLY"]
    job = w.sf.bulk2.Opportunity.update(records=[{"Id": deal, "NextStep": "x"}], wait=0.01)[0]
    assert job["numberRecordsFailed"] == 1
    w.org.update("Opportunity", deal, {"NextStep": "people go on"})
    permissions = w.records("SELECT Parent.Profile.Name, PermissionsEdit FROM ObjectPermissions WHERE SobjectType = 'Opportunity'")
    assert {p["Parent"]["Profile"]["Name"][:6]: p["PermissionsEdit"] for p in permissions} == {"System": True, "Standa": False, "Minimu": False}
    w.org.set_read_only(False)
    assert w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"NextStep": "x"}).status_code == 204


def test_a_locked_field_is_read_and_not_written(w: World) -> None:
    deal = w.deal()
    w.org.lock_field("Opportunity", "Plumbline_Score__c")
    assert field(w, "Plumbline_Score__c")["updateable"] is False and field(w, "Plumbline_Status__c")["updateable"] is True
    refused = w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"Plumbline_Score__c": 5})
    assert refused.json()[0]["errorCode"] == "INVALID_FIELD_FOR_INSERT_UPDATE"
    w.org.update("Opportunity", deal, {"Plumbline_Score__c": 5})
    assert w.sf.Opportunity.get(deal)["Plumbline_Score__c"] == 5.0


def test_who_may_see_all_deals_can_be_asked_for(w: World) -> None:
    mine = f"(SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = '{w.org.integration_user_id}')"
    sets = f"SELECT PermissionsViewAllData, Profile.Name FROM PermissionSet WHERE Id IN {mine}"
    assert w.records(sets) == [{"PermissionsViewAllData": False, "Profile": {"Name": "Minimum Access - API Only Integrations"}}]
    deals = f"SELECT PermissionsRead, PermissionsViewAllRecords FROM ObjectPermissions WHERE SobjectType = 'Opportunity' AND ParentId IN {mine}"
    assert w.records(deals) == [{"PermissionsRead": True, "PermissionsViewAllRecords": True}]
    w.org.set_view_all(False)
    assert w.records(deals) == [{"PermissionsRead": True, "PermissionsViewAllRecords": False}]
    w.org.hide_object("Opportunity")
    assert w.records(deals) == []
    assert w.column("SELECT DefaultOpportunityAccess FROM Organization") == ["None"]


def test_records_that_left_the_users_view_are_nowhere(w: World) -> None:
    kept, lost = w.deal(), w.deal()
    contact = w.org.create("Contact", {"LastName": "Ott"})
    for deal in (kept, lost):
        w.org.create("Task", {"WhatId": deal, "Subject": "Call"})
        w.org.create("OpportunityContactRole", {"OpportunityId": deal, "ContactId": contact})
    free = w.org.create("Task", {"Subject": "Of nobody"})
    w.clock.advance(timedelta(minutes=5))
    w.org.hide_records("Opportunity", [lost[:15]])
    for all_rows in (False, True):
        assert w.column("SELECT Id FROM Opportunity", include_deleted=all_rows) == [kept]
        assert set(w.column("SELECT OpportunityId FROM OpportunityContactRole", include_deleted=all_rows)) == {kept}
        assert set(w.column("SELECT OpportunityId FROM OpportunityHistory", include_deleted=all_rows)) == {kept}
        assert w.column("SELECT WhatId FROM Task ORDER BY Id", include_deleted=all_rows) == [kept, None]
    job = w.bulk("SELECT Id FROM Opportunity", "queryAll")
    assert job["numberRecordsProcessed"] == 1
    span = (NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    assert w.sf.Opportunity.updated(*span)["ids"] == [kept] and len(w.sf.Task.updated(*span)["ids"]) == 2
    assert w.raw.get(f"{w.data}/sobjects/Opportunity/{lost}").status_code == 404
    refused = w.raw.patch(f"{w.data}/sobjects/Opportunity/{lost}", json={"NextStep": "x"})
    assert (refused.status_code, refused.json()[0]["errorCode"]) == (403, "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY")
    w.org.update("Opportunity", lost, {"NextStep": "people see it"})
    for deal in (kept, lost):
        w.org.delete("Opportunity", deal)
    assert [r["id"] for r in w.deleted()["deletedRecords"]] == [kept] and len(w.deleted("Task")["deletedRecords"]) == 1
    w.org.undelete("Opportunity", lost)
    stamp = w.row(lost, "SystemModstamp")
    w.org.hide_records("Opportunity", [lost], hidden=False)
    assert w.column("SELECT Id FROM Opportunity") == [lost] and w.row(lost, "SystemModstamp") == stamp
    assert free in w.column("SELECT Id FROM Task")


def test_set_up_lives_on_in_the_orgs_file(tmp_path: Path) -> None:
    path, clock = tmp_path / "org.duckdb", SimClock(NOW)
    org = SalesforceOrg(path, clock, Faults())
    deal = org.create("Opportunity", {"Name": "D", "StageName": "Prospecting", "CloseDate": "2026-12-31"})
    org.remove_field("Opportunity", "Win_Reason__c")
    org.change_type("Opportunity", "MainCompetitors__c", "textarea", length=500)
    org.add_validation_rule("Opportunity", "no", "ISPICKVAL(StageName, 'Closed Lost')", "Never lose.")
    org.hide_object("Event")
    org.hide_field("Opportunity", "Amount")
    org.hide_records("Opportunity", [deal])
    org.set_read_only()
    org.lock_field("Opportunity", "NextStep")
    org.set_field_history_tracking(["NextStep"])
    org.purge_delete_log(NOW)
    org.close()
    with world(SalesforceOrg(path, clock, Faults())) as w:
        names = {f["name"] for f in w.sf.Opportunity.describe()["fields"]}
        assert "Win_Reason__c" not in names and "Amount" not in names
        assert field(w, "MainCompetitors__c")["type"] == "textarea"
        assert w.raw.get(f"{w.data}/sobjects/Event/describe").status_code == 404
        assert w.column("SELECT Id FROM Opportunity") == [] and not w.sf.Opportunity.describe()["updateable"]
        with pytest.raises(Exception, match="Never lose"):
            w.org.update("Opportunity", deal, {"StageName": "Closed Lost"})
        assert w.org.tracked_fields == ["NextStep"] and w.org.log_since() == NOW
        w.org.set_read_only(False)
        assert field(w, "NextStep")["updateable"] is False
        w.org.remove_validation_rule("no")
        w.org.update("Opportunity", deal, {"StageName": "Closed Lost"})
