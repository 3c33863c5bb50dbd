"""Search of the simulated HubSpot: operators, sorting, paging, its 10,000 cap and its lag."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hubspot.crm.deals.exceptions import ApiException
from hubspot_sim_help import START, Served, served


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        one.portal.create("deals", {"dealname": "Hansa roll-out", "amount": "900", "plumbline_status": "clean"})
        one.clock.advance(timedelta(hours=1))
        one.portal.create("deals", {"dealname": "Gotthard Insight (pilot)", "amount": "10000", "plumbline_flagged_since": "2026-11-02"})
        one.clock.advance(timedelta(hours=1))
        one.portal.create("deals", {"dealname": "Møre Windworks", "amount": None, "dealstage": "closedwon", "closedate": "2026-11-30"})
        yield one


def names(hub: Served, *filters: dict[str, Any], **more: Any) -> list[str]:
    body = {"filterGroups": [{"filters": list(filters)}], "properties": ["dealname"], "limit": 50} | more
    answer = hub.client.crm.deals.search_api.do_search(body)
    assert answer.total == len(answer.results)
    return [deal.properties["dealname"].split()[0] for deal in answer.results]


HANSA, GOTTHARD, MORE = "Hansa", "Gotthard", "Møre"


@pytest.mark.parametrize(
    ("one", "found"),
    [
        ({"propertyName": "amount", "operator": "EQ", "value": "900"}, [HANSA]),
        ({"propertyName": "amount", "operator": "NEQ", "value": "900"}, [GOTTHARD]),
        ({"propertyName": "amount", "operator": "LT", "value": "9001"}, [HANSA]),  # as numbers: "10000" < "9001" as text
        ({"propertyName": "amount", "operator": "LTE", "value": "900"}, [HANSA]),
        ({"propertyName": "amount", "operator": "GT", "value": "900"}, [GOTTHARD]),
        ({"propertyName": "amount", "operator": "GTE", "value": "900"}, [HANSA, GOTTHARD]),
        ({"propertyName": "amount", "operator": "BETWEEN", "value": "800", "highValue": "900"}, [HANSA]),
        ({"propertyName": "amount", "operator": "HAS_PROPERTY"}, [HANSA, GOTTHARD]),
        ({"propertyName": "amount", "operator": "NOT_HAS_PROPERTY"}, [MORE]),
        ({"propertyName": "dealstage", "operator": "IN", "values": ["closedwon", "closedlost"]}, [MORE]),
        ({"propertyName": "dealstage", "operator": "NOT_IN", "values": ["closedwon", "closedlost"]}, [HANSA, GOTTHARD]),
        ({"propertyName": "dealname", "operator": "CONTAINS_TOKEN", "value": "insight"}, [GOTTHARD]),
        ({"propertyName": "dealname", "operator": "CONTAINS_TOKEN", "value": "roll"}, [HANSA]),
        ({"propertyName": "dealname", "operator": "CONTAINS_TOKEN", "value": "wind"}, []),
        ({"propertyName": "dealname", "operator": "CONTAINS_TOKEN", "value": "wind*"}, [MORE]),
        ({"propertyName": "dealname", "operator": "NOT_CONTAINS_TOKEN", "value": "møre"}, [HANSA, GOTTHARD]),
        ({"propertyName": "dealname", "operator": "EQ", "value": "hansa ROLL-out"}, [HANSA]),
        ({"propertyName": "dealname", "operator": "IN", "values": ["hansa roll-out"]}, [HANSA]),
        ({"propertyName": "dealname", "operator": "IN", "values": ["Hansa roll-out"]}, []),  # values must be lower case
        ({"propertyName": "hs_is_closed_won", "operator": "EQ", "value": "true"}, [MORE]),
        ({"propertyName": "plumbline_flagged_since", "operator": "LTE", "value": "2026-11-02"}, [GOTTHARD]),
        ({"propertyName": "hs_projected_amount", "operator": "GT", "value": "1000"}, [GOTTHARD]),  # calculated
        ({"propertyName": "closedate", "operator": "LT", "value": "2026-11-30T00:00:00.001Z"}, [MORE]),
    ],
    ids=lambda value: f"{value['operator']} {value['propertyName']}" if isinstance(value, dict) else None,
)
def test_operators(hub: Served, one: dict[str, Any], found: list[str]) -> None:
    assert names(hub, one) == found


def test_stamps_compare_in_milliseconds_and_inclusively(hub: Served) -> None:
    moment = START + timedelta(hours=1)
    for value in (str(int(moment.timestamp() * 1000)), "2026-11-23T09:00:00Z"):
        assert names(hub, {"propertyName": "hs_lastmodifieddate", "operator": "GTE", "value": value}) == [GOTTHARD, MORE]
        assert names(hub, {"propertyName": "hs_lastmodifieddate", "operator": "GT", "value": value}) == [MORE]


def test_filters_of_a_group_are_joined_by_and_groups_by_or(hub: Served) -> None:
    answer = hub.client.crm.deals.search_api.do_search(
        {
            "filterGroups": [
                {
                    "filters": [
                        {"propertyName": "amount", "operator": "GT", "value": "100"},
                        {"propertyName": "amount", "operator": "LT", "value": "1000"},
                    ]
                },
                {"filters": [{"propertyName": "dealstage", "operator": "EQ", "value": "closedwon"}]},
            ]
        }
    )
    assert [deal.properties["dealname"].split()[0] for deal in answer.results] == [HANSA, MORE]


def test_sorting_by_value_and_free_text(hub: Served) -> None:
    by_amount = {"sorts": [{"propertyName": "amount", "direction": "DESCENDING"}]}
    assert names(hub, **by_amount) == [GOTTHARD, HANSA, MORE]
    assert names(hub, sorts=["-hs_object_id"]) == [MORE, GOTTHARD, HANSA]
    assert names(hub, query="windworks") == [MORE]


def test_keyset_paging_over_ids(hub: Served) -> None:
    for i in range(7):
        hub.portal.create("deals", {"dealname": f"More {i}"})
    last, seen = "0", []
    while True:
        body = {
            "filterGroups": [
                {
                    "filters": [
                        {"propertyName": "hs_lastmodifieddate", "operator": "GTE", "value": "0"},
                        {"propertyName": "hs_object_id", "operator": "GT", "value": last},
                    ]
                }
            ],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "limit": 4,
        }
        _, page = hub.call("POST", "/crm/v3/objects/deals/search", body)
        if not page["results"]:
            break
        seen += [deal["id"] for deal in page["results"]]
        last = seen[-1]
    assert len(seen) == 10
    assert seen == sorted(seen)


def test_after_pages_through_a_query(hub: Served) -> None:
    status, page = hub.call("POST", "/crm/v3/objects/deals/search", {"limit": 2})
    assert (status, page["total"], page["paging"]) == (200, 3, {"next": {"after": "2"}})
    status, page = hub.call("POST", "/crm/v3/objects/deals/search", {"limit": 2, "after": "2"})
    assert len(page["results"]) == 1
    assert "paging" not in page


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 201},
        {"limit": 200, "after": "9801"},
        {"after": "10000", "limit": 1},
        {"filterGroups": [{"filters": []}] * 6},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "HAS_PROPERTY"}] * 11}]},
        {"filterGroups": [{"filters": [{"propertyName": "no_such", "operator": "EQ", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "LIKE", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "EQ"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "BETWEEN", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "IN", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "amount", "operator": "EQ", "value": "much"}]}]},
        {"sorts": [{"propertyName": "amount"}, {"propertyName": "dealname"}]},
        {"sorts": [{"propertyName": "no_such"}]},
    ],
    ids=str,
)
def test_what_search_refuses(hub: Served, body: dict[str, Any]) -> None:
    status, answer = hub.call("POST", "/crm/v3/objects/deals/search", body)
    assert (status, answer["category"]) == (400, "VALIDATION_ERROR")


def test_ten_thousand_results_can_be_reached_and_no_more(hub: Served) -> None:
    hub.portal.rows(
        """insert into object_deals (_id, _created_at, _updated_at, dealname)
           select 9900000000 + range, timestamptz '2026-01-01', timestamptz '2026-01-01', 'Bulk' from range(10050)"""
    )
    search = hub.client.crm.deals.search_api
    last = search.do_search({"limit": 200, "after": "9800"})
    assert last.total == 10_053
    assert len(last.results) == 200
    assert last.paging.next.after == "10000", "HubSpot offers a page that it will not give"
    with pytest.raises(ApiException) as refused:
        search.do_search({"limit": 200, "after": last.paging.next.after})
    assert refused.value.status == 400


def test_archived_deals_are_never_found(hub: Served) -> None:
    deal = hub.client.crm.deals.search_api.do_search({"limit": 1}).results[0].id
    hub.portal.archive("deals", deal)
    assert names(hub) == [GOTTHARD, MORE]


def test_the_index_trails_what_was_written(hub: Served) -> None:
    hub.portal.index_lag = 30
    first, second, _ = [deal.id for deal in hub.client.crm.deals.search_api.do_search({"limit": 10}).results]
    hub.portal.update("deals", first, {"dealname": "Renamed"})
    hub.portal.create("deals", {"dealname": "Newborn"})
    hub.portal.archive("deals", second)
    assert names(hub) == [HANSA, GOTTHARD, MORE]
    assert hub.deal(first)["dealname"] == "Renamed", "reads are up to date"
    assert len(hub.client.crm.deals.basic_api.get_page().results) == 3
    hub.clock.advance(timedelta(seconds=29))
    hub.portal.update("deals", first, {"dealname": "Twice"})
    assert names(hub) == [HANSA, GOTTHARD, MORE]
    hub.clock.advance(timedelta(seconds=1))
    assert names(hub) == ["Renamed", MORE, "Newborn"]
    hub.clock.advance(timedelta(seconds=30))
    assert names(hub) == ["Twice", MORE, "Newborn"]


def test_a_late_commit_is_stamped_before_it_is_seen(hub: Served) -> None:
    deal = hub.client.crm.deals.search_api.do_search({"limit": 1}).results[0].id
    before = hub.deal(deal)
    hub.faults.arm("late_commit", seconds=300, times=2)
    hub.portal.update("deals", deal, {"hs_next_step": "Late"})
    made = hub.portal.create("deals", {"dealname": "Unseen"})
    stamp = hub.clock.now()
    hub.clock.advance(timedelta(seconds=299))
    assert hub.deal(deal, "hs_next_step")["hs_next_step"] is None
    assert hub.deal(deal) == before
    assert hub.history(deal, "hs_next_step") == []
    assert hub.call("GET", f"/crm/v3/objects/deals/{made}")[0] == 404
    assert len(hub.client.crm.deals.basic_api.get_page().results) == 3
    assert names(hub) == [HANSA, GOTTHARD, MORE]
    hub.clock.advance(timedelta(seconds=1))
    assert hub.deal(deal, "hs_next_step")["hs_next_step"] == "Late"
    assert hub.client.crm.deals.basic_api.get_by_id(made).updated_at == stamp
    assert hub.history(deal, "hs_next_step")[0]["value"] == "Late"
    assert names(hub) == [HANSA, GOTTHARD, MORE, "Unseen"]


def test_deals_of_a_contact(hub: Served) -> None:
    deal = hub.client.crm.deals.search_api.do_search({"limit": 1}).results[0].id
    contact = hub.portal.create("contacts", {"email": "a@example.com"})
    hub.portal.associate("deals", deal, "contacts", contact)
    assert names(hub, {"propertyName": "associations.contact", "operator": "EQ", "value": contact}) == [HANSA]


def test_a_late_write_by_the_api_is_answered_at_once_and_seen_later(hub: Served) -> None:
    deal = hub.client.crm.deals.search_api.do_search({"limit": 1}).results[0].id
    hub.faults.arm("late_commit", seconds=60, method="POST", path="batch/update")
    answer = hub.client.crm.deals.batch_api.update({"inputs": [{"id": deal, "properties": {"plumbline_score": "5"}}]})
    assert answer.results[0].properties["plumbline_score"] == "5"
    assert hub.deal(deal, "plumbline_score")["plumbline_score"] is None
    hub.clock.advance(timedelta(seconds=61))
    assert hub.deal(deal, "plumbline_score")["plumbline_score"] == "5"
