"""Objects of the simulated HubSpot: listed, read, written in batches, archived, merged and purged."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hubspot.crm.contacts.exceptions import ApiException as ContactsApiException
from hubspot.crm.deals import BatchResponseSimplePublicObjectWithErrors
from hubspot.crm.deals.exceptions import ApiException, NotFoundException
from hubspot_sim_help import START, Served, served

# A deal of the real API, recorded by dlt-hub/verified-sources (Apache-2.0).
RECORDED = {
    "id": "6744192456",
    "properties": {
        "amount": "500",
        "closedate": None,
        "createdate": "2023-02-24T03:01:01.147Z",
        "dealname": "With Atul",
        "dealstage": "qualifiedtobuy",
        "hs_lastmodifieddate": "2023-02-24T03:01:01.711Z",
        "hs_object_id": "6744192456",
        "pipeline": "default",
    },
    "createdAt": "2023-02-24T03:01:01.147Z",
    "updatedAt": "2023-02-24T03:01:01.711Z",
    "archived": False,
}


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        yield one


def deals(hub: Served, count: int, **properties: str) -> list[str]:
    return [hub.portal.create("deals", {"dealname": f"Deal {i}", "amount": str(100 * i), **properties}) for i in range(count)]


def test_a_listed_deal_has_the_recorded_shape(hub: Served) -> None:
    hub.clock.set(START + timedelta(milliseconds=147))
    deal = hub.portal.create("deals", {"dealname": "With Atul", "amount": "500", "dealstage": "qualifiedtobuy", "closedate": None})
    status, page = hub.call("GET", "/crm/v3/objects/deals")
    assert status == 200
    (record,) = page["results"]
    assert list(record) == list(RECORDED)
    assert list(record["properties"]) == list(RECORDED["properties"])
    assert {name: type(value) for name, value in record["properties"].items()} == {
        name: type(value) for name, value in RECORDED["properties"].items()
    }
    assert record["id"] == deal == record["properties"]["hs_object_id"]
    assert record["createdAt"] == "2026-11-23T08:00:00.147Z"
    assert 10 <= len(deal) <= 11


def test_instants_without_fraction_are_written_without_one(hub: Served) -> None:
    deal = hub.portal.create("deals", {"dealname": "On the second"})
    assert hub.deal(deal)["createdate"] == "2026-11-23T08:00:00Z"


def test_paging_visits_each_live_deal_once_while_deals_come_and_go(hub: Served) -> None:
    ids = deals(hub, 25)
    api = hub.client.crm.deals.basic_api
    first = api.get_page(limit=10, properties=["dealname"])
    hub.portal.archive("deals", ids[3])  # already seen: nothing after it may shift
    hub.portal.archive("deals", ids[20])  # not yet seen: will be missing
    late = hub.portal.create("deals", {"dealname": "Late"})
    seen = [deal.id for deal in first.results]
    after = first.paging.next.after
    while after:
        page = api.get_page(limit=10, after=after, properties=["dealname"])
        seen += [deal.id for deal in page.results]
        assert all(deal.properties["dealname"] for deal in page.results)
        after = page.paging.next.after if page.paging else None
    assert seen == [*ids[:20], *ids[21:], late]
    assert len(hub.client.crm.deals.get_all()) == 24


def test_limits_of_a_page(hub: Served) -> None:
    deals(hub, 1)
    for query in ((("limit", "101"),), (("limit", "0"),), (("limit", "x"),), (("limit", "51"), ("propertiesWithHistory", "amount"))):
        status, body = hub.call("GET", "/crm/v3/objects/deals", query=query)
        assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert hub.call("GET", "/crm/v3/objects/deals", query=(("limit", "100"),))[0] == 200


def test_properties_repeated_or_comma_joined_and_unknown_ones_passed_over(hub: Served) -> None:
    deals(hub, 1)
    joined = hub.call("GET", "/crm/v3/objects/deals", query=(("properties", "dealname,pipeline,no_such"),))[1]
    repeated = hub.call("GET", "/crm/v3/objects/deals", query=(("properties", "dealname"), ("properties", "pipeline")))[1]
    assert joined == repeated
    assert set(joined["results"][0]["properties"]) == {"dealname", "pipeline", "createdate", "hs_lastmodifieddate", "hs_object_id"}


def test_archived_deals_are_a_listing_of_their_own(hub: Served) -> None:
    ids = deals(hub, 3)
    before = hub.deal(ids[1])["hs_lastmodifieddate"]
    hub.clock.advance(timedelta(hours=1))
    hub.portal.archive("deals", ids[1])
    api = hub.client.crm.deals.basic_api
    assert [deal.id for deal in api.get_page().results] == [ids[0], ids[2]]
    (gone,) = api.get_page(archived=True).results
    assert gone.id == ids[1]
    assert gone.archived_at == START + timedelta(hours=1)
    assert gone.properties["hs_lastmodifieddate"] == before, "archiving moves no stamp"
    with pytest.raises(NotFoundException):
        api.get_by_id(ids[1])
    assert api.get_by_id(ids[1], archived=True).archived is True
    with pytest.raises(NotFoundException):
        api.get_by_id(ids[0], archived=True)

    hub.portal.restore("deals", ids[1])
    assert [deal.id for deal in api.get_page().results] == ids
    assert api.get_page(archived=True).results == []
    assert hub.deal(ids[1])["hs_lastmodifieddate"] == before, "nor does restoring"


def test_the_recycling_bin_is_emptied_after_ninety_days(hub: Served) -> None:
    ids = deals(hub, 2)
    hub.client.crm.deals.basic_api.archive(ids[0])
    hub.clock.advance(timedelta(days=89))
    assert hub.portal.empty_bin() == 0
    hub.clock.advance(timedelta(days=1))
    assert hub.portal.empty_bin() == 1
    assert hub.client.crm.deals.basic_api.get_page(archived=True).results == []


def test_batch_archive_passes_over_unknown_ids(hub: Served) -> None:
    ids = deals(hub, 3)
    hub.client.crm.deals.batch_api.archive({"inputs": [{"id": ids[0]}, {"id": ids[2]}, {"id": "77"}]})
    assert [deal.id for deal in hub.client.crm.deals.basic_api.get_page().results] == [ids[1]]


def test_privacy_deletion_leaves_nothing_in_any_listing(hub: Served) -> None:
    ids = deals(hub, 2)
    contact = hub.portal.create("contacts", {"email": "karin@example.com"})
    hub.portal.associate("deals", ids[0], "contacts", contact)
    assert hub.call("POST", "/crm/v3/objects/contacts/gdpr-delete", {"objectId": "karin@example.com", "idProperty": "email"})[0] == 204
    hub.portal.purge("deals", ids[1])
    assert [deal.id for deal in hub.client.crm.deals.basic_api.get_page().results] == [ids[0]]
    assert hub.client.crm.deals.basic_api.get_page(archived=True).results == []
    assert hub.client.crm.contacts.basic_api.get_page().results == []
    assert hub.deal(ids[0], "num_associated_contacts")["num_associated_contacts"] == "0"
    assert hub.portal.rows("select count(*) from history_deals where object_id = ?", [int(ids[1])]) == [(0,)]


def test_batch_read_tells_unknown_ids_in_a_207(hub: Served) -> None:
    ids = deals(hub, 3)
    api = hub.client.crm.deals.batch_api
    whole = api.read({"inputs": [{"id": i} for i in ids], "properties": ["amount"], "propertiesWithHistory": ["amount"]})
    assert {deal.id: deal.properties["amount"] for deal in whole.results} == {i: str(100 * n) for n, i in enumerate(ids)}
    assert whole.results[2].properties_with_history["amount"][0].value == "200"
    hub.portal.archive("deals", ids[0])
    partial = api.read({"inputs": [{"id": i} for i in [*ids, "123"]], "properties": []})
    assert isinstance(partial, BatchResponseSimplePublicObjectWithErrors)
    assert [deal.id for deal in partial.results] == ids[1:]
    assert partial.num_errors == 1
    assert partial.errors[0].category == "OBJECT_NOT_FOUND"
    assert partial.errors[0].context == {"ids": [ids[0], "123"]}
    archived = api.read({"inputs": [{"id": ids[0]}], "properties": []}, archived=True)
    assert [deal.id for deal in archived.results] == [ids[0]]


@pytest.mark.parametrize(("operation", "most"), [("read", 100), ("update", 100), ("archive", 100), ("upsert", 100), ("create", 100)])
def test_batches_have_a_limit(hub: Served, operation: str, most: int) -> None:
    inputs = [{"id": str(i), "properties": {}} for i in range(most + 1)]
    status, body = hub.call("POST", f"/crm/v3/objects/deals/batch/{operation}", {"inputs": inputs})
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert str(most) in body["message"]


def test_batch_read_with_history_takes_fifty(hub: Served) -> None:
    body = {"inputs": [{"id": str(i)} for i in range(51)], "properties": [], "propertiesWithHistory": ["dealstage"]}
    assert hub.call("POST", "/crm/v3/objects/deals/batch/read", body)[0] == 400
    assert hub.call("POST", "/crm/v3/objects/deals/batch/read", body | {"inputs": body["inputs"][:50]})[0] == 207


def test_batch_update_writes_the_known_and_tells_the_unknown(hub: Served) -> None:
    ids = deals(hub, 2)
    hub.clock.advance(timedelta(minutes=1))
    inputs = [
        {"id": ids[0], "properties": {"plumbline_score": "35", "plumbline_status": "at_risk"}},
        {"id": "99", "properties": {"amount": "1"}},
    ]
    answer = hub.client.crm.deals.batch_api.update({"inputs": inputs})
    assert [deal.id for deal in answer.results] == [ids[0]]
    assert answer.results[0].properties["plumbline_status"] == "at_risk"
    assert answer.num_errors == 1
    assert answer.errors[0].context == {"ids": ["99"]}
    assert hub.deal(ids[0], "plumbline_score")["plumbline_score"] == "35"
    assert hub.deal(ids[0])["hs_lastmodifieddate"] == "2026-11-23T08:01:00Z"
    assert hub.deal(ids[1])["hs_lastmodifieddate"] == "2026-11-23T08:00:00Z"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"plumbline_status": "splendid"}, "INVALID_OPTION"),
        ({"plumbline_score": "high"}, "INVALID_DOUBLE"),
        ({"plumbline_flagged_since": "2026-11-31"}, "INVALID_DATE"),
        ({"plumbline_flagged_since": "1764201600001"}, "INVALID_DATE"),
        ({"closedate": "soon"}, "INVALID_DATE"),
        ({"no_such_property": "1"}, "PROPERTY_DOESNT_EXIST"),
        ({"hs_deal_stage_probability": "0.5"}, "READ_ONLY_VALUE"),
        ({"amount_in_home_currency": "5"}, "READ_ONLY_VALUE"),
        ({"dealstage": "nowhere"}, "INVALID_OPTION"),
        ({"hubspot_owner_id": "1"}, "INVALID_OPTION"),
    ],
)
def test_one_invalid_value_refuses_the_entire_batch(hub: Served, values: dict[str, str], code: str) -> None:
    ids = deals(hub, 2)
    inputs = [{"id": ids[0], "properties": {"plumbline_score": "50"}}, {"id": ids[1], "properties": values}]
    with pytest.raises(ApiException) as refused:
        hub.client.crm.deals.batch_api.update({"inputs": inputs})
    assert refused.value.status == 400
    status, body = hub.call("POST", "/crm/v3/objects/deals/batch/update", {"inputs": inputs})
    assert (status, body["status"], body["category"]) == (400, "error", "VALIDATION_ERROR")
    assert body["correlationId"]
    assert [error["code"] for error in body["errors"]] == [code]
    assert body["errors"][0]["context"]["propertyName"] == list(values)
    assert body["message"].startswith('Property values were not valid: [{"isValid":false')
    assert hub.deal(ids[0], "plumbline_score")["plumbline_score"] is None, "nothing of the batch was written"


def test_the_same_id_twice_in_a_batch_is_refused(hub: Served) -> None:
    (deal,) = deals(hub, 1)
    one = {"id": deal, "properties": {"plumbline_score": "50"}}
    assert hub.call("POST", "/crm/v3/objects/deals/batch/update", {"inputs": [one, one]})[0] == 400
    assert hub.deal(deal, "plumbline_score")["plumbline_score"] is None


def test_an_empty_string_clears_and_null_leaves_as_it_is(hub: Served) -> None:
    (deal,) = deals(hub, 1)
    api = hub.client.crm.deals.basic_api
    api.update(deal, {"properties": {"plumbline_top_issue": "Close date is in the past", "plumbline_score": "40"}})
    api.update(deal, {"properties": {"plumbline_top_issue": "", "plumbline_score": None}})
    values = hub.deal(deal, "plumbline_top_issue", "plumbline_score")
    assert values["plumbline_top_issue"] is None
    assert values["plumbline_score"] == "40"


def test_dates_and_instants_are_kept_in_one_form(hub: Served) -> None:
    (deal,) = deals(hub, 1)
    hub.client.crm.deals.basic_api.update(deal, {"properties": {"plumbline_flagged_since": "1764201600000", "closedate": "2026-12-03"}})
    values = hub.deal(deal, "plumbline_flagged_since", "closedate")
    assert values["plumbline_flagged_since"] == "2025-11-27"
    assert values["closedate"] == "2026-12-03T00:00:00Z"


def test_create_by_the_api_with_associations(hub: Served) -> None:
    company = hub.portal.create("companies", {"name": "Falkenstein Cargo"})
    made = hub.client.crm.deals.basic_api.create(
        {
            "properties": {"dealname": "New", "dealstage": "contractsent", "pipeline": "default", "amount": "12.5"},
            "associations": [
                {"to": {"id": company}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 341}]}
            ],
        }
    )
    values = hub.deal(made.id, "closedate", "hs_primary_associated_company", "hs_deal_stage_probability", "hs_object_source")
    assert values["closedate"] is None, "only the form in the browser proposes a close date"
    assert values["hs_primary_associated_company"] == company
    assert values["hs_deal_stage_probability"] == "0.89999997615814208984375"
    assert values["hs_object_source"] == "INTEGRATION"
    by_hand = hub.portal.create("deals", {"dealname": "By hand"})
    assert hub.deal(by_hand)["closedate"] == "2026-11-30T08:00:00Z"


def test_a_contact_exists_once_per_email(hub: Served) -> None:
    first = hub.client.crm.contacts.basic_api.create({"properties": {"email": "karin@example.com"}})
    with pytest.raises(ContactsApiException) as refused:
        hub.client.crm.contacts.basic_api.create({"properties": {"email": "Karin@example.com"}})
    assert refused.value.status == 409
    assert f"Existing ID: {first.id}" in refused.value.body
    by_email = hub.client.crm.contacts.basic_api.get_by_id("karin@example.com", id_property="email")
    assert by_email.id == first.id
    assert set(by_email.properties) == {"createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname"}


def test_snapshots_are_upserted_by_their_key(hub: Served) -> None:
    api = hub.client.crm.objects.batch_api
    key = "20261123|default|contractsent"

    def upsert(object_type: str, deals_: str) -> tuple[str, bool]:
        body = {"inputs": [{"idProperty": "snapshot_key", "id": key, "properties": {"deals": deals_, "amount": "125000.50"}}]}
        (one,) = api.upsert(object_type, body).results
        return one.id, one.new

    (schema,) = hub.client.crm.schemas.core_api.get_all().results
    first, new = upsert("plumbline_snapshot", "4")
    assert new is True
    assert upsert(schema.object_type_id, "5") == (first, False)
    assert upsert(schema.fully_qualified_name, "6") == (first, False)
    record = hub.client.crm.objects.basic_api.get_by_id("plumbline_snapshot", first, properties=["deals", "amount", "snapshot_key"])
    assert record.properties["deals"] == "6"
    assert record.properties["snapshot_key"] == key
    assert record.properties["amount"] == "125000.50"


def test_an_upsert_tells_an_invalid_value_per_record(hub: Served) -> None:
    inputs = [
        {"idProperty": "snapshot_key", "id": "a", "properties": {"deals": "many"}},
        {"idProperty": "snapshot_key", "id": "b", "properties": {"deals": "2"}},
    ]
    status, body = hub.call("POST", "/crm/v3/objects/plumbline_snapshot/batch/upsert", {"inputs": inputs})
    assert status == 207
    assert body["numErrors"] == 1
    assert body["errors"][0]["context"] == {"id": ["a"]}
    assert [one["properties"]["snapshot_key"] for one in body["results"]] == ["b"]


def test_a_merged_deal_is_found_by_its_old_id_only(hub: Served) -> None:
    primary, other = deals(hub, 2)
    hub.portal.update("deals", other, {"hs_next_step": "Call Ingrid"})
    contact = hub.portal.create("contacts", {"email": "ingrid@example.com"})
    hub.portal.associate("deals", other, "contacts", contact)
    hub.clock.advance(timedelta(hours=2))
    merged = hub.client.crm.deals.basic_api.merge({"primaryObjectId": primary, "objectIdToMerge": other})
    assert merged.id == primary
    api = hub.client.crm.deals.basic_api
    asked = ["hs_merged_object_ids", "hs_next_step", "dealname", "num_associated_contacts"]
    assert api.get_by_id(other, properties=asked).id == primary
    values = hub.deal(primary, *asked)
    assert values["hs_merged_object_ids"] == other
    assert values["hs_next_step"] == "Call Ingrid", "the survivor takes what it had not"
    assert values["dealname"] == "Deal 0", "and keeps what it had"
    assert values["num_associated_contacts"] == "1"
    assert values["hs_lastmodifieddate"] == "2026-11-23T10:00:00Z"
    assert [deal.id for deal in api.get_page().results] == [primary]
    assert api.get_page(archived=True).results == []
    assert hub.client.crm.deals.search_api.do_search({"limit": 10}).total == 1
    both = hub.client.crm.deals.batch_api.read({"inputs": [{"id": primary}, {"id": other}], "properties": []})
    assert [deal.id for deal in both.results] == [primary]


def test_a_merge_may_make_a_new_record(hub: Served) -> None:
    primary, other = deals(hub, 2)
    hub.portal.merge_makes_new_record = True
    survivor = hub.portal.merge("deals", primary, other)
    assert survivor not in (primary, other)
    assert hub.deal(survivor, "hs_merged_object_ids")["hs_merged_object_ids"] == f"{primary};{other}"
    assert [deal.id for deal in hub.client.crm.deals.basic_api.get_page().results] == [survivor]
    third = hub.portal.create("deals", {"dealname": "Third"})
    last = hub.portal.merge("deals", survivor, third)
    assert hub.deal(last, "hs_merged_object_ids")["hs_merged_object_ids"].split(";") == [primary, other, survivor, third]
    assert hub.client.crm.deals.basic_api.get_by_id(primary).id == last


def test_merging_what_is_not_there(hub: Served) -> None:
    (deal,) = deals(hub, 1)
    assert hub.call("POST", "/crm/v3/objects/deals/merge", {"primaryObjectId": deal, "objectIdToMerge": deal})[0] == 400
    assert hub.call("POST", "/crm/v3/objects/deals/merge", {"primaryObjectId": deal, "objectIdToMerge": "5"})[0] == 404
    assert hub.call("POST", "/crm/v3/objects/deals/merge", {"primaryObjectId": deal})[0] == 400


def test_the_state_survives_in_a_file(tmp_path) -> None:
    from connectors.simulator.clock import SimClock
    from connectors.simulator.hubspot import HubSpotPortal

    first = HubSpotPortal(tmp_path / "portal.duckdb", SimClock(START))
    deal = first.create("deals", {"dealname": "Kept", "amount": "7"})
    stage = first.add_stage("default", "Verbal", 0.95)
    first.add_property("deals", "loss_kind", "enumeration", "select", "Loss kind", ["Price", "Timing"])
    first.update("deals", deal, {"dealstage": stage, "loss_kind": "Price"})
    first.close()
    with served(HubSpotPortal(tmp_path / "portal.duckdb", SimClock(START + timedelta(days=1)))) as hub:
        values = hub.deal(deal, "loss_kind", "dealstage", f"hs_v2_date_entered_{stage}")
        assert values["loss_kind"] == "Price"
        assert values["dealstage"] == stage
        assert values[f"hs_v2_date_entered_{stage}"]
        assert hub.portal.create("deals", {"dealname": "Next"}) > deal


def test_an_address_of_more_than_eight_kilobytes_is_refused_by_the_server_before_the_api(hub: Served) -> None:
    """As web servers do: no JSON body, and no call of the day is counted."""
    used = hub.portal.limits.used_today
    names = ",".join(f"property_{n:04d}" for n in range(700))
    with pytest.raises(ValueError, match="Expecting value"):
        hub.call("GET", "/crm/v3/objects/deals", query=(("properties", names),))
    assert hub.portal.limits.used_today == used
    assert hub.call("GET", "/crm/v3/objects/deals", query=(("properties", names[:7000]),))[0] == 200
