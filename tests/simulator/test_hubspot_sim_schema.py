"""What the simulated HubSpot tells of itself: properties, pipelines, owners, schemas, the account."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hubspot.crm.properties.exceptions import ApiException as PropertiesApiException
from hubspot_sim_help import Served, served


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        yield one


def test_properties_are_listed_but_the_times_in_stages(hub: Served) -> None:
    found = {prop.name: prop for prop in hub.client.crm.properties.core_api.get_all("deals").results}
    assert {"dealname", "amount", "closedate", "hs_next_step", "num_associated_contacts", "plumbline_status"} <= set(found)
    assert not [name for name in found if name.startswith("hs_v2_")]
    deal = hub.portal.create("deals", {"dealname": "A"})
    asked = "hs_v2_date_entered_appointmentscheduled"
    assert hub.deal(deal, asked)[asked] == "2026-11-23T08:00:00Z", "who asks by name is given them"
    assert found["amount"].calculated is False
    assert found["amount_in_home_currency"].calculated is True
    assert found["weighted_amount"].calculated is True
    assert found["weighted_amount"].modification_metadata.read_only_value is True
    assert [option.value for option in found["plumbline_status"].options] == ["clean", "needs_attention", "at_risk"]
    assert found["plumbline_flagged_since"].type == "date"
    assert found["hs_object_id"].hubspot_defined is True


def test_a_property_is_renamed_and_deleted_without_a_trace_on_the_deals(hub: Served) -> None:
    hub.portal.add_property("deals", "region", "string", "text", "Region")
    deal = hub.portal.create("deals", {"dealname": "A", "region": "North"})
    before = hub.deal(deal, "hs_lastmodifieddate")
    hub.clock.advance(timedelta(seconds=60))
    hub.portal.rename_property("deals", "region", "Sales region")
    listed = {prop.name: prop.label for prop in hub.client.crm.properties.core_api.get_all("deals").results}
    assert listed["region"] == "Sales region"
    hub.portal.remove_property("deals", "region")
    assert "region" not in {prop.name for prop in hub.client.crm.properties.core_api.get_all("deals").results}
    assert "region" not in hub.deal(deal, "region"), "who asks for it by name gets nothing"
    assert hub.deal(deal, "hs_lastmodifieddate") == before
    hub.portal.add_property("deals", "region", "string", "text", "Region")
    assert hub.deal(deal, "region")["region"] is None, "a new one of the same name begins empty"
    with pytest.raises(ValueError, match="HubSpot's own"):
        hub.portal.remove_property("deals", "amount")


def test_properties_are_made_once(hub: Served) -> None:
    api = hub.client.crm.properties
    api.groups_api.create("deals", {"name": "hygiene", "label": "Hygiene"})
    given = {"name": "hygiene_note", "label": "Note", "type": "string", "fieldType": "textarea", "groupName": "hygiene"}
    made = api.core_api.create("deals", given)
    assert made.group_name == "hygiene"
    with pytest.raises(PropertiesApiException) as refused:
        api.core_api.create("deals", given)
    assert refused.value.status == 409
    other = {"name": "hygiene_when", "label": "When", "type": "datetime", "fieldType": "date", "groupName": "hygiene"}
    batch = api.batch_api.create("deals", {"inputs": [given, other]})
    assert [prop.name for prop in batch.results] == ["hygiene_when"]
    assert batch.num_errors == 1
    deal = hub.portal.create("deals", {"dealname": "A"})
    hub.client.crm.deals.basic_api.update(deal, {"properties": {"hygiene_note": "fine", "hygiene_when": "1764201600123"}})
    values = hub.deal(deal, "hygiene_note", "hygiene_when")
    assert values["hygiene_note"] == "fine"
    assert values["hygiene_when"] == "2025-11-27T00:00:00.123Z"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Bad Name"},
        {"name": "hs_mine"},
        {"type": "number", "fieldType": "textarea"},
        {"groupName": "nowhere"},
        {"label": ""},
    ],
    ids=str,
)
def test_properties_that_cannot_be(hub: Served, wrong: dict[str, str]) -> None:
    given = {"name": "mine", "label": "Mine", "type": "string", "fieldType": "text", "groupName": "dealinformation"} | wrong
    status, body = hub.call("POST", "/crm/v3/properties/deals", given)
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")


def test_pipelines_hold_their_stages_with_text_metadata(hub: Served) -> None:
    stage = hub.portal.add_stage("default", "Verbal", 0.95, False, 5)
    hub.portal.archive_stage("default", "presentationscheduled")
    (pipeline,) = hub.client.crm.pipelines.pipelines_api.get_all("deals").results
    assert (pipeline.id, pipeline.label) == ("default", "Sales Pipeline")
    shown = sorted(pipeline.stages, key=lambda one: one.display_order)
    assert [one.id for one in shown] == [
        *("appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "decisionmakerboughtin", "contractsent"),
        *(stage, "closedwon", "closedlost"),
    ]
    by_id = {one.id: one for one in shown}
    assert by_id[stage].metadata == {"isClosed": "false", "probability": "0.95"}
    assert by_id["closedwon"].metadata == {"isClosed": "true", "probability": "1.0"}
    assert by_id["presentationscheduled"].archived is True
    assert stage.isdigit()
    one = hub.client.crm.pipelines.pipeline_stages_api.get_by_id("deals", "default", stage)
    assert one.label == "Verbal"
    assert hub.call("GET", "/crm/v3/pipelines/deals/nowhere")[0] == 404


def test_owners_who_left_are_on_a_page_of_their_own(hub: Served) -> None:
    owners = [hub.portal.add_owner(f"{i}@example.com", "Ann", f"Number {i}", team=("7", "DACH")) for i in range(5)]
    hub.portal.deactivate_owner(owners[2])
    api = hub.client.crm.owners.owners_api
    first = api.get_page(limit=3)
    second = api.get_page(limit=3, after=first.paging.next.after)
    assert [one.id for one in [*first.results, *second.results]] == [owners[0], owners[1], owners[3], owners[4]]
    assert second.paging is None
    assert first.results[0].teams[0].name == "DACH"
    assert first.results[0].user_id != int(owners[0])
    (gone,) = api.get_page(archived=True).results
    assert (gone.id, gone.archived, gone.user_id) == (owners[2], True, None)
    assert gone.user_id_including_inactive
    assert api.get_by_id(gone.user_id_including_inactive, id_property="userId", archived=True).id == owners[2]
    assert api.get_page(email="3@example.com").results[0].id == owners[3]


def test_custom_objects_have_schemas(hub: Served) -> None:
    (schema,) = hub.client.crm.schemas.core_api.get_all().results
    assert schema.name == "plumbline_snapshot"
    assert schema.object_type_id.startswith("2-")
    key = next(prop for prop in schema.properties if prop.name == "snapshot_key")
    assert key.has_unique_value is True
    made = hub.client.crm.schemas.core_api.create(
        {
            "name": "machine",
            "labels": {"singular": "Machine", "plural": "Machines"},
            "primaryDisplayProperty": "serial",
            "requiredProperties": ["serial"],
            "searchableProperties": ["serial"],
            "associatedObjects": ["DEAL"],
            "properties": [{"name": "serial", "label": "Serial", "type": "string", "fieldType": "text", "hasUniqueValue": True}],
        }
    )
    assert made.fully_qualified_name == f"p{hub.portal.portal_id}_machine"
    one = hub.client.crm.objects.basic_api.create(made.object_type_id, {"properties": {"serial": "X-1"}})
    assert hub.client.crm.objects.basic_api.get_by_id("machine", "X-1", id_property="serial").id == one.id
    assert set(one.properties) >= {"serial", "hs_createdate", "hs_lastmodifieddate", "hs_object_id"}
    status, body = hub.call("POST", "/crm/v3/objects/machine", {"properties": {}})
    assert (status, body["context"]) == (400, {"properties": ["serial"]})
    assert hub.call("POST", "/crm-object-schemas/v3/schemas", {"name": "machine", "labels": {"singular": "M"}, "properties": [1]})[0] == 409


def test_the_account_tells_its_zone_and_currency(hub: Served) -> None:
    hub.portal.set_exchange_rate("USD", 0.9)
    details = hub.client.api_request({"path": "/account-info/v3/details"}).json()
    assert details["timeZone"] == "Europe/Berlin"
    assert details["companyCurrency"] == "EUR"
    assert details["additionalCurrencies"] == ["USD"]
    assert details["utcOffset"] == "+01:00"
    assert details["uiDomain"]
    assert isinstance(details["portalId"], int)


def test_an_unknown_object_type(hub: Served) -> None:
    for path in ("/crm/v3/objects/dragons", "/crm/v3/properties/dragons", "/crm/v3/pipelines/dragons"):
        status, body = hub.call("GET", path)
        assert (status, body["message"]) == (400, "Unable to infer object type from: dragons")
