"""Associations v4 of the simulated HubSpot, and those that come with a listing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hubspot_sim_help import Served, served


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def deal(hub: Served) -> str:
    return hub.portal.create("deals", {"dealname": "Hansa"})


def company(hub: Served, name: str) -> str:
    return hub.portal.create("companies", {"name": name})


def contact(hub: Served, name: str) -> str:
    return hub.portal.create("contacts", {"email": f"{name}@example.com"})


def test_a_listing_brings_associations(hub: Served, deal: str) -> None:
    a, b, karin = company(hub, "A"), company(hub, "B"), contact(hub, "karin")
    for other in (a, b):
        hub.portal.associate("deals", deal, "companies", other)
    hub.portal.associate("deals", deal, "contacts", karin)
    alone = hub.portal.create("deals", {"dealname": "Alone"})
    _, page = hub.call("GET", "/crm/v3/objects/deals", query=(("associations", "contacts,companies"),))
    first, second = page["results"]
    assert first["associations"] == {
        "companies": {
            "results": [
                {"id": a, "type": "deal_to_company"},
                {"id": a, "type": "deal_to_company_unlabeled"},
                {"id": b, "type": "deal_to_company_unlabeled"},
            ]
        },
        "contacts": {"results": [{"id": karin, "type": "deal_to_contact"}]},
    }
    assert second["id"] == alone
    assert "associations" not in second
    typed = hub.client.crm.deals.basic_api.get_page(associations=["contacts"])
    assert [one.id for one in typed.results[0].associations["contacts"].results] == [karin]


def test_a_record_with_very_many_contacts_tells_that_there_are_more(hub: Served, deal: str) -> None:
    hub.portal.rows(
        """insert into association select 'deals', ?, 'contacts', 21500000000 + range, 'HUBSPOT_DEFINED', 3, false from range(101)""",
        [int(deal)],
    )
    _, page = hub.call("GET", "/crm/v3/objects/deals", query=(("associations", "contacts"),))
    contacts = page["results"][0]["associations"]["contacts"]
    assert len(contacts["results"]) == 100
    assert contacts["paging"]["next"]["after"] == "21500000100"
    _, whole = hub.call("POST", "/crm/v4/associations/deals/contacts/batch/read", {"inputs": [{"id": deal}]})
    assert len(whole["results"][0]["to"]) == 101


def test_the_first_company_is_primary_until_another_takes_it(hub: Served, deal: str) -> None:
    a, b = company(hub, "A"), company(hub, "B")
    hub.portal.associate("deals", deal, "companies", a)
    hub.portal.associate("companies", b, "deals", deal)
    assert hub.deal(deal, "hs_primary_associated_company")["hs_primary_associated_company"] == a
    api = hub.client.crm.associations.v4.basic_api
    api.create("deals", deal, "companies", b, [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 5}])
    assert hub.deal(deal, "hs_primary_associated_company")["hs_primary_associated_company"] == b
    labels = {
        str(one.to_object_id): [(spec.category, spec.type_id, spec.label) for spec in one.association_types]
        for one in api.get_page("deals", deal, "companies").results
    }
    assert labels == {
        a: [("HUBSPOT_DEFINED", 341, None)],
        b: [("HUBSPOT_DEFINED", 5, "Primary"), ("HUBSPOT_DEFINED", 341, None)],
    }
    back = api.get_page("companies", b, "deals").results[0]
    assert sorted(spec.type_id for spec in back.association_types) == [6, 342]


def test_batch_read_tells_who_has_none_in_a_207(hub: Served, deal: str) -> None:
    alone = hub.portal.create("deals", {"dealname": "Alone"})
    karin = contact(hub, "karin")
    hub.portal.associate("deals", deal, "contacts", karin, "Decision maker")
    inputs = [{"id": deal}, {"id": alone}, {"id": "5"}]
    status, body = hub.call("POST", "/crm/v4/associations/deals/contacts/batch/read", {"inputs": inputs})
    assert status == 207
    (found,) = body["results"]
    assert found["from"] == {"id": deal}
    (to,) = found["to"]
    assert to["toObjectId"] == int(karin)
    specs = {(spec["category"], spec["label"]) for spec in to["associationTypes"]}
    assert specs == {("USER_DEFINED", "Decision maker"), ("HUBSPOT_DEFINED", None)}
    assert body["numErrors"] == 2
    assert body["errors"][0] == {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": f"No contact is associated with deal {alone}.",
        "context": {"fromObjectId": [alone], "fromObjectType": ["deal"], "toObjectType": ["contact"]},
    }
    assert hub.call("POST", "/crm/v4/associations/deals/contacts/batch/read", {"inputs": [{"id": deal}]})[0] == 200
    many = {"inputs": [{"id": str(i)} for i in range(1001)]}
    assert hub.call("POST", "/crm/v4/associations/deals/contacts/batch/read", many)[0] == 400


def test_many_associations_are_paged(hub: Served, deal: str) -> None:
    people = [contact(hub, f"p{i}") for i in range(7)]
    for one in people:
        hub.portal.associate("deals", deal, "contacts", one)
    api = hub.client.crm.associations.v4.basic_api
    first = api.get_page("deals", deal, "contacts", limit=5)
    second = api.get_page("deals", deal, "contacts", limit=5, after=first.paging.next.after)
    assert [str(one.to_object_id) for one in [*first.results, *second.results]] == people
    assert second.paging is None


def test_batches_of_associations_by_the_api(hub: Served, deal: str) -> None:
    karin, ole = contact(hub, "karin"), contact(hub, "ole")
    api = hub.client.crm.associations.v4.batch_api
    made = hub.client.crm.associations.v4.schema.definitions_api.create(
        "deals", "contacts", {"label": "Sponsor", "name": "sponsor"}
    )
    type_id = made.results[0].type_id
    types = [{"associationCategory": "USER_DEFINED", "associationTypeId": type_id}]
    api.create("deals", "contacts", {"inputs": [{"types": types, "from": {"id": deal}, "to": {"id": karin}}]})
    hub.client.crm.associations.v4.basic_api.create_default("deals", deal, "contacts", ole)
    assert hub.deal(deal, "num_associated_contacts")["num_associated_contacts"] == "2"
    labels = hub.client.crm.associations.v4.schema.definitions_api.get_all("deals", "contacts").results
    assert ("USER_DEFINED", type_id, "Sponsor") in [(one.category, one.type_id, one.label) for one in labels]
    api.archive("deals", "contacts", {"inputs": [{"from": {"id": deal}, "to": [{"id": karin}]}]})
    remaining = hub.client.crm.associations.v4.basic_api.get_page("deals", deal, "contacts").results
    assert [str(one.to_object_id) for one in remaining] == [ole]
    unknown = {"inputs": [{"types": types, "from": {"id": deal}, "to": {"id": "1"}}]}
    assert hub.call("POST", "/crm/v4/associations/deals/contacts/batch/create", unknown)[0] == 404


def test_an_archived_deal_hides_its_associations(hub: Served, deal: str) -> None:
    karin = contact(hub, "karin")
    hub.portal.associate("deals", deal, "contacts", karin)
    hub.portal.archive("deals", deal)
    assert hub.client.crm.associations.v4.basic_api.get_page("contacts", karin, "deals").results == []
    hub.portal.restore("deals", deal)
    (back,) = hub.client.crm.associations.v4.basic_api.get_page("contacts", karin, "deals").results
    assert str(back.to_object_id) == deal


def test_a_merge_brings_both_contacts_and_one_primary_company(hub: Served, deal: str) -> None:
    other = hub.portal.create("deals", {"dealname": "Hansa again"})
    karin, ole, a, b = contact(hub, "karin"), contact(hub, "ole"), company(hub, "A"), company(hub, "B")
    for one, people, firm in ((deal, [karin], a), (other, [karin, ole], b)):
        hub.portal.associate("deals", one, "companies", firm)
        for person in people:
            hub.portal.associate("deals", one, "contacts", person)
    hub.portal.merge("deals", deal, other)
    values = hub.deal(deal, "num_associated_contacts", "hs_primary_associated_company")
    assert values["num_associated_contacts"] == "2"
    assert values["hs_primary_associated_company"] == a
    assert hub.portal.rows("select count(*) from association where from_id = $1 or to_id = $1", [int(other)]) == [(0,)]
    primary = hub.portal.rows(
        "select to_id from association where from_type = 'deals' and type_id = 5 and category = 'HUBSPOT_DEFINED'"
    )
    assert primary == [(int(a),)]
    for person in (karin, ole):
        (back,) = hub.client.crm.associations.v4.basic_api.get_page("contacts", person, "deals").results
        assert str(back.to_object_id) == deal
