"""What the platform does by itself when people write: stamps, history, derived fields, recycle bin, merges."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from salesforce_sim_help import NOW, World, world

from connectors.simulator.salesforce.errors import SalesforceError

STAMPS = ("LastModifiedDate", "SystemModstamp")


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        yield w


@pytest.fixture
def deal(w: World) -> str:
    """A fresh opportunity of yesterday."""
    w.clock.set(NOW - timedelta(days=1))
    account = w.org.create("Account", {"Name": "Acme"})
    made = w.org.create(
        "Opportunity", {"Name": "Deal", "AccountId": account, "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": 1000}
    )
    w.clock.set(NOW)
    return made


def at(hours: float = 0) -> datetime:
    return (NOW + timedelta(hours=hours)).replace(tzinfo=None)


def history(w: World, deal: str) -> list[dict[str, Any]]:
    return w.records(
        "SELECT StageName, Amount, CloseDate, Probability, ForecastCategory, PrevAmount, PrevCloseDate FROM OpportunityHistory "
        f"WHERE OpportunityId = '{deal}' ORDER BY CreatedDate, Id"
    )


def field_history(w: World, deal: str) -> set[tuple[Any, ...]]:
    rows = w.records(
        f"SELECT Field, DataType, OldValue, NewValue FROM OpportunityFieldHistory WHERE OpportunityId = '{deal}' ORDER BY CreatedDate, Id"
    )
    return {tuple(row.values()) for row in rows}


def test_a_new_deal_takes_its_stages_defaults_and_starts_its_history(w: World, deal: str) -> None:
    record = w.sf.Opportunity.get(deal)
    assert record["Probability"] == 10.0 and record["ForecastCategoryName"] == "Pipeline" and record["ExpectedRevenue"] == 100.0
    assert record["CurrencyIsoCode"] == "EUR" and record["OwnerId"] == w.org.admin_id and record["RecordTypeId"].startswith("012")
    assert record["LastStageChangeDate"] is None and record["PushCount"] == 0 and record["Fiscal"] == "2026 4"
    assert history(w, deal) == [
        {"StageName": "Prospecting", "Amount": 1000.0, "CloseDate": "2026-12-31", "Probability": 10.0, "ForecastCategory": "Pipeline",
         "PrevAmount": None, "PrevCloseDate": None},
    ]  # fmt: skip
    assert field_history(w, deal) == {("created", "Text", None, None)}


def test_a_stage_move_sets_what_hangs_on_it(w: World, deal: str) -> None:
    w.org.update("Opportunity", deal, {"StageName": "Closed Won", "Amount": 1500})
    record = w.sf.Opportunity.get(deal)
    assert (record["Probability"], record["ForecastCategory"], record["ForecastCategoryName"]) == (100.0, "Closed", "Closed")
    assert record["IsClosed"] and record["IsWon"] and record["LastStageChangeDate"] == "2026-11-23T09:00:00.000+0000"
    assert history(w, deal)[-1] == {
        "StageName": "Closed Won", "Amount": 1500.0, "CloseDate": "2026-12-31", "Probability": 100.0, "ForecastCategory": "Closed",
        "PrevAmount": 1000.0, "PrevCloseDate": "2026-12-31",
    }  # fmt: skip
    assert field_history(w, deal) == {
        ("created", "Text", None, None), ("StageName", "DynamicEnum", "Prospecting", "Closed Won"), ("Amount", "Currency", 1000.0, 1500.0),
        ("Probability", "Percent", 10.0, 100.0), ("ForecastCategoryName", "DynamicEnum", "Pipeline", "Closed"),
    }  # fmt: skip
    last = record["LastAmountChangedHistoryId"]
    assert w.column(f"SELECT Id FROM OpportunityHistory WHERE OpportunityId = '{deal}' AND Amount = 1500") == [last]


def test_what_is_set_by_hand_stays_until_the_stage_moves(w: World, deal: str) -> None:
    w.org.update("Opportunity", deal, {"Probability": 55, "ForecastCategoryName": "Commit"})
    assert w.row(deal, "Probability", "ForecastCategory") == (55, "Forecast")
    w.org.update("Opportunity", deal, {"StageName": "Value Proposition", "ForecastCategoryName": "Best Case"})
    assert w.row(deal, "Probability", "ForecastCategory", "ForecastCategoryName") == (50, "BestCase", "Best Case")


def test_every_write_moves_the_stamps_but_only_changes_make_history(w: World, deal: str) -> None:
    w.org.update("Opportunity", deal, {"StageName": "Prospecting", "Description": "again"}, by=w.org.integration_user_id)
    assert w.row(deal, *STAMPS, "LastModifiedById") == (at(), at(), w.org.integration_user_id)
    assert len(history(w, deal)) == 1 and len(field_history(w, deal)) == 1
    assert w.row(deal, "CreatedDate") == (at(-24),)


def test_close_date_and_owner_changes(w: World, deal: str) -> None:
    w.org.update("Opportunity", deal, {"CloseDate": date(2027, 1, 5), "OwnerId": w.org.integration_user_id})
    w.org.update("Opportunity", deal, {"CloseDate": date(2027, 1, 20)})
    assert w.row(deal, "PushCount") == (1,), "a push is a move to a later calendar month"
    admin, integration = w.org.admin_id, w.org.integration_user_id
    assert field_history(w, deal) - {("created", "Text", None, None)} == {
        ("CloseDate", "DateOnly", "2026-12-31", "2027-01-05"), ("CloseDate", "DateOnly", "2027-01-05", "2027-01-20"),
        ("Owner", "EntityId", admin, integration), ("Owner", "Text", "Anke Admin", "Plumbline Integration"),
    }  # fmt: skip
    assert [(h["PrevCloseDate"], h["CloseDate"]) for h in history(w, deal)[1:]] == [
        ("2026-12-31", "2027-01-05"), ("2027-01-05", "2027-01-20"),
    ]  # fmt: skip


def test_activities_move_the_modstamp_but_not_the_last_modified_date(w: World, deal: str) -> None:
    flags = f"SELECT HasOpenActivity, HasOverdueTask, LastActivityDate FROM Opportunity WHERE Id = '{deal}'"
    task = w.org.create("Task", {"WhatId": deal, "Subject": "Call", "ActivityDate": date(2026, 11, 20)})
    assert w.records(flags) == [{"HasOpenActivity": True, "HasOverdueTask": True, "LastActivityDate": None}]
    assert w.row(deal, *STAMPS) == (at(-24), at(-24)), "an open task says nothing of activity"
    w.org.update("Task", task, {"Status": "Completed"})
    assert w.records(flags) == [{"HasOpenActivity": False, "HasOverdueTask": False, "LastActivityDate": "2026-11-20"}]
    assert w.row(deal, *STAMPS) == (at(-24), at())
    shown = w.records(f"SELECT IsClosed, CompletedDateTime, Account.Name FROM Task WHERE Id = '{task}'")
    assert shown == [{"IsClosed": True, "CompletedDateTime": "2026-11-23T09:00:00.000+0000", "Account": {"Name": "Acme"}}]
    start = datetime(2026, 12, 4, 9, tzinfo=UTC)
    w.org.create("Event", {"WhatId": deal, "Subject": "Visit", "StartDateTime": start, "DurationInMinutes": 45})
    assert w.records(flags) == [{"HasOpenActivity": True, "HasOverdueTask": False, "LastActivityDate": "2026-12-04"}]
    assert w.column(f"SELECT EndDateTime FROM Event WHERE WhatId = '{deal}'") == ["2026-12-04T09:45:00.000+0000"]
    w.org.delete("Task", task)
    assert w.row(deal, "LastModifiedDate") == (at(-24),)


def test_contact_roles_move_nothing_on_the_deal(w: World, deal: str) -> None:
    people = [w.org.create("Contact", {"LastName": name}) for name in ("One", "Two")]
    roles = [w.org.create("OpportunityContactRole", {"OpportunityId": deal, "ContactId": p, "IsPrimary": True}) for p in people]
    assert w.column(f"SELECT IsPrimary FROM OpportunityContactRole WHERE OpportunityId = '{deal}' ORDER BY Id") == [False, True]
    w.org.delete("OpportunityContactRole", roles[0])
    assert w.row(deal, *STAMPS) == (at(-24), at(-24))


def test_formula_fields_change_without_a_stamp(w: World, deal: str) -> None:
    formulas = f"SELECT Days_Open__c, Weighted_Amount__c, Account_Industry__c, SystemModstamp FROM Opportunity WHERE Id = '{deal}'"
    before = w.records(formulas)[0]
    assert (before["Days_Open__c"], before["Weighted_Amount__c"], before["Account_Industry__c"]) == (1.0, 100.0, None)
    w.clock.advance(timedelta(days=3))
    w.org.update("Account", w.row(deal, "AccountId")[0], {"Industry": "Energy"})
    w.org.set_formula("Opportunity", "Weighted_Amount__c", "IF(IsClosed, 0, Amount * Probability / 200)")
    after = w.records(formulas)[0]
    assert (after["Days_Open__c"], after["Weighted_Amount__c"], after["Account_Industry__c"]) == (4.0, 50.0, "Energy")
    assert after["SystemModstamp"] == before["SystemModstamp"]
    w.org.set_formula("Opportunity", "Weighted_Amount__c", "Amount * Probability / 100")


def test_recycle_bin_and_back(w: World, deal: str) -> None:
    role = w.org.create("OpportunityContactRole", {"OpportunityId": deal, "ContactId": w.org.create("Contact", {"LastName": "Ott"})})
    task = w.org.create("Task", {"WhatId": deal, "Subject": "Call"})
    w.clock.advance(timedelta(hours=1))
    w.sf.Opportunity.delete(deal)
    assert w.row(deal, "IsDeleted", "SystemModstamp", "LastModifiedById") == (True, at(1), w.org.integration_user_id)
    children = 'SELECT "IsDeleted" FROM "OpportunityContactRole" WHERE "Id" = ? UNION ALL SELECT "IsDeleted" FROM "Task" WHERE "Id" = ?'
    assert w.org.rows(children, [role, task]) == [(True,), (True,)]
    assert w.raw.get(f"{w.data}/sobjects/Opportunity/{deal}").json()[0]["errorCode"] == "ENTITY_IS_DELETED"
    with pytest.raises(SalesforceError, match="ENTITY_IS_DELETED"):
        w.org.update("Opportunity", deal, {"NextStep": "x"})
    window = (NOW - timedelta(hours=1), NOW + timedelta(hours=2))
    assert w.sf.Opportunity.deleted(*window)["deletedRecords"][-1] == {"deletedDate": "2026-11-23T10:00:00.000+0000", "id": deal}
    assert deal not in w.sf.Opportunity.updated(*window)["ids"]
    w.clock.advance(timedelta(hours=1))
    w.org.undelete("Opportunity", deal)
    assert w.row(deal, "IsDeleted", "SystemModstamp") == (False, at(2))
    assert w.org.rows(children, [role, task]) == [(False,), (False,)]
    window = (NOW - timedelta(hours=1), NOW + timedelta(hours=3))
    answer = w.sf.Opportunity.deleted(*window)
    assert deal not in [r["id"] for r in answer["deletedRecords"]] and answer["latestDateCovered"] == "2026-11-23T11:00:00.000+0000"
    assert deal in w.sf.Opportunity.updated(*window)["ids"]


def test_hard_deleted_records_are_only_in_the_log(w: World, deal: str) -> None:
    w.org.delete("Opportunity", deal)
    w.org.hard_delete("Opportunity", deal)
    assert w.sf.query(f"SELECT Id FROM Opportunity WHERE Id = '{deal}'", include_deleted=True)["totalSize"] == 0
    assert w.sf.query(f"SELECT Id FROM OpportunityHistory WHERE OpportunityId = '{deal}'", include_deleted=True)["totalSize"] == 0
    log = w.sf.Opportunity.deleted(NOW - timedelta(hours=1), NOW + timedelta(hours=1))["deletedRecords"]
    assert [r["id"] for r in log].count(deal) == 1


def test_changes_can_be_asked_for_thirty_days_back(w: World) -> None:
    for kind in ("deleted", "updated"):
        for back, status in ((29, 200), (31, 400)):
            start = (w.clock.now() - timedelta(days=back)).isoformat()
            answer = w.raw.get(f"{w.data}/sobjects/Opportunity/{kind}/", params={"start": start, "end": w.clock.now().isoformat()})
            assert answer.status_code == status, (kind, back)
    assert answer.json()[0]["errorCode"] == "INVALID_REPLICATION_DATE"


def test_account_merges_reparent_and_mark_the_losers(w: World, deal: str) -> None:
    loser = w.row(deal, "AccountId")[0]
    master = w.org.create("Account", {"Name": "Master"})
    w.org.merge_accounts(master, [loser])
    assert w.records(f"SELECT IsDeleted, MasterRecordId FROM Account WHERE Id = '{loser}'", include_deleted=True) == [
        {"IsDeleted": True, "MasterRecordId": master}
    ]
    assert w.row(deal, "AccountId", "SystemModstamp") == (master, at())


def test_deleting_an_account_takes_its_deals_along(w: World, deal: str) -> None:
    w.org.create("Task", {"WhatId": deal, "Subject": "Call"})
    w.org.delete("Account", w.row(deal, "AccountId")[0])
    assert w.row(deal, "IsDeleted") == (True,)
    assert w.org.rows('SELECT "IsDeleted" FROM "Task" WHERE "WhatId" = ?', [deal]) == [(True,)]
    w.org.undelete("Account", w.row(deal, "AccountId")[0])
    assert w.row(deal, "IsDeleted") == (False,)
    assert w.org.rows('SELECT "IsDeleted" FROM "Task" WHERE "WhatId" = ?', [deal]) == [(False,)]


def test_a_late_commit_is_stamped_before_it_is_seen(w: World, deal: str) -> None:
    w.faults.arm("late_commit", times=2, seconds=300)
    late = w.org.create("Opportunity", {"Name": "Late", "StageName": "Prospecting", "CloseDate": "2026-12-31"})
    w.org.update("Opportunity", deal, {"NextStep": "late"})
    w.clock.advance(timedelta(seconds=200))
    changed = f"SELECT Id FROM Opportunity WHERE SystemModstamp >= {NOW:%Y-%m-%dT%H:%M:%SZ}"
    assert not {late, deal} & set(w.column(changed)) and w.row(deal, "NextStep") == (None,)
    covered = w.sf.Opportunity.updated(NOW - timedelta(hours=1), NOW + timedelta(hours=1))["latestDateCovered"]
    assert covered == "2026-11-23T09:00:00.000+0000", "getUpdated does not claim what is still in flight"
    w.clock.advance(timedelta(seconds=200))
    assert {late, deal} <= set(w.column(changed))
    assert w.row(deal, "NextStep", *STAMPS) == ("late", at(), at()) and w.row(late, "CreatedDate") == (at(),)
    assert len(history(w, late)) == 1
