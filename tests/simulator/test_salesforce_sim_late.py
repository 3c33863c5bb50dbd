"""What incremental readers stumble over: purged logs, an emptied bin, writes that commit late, archived activities, merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from salesforce_sim_help import NOW, World, world

from connectors.simulator.salesforce import api
from connectors.simulator.salesforce.errors import SalesforceError

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world() as w:
        yield w


@pytest.fixture
def w(served: World) -> World:
    served.reset()
    return served


def at(hours: float = 0) -> datetime:
    return (NOW + timedelta(hours=hours)).replace(tzinfo=None)


def visible(w: World, deal: str, soql: str = "SELECT Id FROM Opportunity WHERE Id = '{}'") -> bool:
    return bool(w.column(soql.format(deal)))


# --- the log of deletions and the recycle bin -------------------------------------------------------------------------


def test_the_log_of_deletions_reaches_fifteen_days_back(w: World) -> None:
    w.clock.set(NOW - timedelta(days=40))
    w.org.reset()
    old, new = w.deal(), w.deal()
    w.clock.set(NOW - timedelta(days=20))
    w.org.delete("Opportunity", old)
    w.clock.set(NOW - timedelta(days=10))
    w.org.delete("Opportunity", new)
    w.clock.set(NOW)
    w.start()
    told = w.deleted(days=25)
    assert [r["id"] for r in told["deletedRecords"]] == [new]
    assert told["earliestDateAvailable"] == "2026-11-08T09:00:00.000+0000", "which says that the answer is not whole"
    w.org.replication_errors = True
    assert w.deleted(days=25)[0]["errorCode"] == "INVALID_REPLICATION_DATE"
    assert [r["id"] for r in w.deleted(days=14)["deletedRecords"]] == [new]


def test_a_purged_log_says_how_far_it_reaches(w: World) -> None:
    w.clock.set(NOW - timedelta(days=40))
    w.org.reset()
    first, second = w.deal(), w.deal()
    for days, deal in ((5, first), (3, second)):
        w.clock.set(NOW - timedelta(days=days))
        w.org.delete("Opportunity", deal)
    w.clock.set(NOW)
    w.start()
    assert [r["id"] for r in w.deleted(days=10)["deletedRecords"]] == [first, second]
    w.org.purge_delete_log(NOW - timedelta(days=4))
    w.org.purge_delete_log(NOW - timedelta(days=9))
    told = w.deleted(days=10)
    assert [r["id"] for r in told["deletedRecords"]] == [second]
    assert told["earliestDateAvailable"] == "2026-11-19T09:00:00.000+0000"
    assert set(w.column("SELECT Id FROM Opportunity WHERE IsDeleted = true", include_deleted=True)) == {first, second}


def test_the_bin_keeps_records_for_fifteen_days(w: World) -> None:
    account = w.org.create("Account", {"Name": "Acme"})
    old, new = w.deal(AccountId=account), w.deal()
    task = w.org.create("Task", {"WhatId": old, "Subject": "Call"})
    w.org.delete("Account", account)
    w.clock.advance(timedelta(days=14))
    w.org.delete("Opportunity", new)
    assert w.org.empty_recycle_bin() == 0
    w.clock.advance(timedelta(days=1, hours=1))
    assert w.org.empty_recycle_bin() == 5, "the account, its deal with two lines of history, and the task"
    w.org.faults.clear()
    assert w.column("SELECT Id FROM Opportunity", include_deleted=True) == [new]
    assert w.column(f"SELECT Id FROM Task WHERE Id = '{task}'", include_deleted=True) == []
    with pytest.raises(SalesforceError, match="ENTITY_IS_DELETED"):
        w.org.undelete("Opportunity", old)
    assert w.org.empty_recycle_bin(everything=True) == 3
    assert [r["id"] for r in w.deleted(days=2)["deletedRecords"]] == [new], "the log still tells of what left the bin"


@pytest.mark.parametrize(
    ("sobject", "make"),
    [
        ("Account", lambda w: w.org.create("Account", {"Name": "A"})),
        ("Contact", lambda w: w.org.create("Contact", {"LastName": "A"})),
        ("Task", lambda w: w.org.create("Task", {"Subject": "A"})),
        ("Event", lambda w: w.org.create("Event", {"Subject": "A", "StartDateTime": NOW})),
        ("OpportunityContactRole", lambda w: w.org.create(
            "OpportunityContactRole", {"OpportunityId": w.deal(), "ContactId": w.org.create("Contact", {"LastName": "B"})})),
    ],
)  # fmt: skip
def test_deletions_of_everything_around_a_deal_are_told(w: World, sobject: str, make: Callable[[World], str]) -> None:
    record = make(w)
    w.org.delete(sobject, record)
    assert [(r["id"], r["deletedDate"]) for r in w.deleted(sobject)["deletedRecords"]] == [(record, "2026-11-23T09:00:00.000+0000")]
    w.org.hard_delete(sobject, record)
    assert [r["id"] for r in w.deleted(sobject)["deletedRecords"]] == [record]


def test_too_many_deletions_are_refused(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_IDS", 2)
    for deal in [w.deal() for _ in range(2)]:
        w.org.delete("Opportunity", deal)
    assert len(w.deleted()["deletedRecords"]) == 2
    w.org.delete("Opportunity", w.deal())
    assert w.deleted()[0]["errorCode"] == "EXCEEDED_ID_LIMIT"
    assert w.raw.get(f"{w.data}/sobjects/FieldDefinition/deleted/?start=a&end=b").json()[0]["errorCode"] == "INVALID_TYPE"


# --- writes that commit late ------------------------------------------------------------------------------------------


def test_every_kind_of_write_may_commit_hours_after_its_stamp(w: World) -> None:
    a, b, master, loser = (w.org.create("Account", {"Name": n}) for n in "ABML")
    changed, deleted, purged, moved, back = w.deal(), w.deal(AccountId=a), w.deal(), w.deal(AccountId=loser), w.deal(AccountId=b)
    w.org.delete("Opportunity", back)
    w.clock.advance(HOUR)
    w.org.late(3 * 3600, times=6)
    new = w.deal(Name="Late")
    w.org.update("Opportunity", changed, {"NextStep": "late"})
    w.org.delete("Opportunity", deleted)
    w.org.hard_delete("Opportunity", purged)
    w.org.undelete("Opportunity", back)
    w.org.merge_accounts(master, [loser])
    assert not w.faults.armed()

    w.clock.advance(2.9 * HOUR)
    assert not visible(w, new) and w.row(changed, "NextStep") == (None,)
    assert visible(w, deleted) and visible(w, purged) and not visible(w, back) and w.row(moved, "AccountId") == (loser,)
    span = {"start": (NOW - HOUR).isoformat(), "end": (NOW + 9 * HOUR).isoformat()}
    told = w.raw.get(f"{w.data}/sobjects/Opportunity/deleted/", params=span).json()
    assert [r["id"] for r in told["deletedRecords"]] == [back] and told["latestDateCovered"] == "2026-11-23T10:00:00.000+0000"

    w.clock.advance(0.2 * HOUR)
    assert visible(w, new) and w.row(new, "CreatedDate", "SystemModstamp") == (at(1), at(1))
    assert w.row(changed, "NextStep", "SystemModstamp") == ("late", at(1))
    assert w.row(deleted, "IsDeleted", "SystemModstamp") == (True, at(1)) and not visible(w, purged)
    assert w.row(back, "IsDeleted", "SystemModstamp") == (False, at(1))
    assert w.row(moved, "AccountId", "SystemModstamp") == (master, at(1))
    told = w.raw.get(f"{w.data}/sobjects/Opportunity/deleted/", params=span).json()
    assert {r["id"]: r["deletedDate"] for r in told["deletedRecords"]} == dict.fromkeys((deleted, purged), "2026-11-23T10:00:00.000+0000")


def test_what_has_not_committed_is_locked(w: World) -> None:
    account = w.org.create("Account", {"Name": "A"})
    deal, other, logged = w.deal(AccountId=account), w.deal(), w.deal()
    task = w.org.create("Task", {"WhatId": deal, "Subject": "Call"})
    w.org.late(3600, times=2)
    w.org.delete("Account", account)
    w.org.create("Task", {"WhatId": logged, "Subject": "Call", "Status": "Completed", "ActivityDate": "2026-11-20"})
    assert {account, deal, task, logged} <= w.org.in_flight() and other not in w.org.in_flight()
    attempts: list[Callable[[], object]] = [
        lambda: w.org.update("Opportunity", deal, {"NextStep": "x"}),
        lambda: w.org.update("Task", task, {"Status": "Completed"}),
        lambda: w.org.update("Opportunity", logged, {"NextStep": "x"}),
        lambda: w.org.create("Task", {"WhatId": deal, "Subject": "New"}),
        lambda: w.org.delete("Opportunity", deal),
        lambda: w.org.merge_accounts(w.org.create("Account", {"Name": "M"}), [account]),
    ]
    for attempt in attempts:
        with pytest.raises(SalesforceError, match="UNABLE_TO_LOCK_ROW"):
            attempt()
    patched = w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"NextStep": "x"})
    assert patched.status_code == 400 and patched.json()[0]["errorCode"] == "UNABLE_TO_LOCK_ROW"
    w.org.update("Opportunity", other, {"NextStep": "x"})
    w.clock.advance(1.1 * HOUR)
    assert w.org.in_flight() == set() and w.row(deal, "IsDeleted") == (True,)
    assert w.row(logged, "LastActivityDate", "SystemModstamp") == (datetime(2026, 11, 20).date(), at())
    w.org.update("Opportunity", logged, {"NextStep": "x"})


def test_what_a_write_that_has_not_committed_refers_to_may_change_but_not_go(w: World) -> None:
    account, master = w.org.create("Account", {"Name": "A"}), w.org.create("Account", {"Name": "M"})
    w.org.late(3600)
    deal = w.deal(AccountId=account)
    for attempt in (lambda: w.org.merge_accounts(master, [account]), lambda: w.org.delete("Account", account)):
        with pytest.raises(SalesforceError, match="UNABLE_TO_LOCK_ROW"):
            attempt()
    w.org.update("Account", account, {"Name": "A and Sons"})
    w.clock.advance(1.1 * HOUR)
    w.org.merge_accounts(master, [account])
    assert w.row(deal, "AccountId") == (master,)


def test_what_was_refused_for_a_lock_stays_refused_when_the_lock_is_gone(w: World) -> None:
    deal = w.deal()
    w.org.late(2 * 3600)
    w.org.update("Opportunity", deal, {"NextStep": "first"})
    w.org.late(3600)
    with pytest.raises(SalesforceError, match="UNABLE_TO_LOCK_ROW"):
        w.org.update("Opportunity", deal, {"NextStep": "second", "StageName": "Qualification"})
    before = w.row(deal, "StageName")
    w.clock.advance(3 * HOUR)
    assert w.row(deal, "NextStep", "StageName") == ("first", *before)


def test_only_what_people_do_commits_late_when_told_so(w: World) -> None:
    deal = w.deal()
    w.org.late(3600)
    w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"NextStep": "by API"})
    assert w.row(deal, "NextStep") == ("by API",)
    w.org.update("Opportunity", deal, {"NextStep": "by hand"})
    assert w.row(deal, "NextStep") == ("by API",)


def test_a_change_of_the_schema_waits_for_open_writes(w: World) -> None:
    w.org.late(3600)
    deal = w.deal(Win_Reason__c="Price")
    w.org.add_field("Opportunity", "Tier__c", "string")
    assert w.row(deal, "Win_Reason__c", "Tier__c") == ("Price", None) and w.org.in_flight() == set()


# --- what moves no stamp ----------------------------------------------------------------------------------------------


def test_activities_are_archived_after_a_year_and_nothing_tells(w: World) -> None:
    deal = w.deal()
    old = w.org.create("Task", {"WhatId": deal, "Subject": "Old", "Status": "Completed", "ActivityDate": "2025-11-01"})
    still_open = w.org.create("Task", {"WhatId": deal, "Subject": "Open", "ActivityDate": "2025-11-01"})
    visit = w.org.create("Event", {"WhatId": deal, "Subject": "V", "StartDateTime": datetime(2025, 11, 1, 9, tzinfo=UTC)})
    new = w.org.create("Task", {"WhatId": deal, "Subject": "New", "Status": "Completed", "ActivityDate": "2026-11-01"})
    w.clock.advance(HOUR)
    assert w.org.archive_activities() == 2 and w.org.archive_activities() == 0
    assert w.column("SELECT Id FROM Task ORDER BY Id") == [still_open, new] and w.column("SELECT Id FROM Event") == []
    archived = w.records("SELECT Id, IsArchived, SystemModstamp FROM Task WHERE IsArchived = true", include_deleted=True)
    assert archived == [{"Id": old, "IsArchived": True, "SystemModstamp": "2026-11-23T09:00:00.000+0000"}]
    assert w.column("SELECT Id FROM Event", include_deleted=True) == [visit]
    assert w.org.archive_activities([new]) == 1 and w.column("SELECT Id FROM Task") == [still_open]


def test_line_items_move_the_deals_stamps(w: World) -> None:
    deal = w.deal()
    w.clock.advance(HOUR)
    w.org.set_line_items(deal)
    assert w.row(deal, "HasOpportunityLineItem", "LastModifiedDate", "SystemModstamp") == (True, at(1), at(1))


def test_a_users_change_moves_the_user_and_not_the_deals(w: World) -> None:
    deal = w.deal()
    w.clock.advance(HOUR)
    w.org.update("User", w.org.admin_id, {"LastName": "Admin-Ott", "ManagerId": w.org.integration_user_id})
    found = w.records(f"SELECT Owner.Name, Owner.SystemModstamp, SystemModstamp FROM Opportunity WHERE Id = '{deal}'")
    assert found == [{
        "Owner": {"Name": "Anke Admin-Ott", "SystemModstamp": "2026-11-23T10:00:00.000+0000"},
        "SystemModstamp": "2026-11-23T09:00:00.000+0000",
    }]  # fmt: skip


# --- history ----------------------------------------------------------------------------------------------------------


def test_lookups_are_told_twice_and_long_texts_without_their_values(w: World) -> None:
    renewal = w.org.add_record_type("Renewal")
    w.org.add_field("Opportunity", "Notes__c", "textarea", length=5000)
    w.org.set_field_history_tracking(["RecordTypeId", "AccountId", "Notes__c", "HasOpportunityLineItem", "CurrencyIsoCode"])
    deal = w.deal()
    first = w.row(deal, "RecordTypeId")[0]
    account = w.org.create("Account", {"Name": "Acme"})
    w.org.update("Opportunity", deal, {"RecordTypeId": renewal, "AccountId": account, "Notes__c": "long", "CurrencyIsoCode": "USD"})
    soql = f"SELECT Field, DataType, OldValue, NewValue FROM OpportunityFieldHistory WHERE OpportunityId = '{deal}' AND Field != 'created'"
    assert {tuple(r.values()) for r in w.records(soql)} == {
        ("RecordType", "Text", "New Business", "Renewal"), ("RecordType", "EntityId", first, renewal), ("Account", "Text", None, "Acme"),
        ("Account", "EntityId", None, account), ("Notes__c", "StringPlusClob", None, None), ("CurrencyIsoCode", "DynamicEnum", "EUR", "USD"),
    }  # fmt: skip


def test_a_change_of_currency_alone_makes_no_stage_history(w: World) -> None:
    """OpportunityHistory is written when amount, probability, stage or close date change, says its reference."""
    deal = w.deal(Amount=100)
    w.org.update("Opportunity", deal, {"CurrencyIsoCode": "USD"})
    w.org.update("Opportunity", deal, {"ForecastCategoryName": "Best Case"})
    history = f"SELECT CurrencyIsoCode, Amount, PrevAmount FROM OpportunityHistory WHERE OpportunityId = '{deal}' ORDER BY Id"
    assert len(w.records(history)) == 1
    w.org.update("Opportunity", deal, {"Amount": 120})
    assert [list(r.values()) for r in w.records(history)] == [["EUR", 100.0, None], ["USD", 120.0, 100.0]]
