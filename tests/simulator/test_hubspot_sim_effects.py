"""What a write in the simulated HubSpot brings with it, and what happens without any write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from hubspot_sim_help import START, Served, instant, served

from connectors.simulator.hubspot import ApiError


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        yield one


@pytest.fixture
def deal(hub: Served) -> str:
    made = hub.portal.create("deals", {"dealname": "Hansa", "amount": "1000"}, user_id=9560100)
    hub.clock.advance(timedelta(days=1))
    return made


def stamp(hub: Served, deal: str) -> str | None:
    return hub.deal(deal)["hs_lastmodifieddate"]


def test_every_write_moves_the_stamp_ours_too(hub: Served, deal: str) -> None:
    first = stamp(hub, deal)
    hub.portal.update("deals", deal, {"hs_next_step": "Call Karin"}, user_id=9560100)
    second = stamp(hub, deal)
    hub.clock.advance(timedelta(hours=1))
    hub.client.crm.deals.basic_api.update(deal, {"properties": {"plumbline_score": "85"}})
    third = stamp(hub, deal)
    hub.clock.advance(timedelta(hours=1))
    hub.client.crm.deals.basic_api.update(deal, {"properties": {"plumbline_score": "85"}})
    fourth = stamp(hub, deal)
    assert instant(first) < instant(second) < instant(third) < instant(fourth), "the same value once more is a write as well"
    assert len(hub.history(deal, "plumbline_score")) == 1, "but no new version"


def test_history_tells_who_wrote_what_and_when(hub: Served, deal: str) -> None:
    hub.portal.update("deals", deal, {"amount": "1500"}, user_id=9560113)
    hub.clock.advance(timedelta(hours=1))
    hub.client.crm.deals.basic_api.update(deal, {"properties": {"amount": ""}})
    assert hub.history(deal, "amount") == [
        {"value": "", "timestamp": "2026-11-24T09:00:00Z", "sourceType": "INTEGRATION", "sourceId": "19460027"},
        {
            "value": "1500",
            "timestamp": "2026-11-24T08:00:00Z",
            "sourceType": "CRM_UI",
            "sourceId": "userId:9560113",
            "updatedByUserId": 9560113,
        },
        {
            "value": "1000",
            "timestamp": "2026-11-23T08:00:00Z",
            "sourceType": "CRM_UI",
            "sourceId": "userId:9560100",
            "updatedByUserId": 9560100,
        },
    ]
    assert hub.history(deal, "closed_lost_reason") == []


def test_a_read_keeps_twenty_versions(hub: Served, deal: str) -> None:
    for i in range(25):
        hub.portal.update("deals", deal, {"hs_next_step": f"Step {i}"})
    versions = hub.history(deal, "hs_next_step")
    assert [version["value"] for version in versions] == [f"Step {i}" for i in range(24, 4, -1)]


def test_a_stage_brings_its_probability_flags_and_times(hub: Served, deal: str) -> None:
    hub.portal.update("deals", deal, {"dealstage": "qualifiedtobuy"})
    hub.clock.advance(timedelta(days=2))
    hub.portal.update("deals", deal, {"dealstage": "appointmentscheduled"})
    hub.clock.advance(timedelta(days=3))
    hub.portal.update("deals", deal, {"dealstage": "qualifiedtobuy"})
    hub.clock.advance(timedelta(hours=6))
    asked = [
        *("hs_deal_stage_probability", "hs_is_closed", "hs_is_closed_won", "hs_v2_date_entered_current_stage"),
        *(f"hs_v2_{what}_{stage}" for stage in ("qualifiedtobuy", "appointmentscheduled", "closedwon")
          for what in ("date_entered", "date_exited", "latest_time_in", "cumulative_time_in")),
    ]  # fmt: skip
    values = hub.deal(deal, *asked)
    day = 86_400_000
    assert values["hs_deal_stage_probability"] == "0.4000000059604644775390625"
    assert values["hs_is_closed"] == "false"
    assert values["hs_v2_date_entered_current_stage"] == "2026-11-29T08:00:00Z"
    assert values["hs_v2_date_entered_qualifiedtobuy"] == "2026-11-29T08:00:00Z"
    assert values["hs_v2_date_exited_qualifiedtobuy"] is None, "it is there again"
    assert values["hs_v2_latest_time_in_qualifiedtobuy"] is None
    assert values["hs_v2_cumulative_time_in_qualifiedtobuy"] == str(2 * day)
    assert values["hs_v2_latest_time_in_appointmentscheduled"] == str(3 * day)
    assert values["hs_v2_cumulative_time_in_appointmentscheduled"] == str(4 * day)
    assert values["hs_v2_date_exited_appointmentscheduled"] == "2026-11-29T08:00:00Z"
    assert values["hs_v2_date_entered_closedwon"] is None
    assert [v["value"] for v in hub.history(deal, "dealstage")] == [
        *("qualifiedtobuy", "appointmentscheduled", "qualifiedtobuy", "appointmentscheduled"),
    ]


def test_closing_sets_the_close_date_unless_it_was_given(hub: Served, deal: str) -> None:
    hub.portal.update("deals", deal, {"dealstage": "closedwon"})
    flags = ("hs_is_closed", "hs_is_closed_won", "hs_is_closed_lost")
    values = hub.deal(deal, "closedate", *flags, "hs_closed_amount", "hs_deal_stage_probability")
    assert values["closedate"] == "2026-11-24T08:00:00Z"
    assert [values[flag] for flag in flags] == ["true", "true", "false"]
    assert values["hs_closed_amount"] == "1000"
    assert values["hs_deal_stage_probability"] == "1"
    hub.clock.advance(timedelta(days=1))
    hub.portal.update("deals", deal, {"dealstage": "closedlost"})
    assert hub.deal(deal)["closedate"] == "2026-11-24T08:00:00Z", "from closed to closed it stays"
    hub.portal.update("deals", deal, {"dealstage": "contractsent"})
    assert hub.deal(deal, "hs_closed_amount")["hs_closed_amount"] == "0"
    hub.portal.update("deals", deal, {"dealstage": "closedlost", "closedate": "2026-12-24"})
    assert hub.deal(deal)["closedate"] == "2026-12-24T00:00:00Z"


def test_a_stage_must_be_one_of_the_pipeline(hub: Served, deal: str) -> None:
    hub.portal.add_pipeline("748213905", "Expansion")
    stage = hub.portal.add_stage("748213905", "Workshop", 0.4)
    with pytest.raises(ApiError, match="INVALID_OPTION"):
        hub.portal.update("deals", deal, {"dealstage": stage})
    with pytest.raises(ApiError, match="INVALID_OPTION"):
        hub.portal.update("deals", deal, {"pipeline": "748213905"})
    hub.portal.update("deals", deal, {"pipeline": "748213905", "dealstage": stage})
    assert hub.deal(deal, "hs_deal_stage_probability")["hs_deal_stage_probability"] == "0.4000000059604644775390625"


def test_associations_count_contacts_and_move_no_stamp(hub: Served, deal: str) -> None:
    before = stamp(hub, deal)
    contacts = [hub.portal.create("contacts", {"email": f"{i}@example.com"}) for i in range(3)]
    for contact in contacts:
        hub.portal.associate("deals", deal, "contacts", contact)
    hub.portal.associate("contacts", contacts[0], "deals", deal, "Decision maker")
    hub.portal.dissociate("deals", deal, "contacts", contacts[1])
    assert hub.deal(deal, "num_associated_contacts")["num_associated_contacts"] == "2"
    hub.portal.archive("contacts", contacts[2])
    assert hub.deal(deal, "num_associated_contacts")["num_associated_contacts"] == "1"
    hub.portal.restore("contacts", contacts[2])
    assert hub.deal(deal, "num_associated_contacts")["num_associated_contacts"] == "2"
    assert stamp(hub, deal) == before


def test_calculated_values_change_without_a_trace(hub: Served, deal: str) -> None:
    hub.portal.set_exchange_rate("USD", 0.8)
    hub.portal.update("deals", deal, {"deal_currency_code": "USD", "dealstage": "qualifiedtobuy"})
    hub.portal.add_property("deals", "age_days", "number", "calculation_equation", "Age", calculated="date_diff('day', createdate, now)")
    before = stamp(hub, deal)
    asked = ("amount_in_home_currency", "weighted_amount", "age_days", "hs_projected_amount")
    values = hub.deal(deal, *asked)
    assert values["amount_in_home_currency"] == "800"
    assert values["weighted_amount"] == "320.000005"
    assert values["hs_projected_amount"] == "400.000006"
    assert values["age_days"] == "1"
    hub.clock.advance(timedelta(days=30))
    hub.portal.set_exchange_rate("USD", 0.75)
    hub.portal.change_formula("deals", "weighted_amount", "round(amount * 0.1)")
    values = hub.deal(deal, *asked)
    assert (values["amount_in_home_currency"], values["weighted_amount"], values["age_days"]) == ("750", "100", "31")
    assert stamp(hub, deal) == before
    assert hub.history(deal, "amount_in_home_currency") == []


def test_closed_deals_keep_the_rate_at_which_they_were_closed(hub: Served, deal: str) -> None:
    hub.portal.set_exchange_rate("USD", 0.8)
    hub.portal.update("deals", deal, {"deal_currency_code": "USD", "dealstage": "closedwon"})
    hub.clock.advance(timedelta(days=1))
    hub.portal.set_exchange_rate("USD", 0.75)
    assert hub.deal(deal, "amount_in_home_currency")["amount_in_home_currency"] == "800"
    hub.clock.advance(timedelta(days=1))
    hub.portal.update("deals", deal, {"dealstage": "qualifiedtobuy"})
    assert hub.deal(deal, "amount_in_home_currency")["amount_in_home_currency"] == "750", "open again, it follows"

    told = hub.call("GET", "/settings/v3/currencies/exchange-rates")[1]["results"]
    assert [(r["fromCurrencyCode"], r["toCurrencyCode"], r["conversionRate"]) for r in told] == [("USD", "EUR", 0.8), ("USD", "EUR", 0.75)]
    assert told[0]["effectiveAt"] < told[1]["effectiveAt"]


def test_activities_set_the_notes_and_move_the_stamp(hub: Served, deal: str) -> None:
    asked = ("notes_last_updated", "notes_last_contacted", "notes_next_activity_date", "num_notes", "hs_number_of_overdue_tasks")
    hub.portal.log_activity(deal, "call", START)
    hub.portal.log_activity(deal, "note")
    hub.portal.log_activity(deal, "meeting", START + timedelta(days=9))
    task = hub.portal.log_activity(deal, "task", START + timedelta(days=3), is_open=True)
    values = hub.deal(deal, *asked)
    assert values["notes_last_updated"] == "2026-11-24T08:00:00Z"
    assert values["notes_last_contacted"] == "2026-11-23T08:00:00Z"
    assert values["notes_next_activity_date"] == "2026-11-26T08:00:00Z"
    assert values["num_notes"] == "2"
    logged = stamp(hub, deal)
    assert logged == "2026-11-24T08:00:00Z"
    hub.clock.advance(timedelta(days=4))  # the task is overdue, the meeting is next: nobody wrote anything
    values = hub.deal(deal, *asked)
    assert values["notes_next_activity_date"] == "2026-12-02T08:00:00Z"
    assert values["hs_number_of_overdue_tasks"] == "1"
    assert stamp(hub, deal) == logged
    hub.portal.complete_activity(task)
    values = hub.deal(deal, *asked)
    assert values["notes_last_updated"] == "2026-11-28T08:00:00Z"
    assert values["hs_number_of_overdue_tasks"] == "0"
    assert stamp(hub, deal) == "2026-11-28T08:00:00Z"


def test_editing_a_stage(hub: Served, deal: str) -> None:
    before = stamp(hub, deal)
    hub.portal.rename_stage("default", "appointmentscheduled", "First meeting")
    assert stamp(hub, deal) == before, "a label is no property of a deal"
    hub.portal.change_stage("default", "appointmentscheduled", probability=0.1)
    assert stamp(hub, deal) == "2026-11-24T08:00:00Z", "a probability is"
    assert hub.deal(deal, "hs_deal_stage_probability")["hs_deal_stage_probability"] == "0.100000001490116119384765625"
    hub.portal.archive_stage("default", "appointmentscheduled")
    assert hub.deal(deal)["dealstage"] == "appointmentscheduled", "deals keep an archived stage"


def test_an_owner_leaves_and_the_deals_stay(hub: Served, deal: str) -> None:
    owner = hub.portal.add_owner("karin@example.com", "Karin", "Berg", team=("7", "DACH"))
    hub.portal.update("deals", deal, {"hubspot_owner_id": owner})
    hub.portal.deactivate_owner(owner)
    values = hub.deal(deal, "hubspot_owner_id", "hubspot_owner_assigneddate")
    assert values["hubspot_owner_id"] == owner
    assert values["hubspot_owner_assigneddate"] == "2026-11-24T08:00:00Z"


def test_a_person_cannot_write_what_hubspot_calculates(hub: Served, deal: str) -> None:
    with pytest.raises(ApiError, match="READ_ONLY_VALUE"):
        hub.portal.update("deals", deal, {"hs_is_closed": "true"})
    with pytest.raises(ApiError, match="not found"):
        hub.portal.update("deals", "123", {"amount": "1"})
