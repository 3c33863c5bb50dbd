"""Writing through the API: single records, collections, upserts, and each record's own error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from salesforce_sim_help import World, world
from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceResourceNotFound


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        yield w


@pytest.fixture
def deals(w: World) -> list[str]:
    row = {"Name": "Deal", "StageName": "Prospecting", "CloseDate": "2026-12-31"}
    return [outcome.id or "" for outcome in w.org.create_many("Opportunity", [row] * 3)]


def patch(w: World, records: list[dict[str, Any]], *, all_or_none: bool = False) -> Any:
    typed = [{"attributes": {"type": "Opportunity"}} | record for record in records]
    return w.sf.restful("composite/sobjects", method="PATCH", json={"allOrNone": all_or_none, "records": typed})


def codes(answer: list[dict[str, Any]]) -> list[str | None]:
    return [None if a["success"] else a["errors"][0]["statusCode"] for a in answer]


def test_single_records(w: World) -> None:
    made = w.sf.Opportunity.create({"Name": "Over HTTP", "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": 12.345})
    assert made["success"] and made["id"].startswith("006") and len(made["id"]) == 18
    assert w.sf.Opportunity.update(made["id"][:15], {"NextStep": "Ring Łódź", "Plumbline_Flagged_Since__c": "2026-11-23"}) == 204
    got = w.sf.Opportunity.get(made["id"])
    assert (got["Amount"], got["NextStep"], got["Plumbline_Flagged_Since__c"]) == (12.35, "Ring Łódź", "2026-11-23")
    assert got["CreatedById"] == w.org.integration_user_id and got["attributes"]["type"] == "Opportunity"
    assert w.sf.Opportunity.update(made["id"], {"NextStep": None}) == 204
    assert w.row(made["id"], "NextStep") == (None,)
    assert w.sf.Opportunity.delete(made["id"]) == 204
    with pytest.raises(SalesforceResourceNotFound, match="ENTITY_IS_DELETED"):
        w.sf.Opportunity.get(made["id"])
    with pytest.raises(SalesforceMalformedRequest, match="REQUIRED_FIELD_MISSING"):
        w.sf.Opportunity.create({"Name": "No stage", "CloseDate": "2026-12-31"})


def test_collections_answer_in_order_and_keep_the_good_ones(w: World, deals: list[str]) -> None:
    w.org.delete("Opportunity", deals[2])
    answer = patch(
        w,
        [
            {"id": deals[0], "Plumbline_Score__c": 70, "Plumbline_Status__c": "At risk"},
            {"id": deals[1], "Plumbline_Score__c": 7000},
            {"id": deals[2], "Plumbline_Score__c": 70},
            {"id": "0065g00000zzzzzAAA", "Plumbline_Score__c": 70},
            {"id": "junk", "Plumbline_Score__c": 70},
            {"Plumbline_Score__c": 70},
        ],
    )
    assert codes(answer) == [
        None, "NUMBER_OUTSIDE_VALID_RANGE", "ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID", "MISSING_ARGUMENT",
    ]  # fmt: skip
    assert answer[0] == {"id": deals[0], "success": True, "errors": []}
    assert "id" not in answer[1] and answer[1]["errors"][0]["fields"] == ["Plumbline_Score__c"]
    assert w.row(deals[0], "Plumbline_Score__c", "Plumbline_Status__c") == (70, "At risk")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"Nope__c": 1}, "INVALID_FIELD"),
        ({"IsWon": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"Weighted_Amount__c": 1}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"NextStep": "x" * 256}, "STRING_TOO_LONG"),
        ({"Loss_Reason__c": "Bad weather"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"CurrencyIsoCode": "XXX"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"CloseDate": "tomorrow"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"Amount": "many"}, "INVALID_TYPE_ON_FIELD_IN_RECORD"),
        ({"AccountId": "0015g00000zzzzzAAA"}, "INVALID_CROSS_REFERENCE_KEY"),
        ({"AccountId": "Acme"}, "MALFORMED_ID"),
        ({"Name": None}, "REQUIRED_FIELD_MISSING"),
        ({"NextStep": "x" * 255, "Type": "Anything"}, None),
    ],
)
def test_what_is_wrong_with_a_value(w: World, deals: list[str], values: dict[str, Any], code: str | None) -> None:
    assert codes(patch(w, [{"id": deals[0]} | values])) == [code]


def test_validation_rules_stop_writes_of_other_fields_too(w: World, deals: list[str]) -> None:
    w.org.add_validation_rule(
        "Opportunity", "loss_reason", "AND(ISPICKVAL(StageName, 'Closed Lost'), ISBLANK(Loss_Reason__c))", "Tell why it was lost.",
        "Loss_Reason__c",
    )
    w.org.con.execute('UPDATE "Opportunity" SET "StageName" = \'Closed Lost\' WHERE "Id" = ?', [deals[1]])
    try:
        answer = patch(w, [{"id": deals[0], "Plumbline_Score__c": 1}, {"id": deals[1], "Plumbline_Score__c": 1}])
        assert codes(answer) == [None, "FIELD_CUSTOM_VALIDATION_EXCEPTION"]
        assert answer[1]["errors"] == [
            {"statusCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "Tell why it was lost.", "fields": ["Loss_Reason__c"]}
        ]
        assert codes(patch(w, [{"id": deals[1], "Loss_Reason__c": "Price"}])) == [None]
    finally:
        w.org.remove_validation_rule("loss_reason")


def test_locked_rows_fail_as_often_as_told(w: World, deals: list[str]) -> None:
    w.org.lock_rows([deals[0]], times=1)
    both = [{"id": deals[0], "NextStep": "a"}, {"id": deals[1], "NextStep": "a"}]
    assert codes(patch(w, both)) == ["UNABLE_TO_LOCK_ROW", None]
    assert codes(patch(w, both)) == [None, None]


def test_all_or_none_writes_nothing_when_one_fails(w: World, deals: list[str]) -> None:
    answer = patch(w, [{"id": deals[0], "NextStep": "kept?"}, {"id": deals[1], "Amount": "many"}], all_or_none=True)
    assert codes(answer) == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_TYPE_ON_FIELD_IN_RECORD"]
    assert w.row(deals[0], "NextStep") == (None,)
    assert codes(patch(w, [{"id": d, "NextStep": "all"} for d in deals], all_or_none=True)) == [None] * 3


def test_two_hundred_records_a_call(w: World, deals: list[str]) -> None:
    with pytest.raises(SalesforceMalformedRequest, match="cannot submit more than 200 records"):
        patch(w, [{"id": deals[0]}] * 201)
    assert codes(patch(w, [{"id": deals[0], "NextStep": "x"}] * 2)) == ["DUPLICATE_VALUE"] * 2


def test_records_with_different_fields_leave_the_others_alone(w: World, deals: list[str]) -> None:
    patch(w, [{"id": deals[0], "NextStep": "one"}, {"id": deals[1], "Amount": 5}])
    patch(w, [{"id": deals[0], "Amount": 7}, {"id": deals[1], "NextStep": "two"}])
    assert [w.row(d, "NextStep", "Amount") for d in deals[:2]] == [("one", 7), ("two", 5)]


def test_upsert_by_external_id(w: World, deals: list[str]) -> None:
    def upsert(*records: dict[str, Any]) -> Any:
        typed = [{"attributes": {"type": "Plumbline_Snapshot__c"}} | r for r in records]
        path = "composite/sobjects/Plumbline_Snapshot__c/Key__c"
        return w.sf.restful(path, method="PATCH", json={"allOrNone": False, "records": typed})

    first = upsert({"Key__c": "2026-11-23|a", "Score__c": 3, "Opportunity__c": deals[0]}, {"Key__c": "2026-11-23|b", "Score__c": 4})
    assert [a["created"] for a in first] == [True, True]
    again = upsert({"Key__c": "2026-11-23|B", "Score__c": 5}, {"Key__c": "2026-11-23|c"}, {"Score__c": 1})
    assert [a.get("created") for a in again] == [False, True, None] and again[0]["id"] == first[1]["id"]
    assert again[2]["errors"][0]["statusCode"] == "MISSING_ARGUMENT"
    found = w.records("SELECT Name, Score__c, Opportunity__r.Name FROM Plumbline_Snapshot__c WHERE Score__c IN (3, 5) ORDER BY Id")
    assert [(r["Score__c"], r["Opportunity__r"]) for r in found] == [(3.0, {"Name": "Deal"}), (5.0, None)]
    assert found[0]["Name"].startswith("PS-")
    single = w.sf.Plumbline_Snapshot__c.upsert("Key__c/2026-11-24|xy", {"Score__c": 9}, raw_response=True)
    assert single.status_code == 201 and single.json()["created"] is True
    assert w.sf.Plumbline_Snapshot__c.get_by_custom_id("Key__c", "2026-11-24|xy")["Score__c"] == 9.0
    w.sf.Plumbline_Snapshot__c.create({"Score__c": 1})
    with pytest.raises(SalesforceMalformedRequest, match="DUPLICATE_VALUE"):
        w.sf.Plumbline_Snapshot__c.create({"Key__c": "2026-11-23|A"})


def test_collections_create_and_delete(w: World) -> None:
    row = {"attributes": {"type": "Opportunity"}, "Name": "New", "StageName": "Prospecting", "CloseDate": "2026-12-31"}
    made = w.sf.restful("composite/sobjects", method="POST", json={"records": [row, {**row, "CloseDate": None}]})
    assert codes(made) == [None, "REQUIRED_FIELD_MISSING"]
    gone = w.sf.restful("composite/sobjects", method="DELETE", params={"ids": f"{made[0]['id']},0065g00000zzzzzAAA"})
    assert codes(gone) == [None, "INVALID_CROSS_REFERENCE_KEY"]


def test_deals_cannot_be_given_to_inactive_users(w: World, deals: list[str]) -> None:
    leaver = w.org.create("User", {"Username": "l@x.example", "LastName": "Leaver", "Email": "l@x.example", "Alias": "l", "IsActive": True,
                                   "TimeZoneSidKey": "Europe/Berlin", "LanguageLocaleKey": "de",
                                   "ProfileId": w.org.rows('SELECT min("Id") FROM "Profile"')[0][0]})  # fmt: skip
    assert codes(patch(w, [{"id": deals[0], "OwnerId": leaver}])) == [None]
    w.org.update("User", leaver, {"IsActive": False})
    assert codes(patch(w, [{"id": deals[1], "OwnerId": leaver}])) == ["INACTIVE_OWNER_OR_USER"]
    assert codes(patch(w, [{"id": deals[0], "NextStep": "his deals stay writable"}])) == [None]
    assert w.records(f"SELECT Owner.IsActive FROM Opportunity WHERE Id = '{deals[0]}'") == [{"Owner": {"IsActive": False}}]
