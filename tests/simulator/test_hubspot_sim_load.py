"""The company in the simulated HubSpot is the company of the tables, deal by deal."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hubspot_sim_help import START, Served, instant, served

from connectors.simulator.clock import SimClock
from connectors.simulator.company import build_company
from connectors.simulator.hubspot import HubSpotPortal, load_company

BERLIN = ZoneInfo("Europe/Berlin")
HISTORY = "dealstage,amount,closedate,hubspot_owner_id,hs_next_step,dealname,pipeline"


@pytest.fixture(scope="module")
def company() -> Iterator[duckdb.DuckDBPyConnection]:
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    build_company(con, seed=7, deals=300, now=START, kind="hubspot")
    yield con
    con.close()


@pytest.fixture(scope="module")
def hub(company: duckdb.DuckDBPyConnection) -> Iterator[Served]:
    clock = SimClock(START)
    clock.freeze()
    portal = HubSpotPortal(None, clock)
    load_company(portal, company)
    with served(portal) as one:
        yield one


@pytest.fixture(scope="module")
def records(hub: Served) -> dict[str, dict]:
    """All deals as the API lists them, live and archived, with history and associations."""
    found: dict[str, dict] = {}
    wanted = "hs_merged_object_ids,hs_next_step,num_associated_contacts,notes_last_updated,notes_next_activity_date,hubspot_owner_id"
    wanted += ",hs_deal_stage_probability,hs_is_closed,hs_is_closed_won,hs_v2_date_entered_current_stage,deal_currency_code"
    wanted += ",amount_in_home_currency,closed_lost_reason,dealname,dealstage,pipeline,amount,closedate,hs_primary_associated_company"
    for archived in ("false", "true"):
        after = "0"
        while after:
            query = (
                *(("limit", "50"), ("after", after), ("archived", archived), ("properties", wanted)),
                *(("propertiesWithHistory", HISTORY), ("associations", "contacts,companies")),
            )
            status, page = hub.call("GET", "/crm/v3/objects/deals", query=query)
            assert status == 200, page
            found |= {record["id"]: record for record in page["results"]}
            after = page.get("paging", {}).get("next", {}).get("after")
    return found


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def truth(company: duckdb.DuckDBPyConnection, field: str) -> dict[int, str | None]:
    return dict(
        company.execute(
            "select deal_id, last(new order by seq) from company.deal_change where field = ? group by deal_id", [field]
        ).fetchall()
    )


def test_every_deal_is_there_once(hub: Served, company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    rows = company.execute("select deal_id, is_deleted, merged_into from company.deal").fetchall()
    live, archived, merged = set(), set(), {}
    for deal_id, is_deleted, merged_into in rows:
        record_id = str(hub.portal.object_id("deal", deal_id))
        if merged_into is not None:
            merged[record_id] = str(hub.portal.object_id("deal", merged_into))
        else:
            (archived if is_deleted else live).add(record_id)
    assert archived, "the company deletes some deals"
    assert merged, "and merges some"
    assert {one for one, record in records.items() if not record["archived"]} == live
    assert {one for one, record in records.items() if record["archived"]} == archived
    for loser, survivor in merged.items():
        assert loser in records[survivor]["properties"]["hs_merged_object_ids"].split(";")
        assert hub.client.crm.deals.basic_api.get_by_id(loser).id == survivor
    ordered = [row[0] for row in hub.portal.rows("select _id from object_deals order by _created_at, _id")]
    assert ordered == sorted(ordered), "ids rise with creation"


def test_values_are_the_last_of_the_changes(hub: Served, company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    stage, amount, owner, next_step = (truth(company, field) for field in ("stage", "amount", "owner", "next_step"))
    close_date = truth(company, "close_date")
    seen = 0
    for deal_id, pipeline, currency in company.execute("select deal_id, pipeline, currency from company.deal").fetchall():
        record = records.get(str(hub.portal.object_id("deal", deal_id)))
        if record is None:
            continue
        values = record["properties"]
        assert values["dealstage"] == stage[deal_id]
        assert values["pipeline"] == pipeline
        assert values["deal_currency_code"] == currency
        assert values["hs_next_step"] == next_step.get(deal_id)
        assert _decimal(values["amount"]) == _decimal(amount[deal_id])
        seller = owner[deal_id]
        assert values["hubspot_owner_id"] == (hub.portal.object_id("person", int(seller)) if seller else None)
        assert instant(values["closedate"]).astimezone(BERLIN).date().isoformat() == close_date[deal_id]
        assert instant(record["updatedAt"]) <= START
        seen += 1
    assert seen == len(records)


def test_close_dates_in_utc_may_be_the_day_before(hub: Served, company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    close_date = truth(company, "close_date")
    other_day = 0
    for deal_id, wanted in close_date.items():
        record = records.get(str(hub.portal.object_id("deal", deal_id)))
        other_day += record is not None and record["properties"]["closedate"][:10] != wanted
    assert 0 < other_day < len(records) / 3


def test_history_begins_with_creation_and_ends_with_the_value(records: dict[str, dict]) -> None:
    for record in records.values():
        for name, versions in record["propertiesWithHistory"].items():
            assert len(versions) <= 20
            stamps = [instant(version["timestamp"]) for version in versions]
            assert stamps == sorted(stamps, reverse=True)
            value = record["properties"][name]
            assert (versions[0]["value"] or None if versions else None) == value
            assert all(version["sourceType"] in ("CRM_UI", "INTEGRATION") for version in versions)
        for name in ("dealname", "pipeline", "dealstage"):
            first = record["propertiesWithHistory"][name][-1]
            if len(record["propertiesWithHistory"][name]) < 20:
                assert first["timestamp"] == record["createdAt"]
        stage = record["propertiesWithHistory"]["dealstage"][0]
        assert record["properties"]["hs_v2_date_entered_current_stage"] == stage["timestamp"]


def test_stages_agree_with_their_flags(hub: Served, company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    rows = company.execute("select pipeline, stage, is_closed, is_won, probability from company.stage").fetchall()
    stages = {row[:2]: row[2:] for row in rows}
    for record in records.values():
        values = record["properties"]
        is_closed, is_won, probability = stages[(values["pipeline"], values["dealstage"])]
        assert (values["hs_is_closed"], values["hs_is_closed_won"]) == (str(is_closed).lower(), str(is_won).lower())
        assert float(values["hs_deal_stage_probability"]) == pytest.approx(probability / 100)
    shown = hub.client.crm.pipelines.pipelines_api.get_all("deals").results
    assert {(pipeline.id, stage.id) for pipeline in shown for stage in pipeline.stages} == set(stages)


def test_associations_and_activities(hub: Served, company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    contacts: dict[int, set[int]] = {}
    for deal_id, contact_id in company.execute("select deal_id, contact_id from company.deal_contact").fetchall():
        contacts.setdefault(deal_id, set()).add(contact_id)
    last = dict(
        company.execute(
            """select deal_id, max(coalesce(start_at, completed_at)) from company.activity where status = 'completed' group by deal_id"""
        ).fetchall()
    )
    for deal_id, account_id in company.execute("select deal_id, account_id from company.deal").fetchall():
        record = records.get(str(hub.portal.object_id("deal", deal_id)))
        if record is None:
            continue
        values = record["properties"]
        assert values["num_associated_contacts"] == str(len(contacts.get(deal_id, ())))
        seen = values["notes_last_updated"]
        assert (instant(seen) if seen else None) == last.get(deal_id)
        if record["archived"]:
            continue
        listed = {entry["id"] for entry in record.get("associations", {}).get("contacts", {}).get("results", [])}
        assert listed == {str(hub.portal.object_id("contact", contact)) for contact in contacts.get(deal_id, ())}
        firm = hub.portal.object_id("account", account_id) if account_id else None
        assert values["hs_primary_associated_company"] == firm
        firms = record.get("associations", {}).get("companies", {}).get("results", [])
        assert [entry["id"] for entry in firms if entry["type"] == "deal_to_company"] == ([firm] if firm else [])


def test_people_who_left_are_archived_owners(hub: Served, company: duckdb.DuckDBPyConnection) -> None:
    people = company.execute("select person_id, is_active from company.person where kind <> 'integration'").fetchall()
    api = hub.client.crm.owners.owners_api
    for archived in (False, True):
        listed = {one.id for one in api.get_page(limit=500, archived=archived).results}
        assert listed == {hub.portal.object_id("person", person) for person, is_active in people if is_active is not archived}


def test_money_in_the_home_currency(company: duckdb.DuckDBPyConnection, records: dict[str, dict]) -> None:
    rates = dict(company.execute("select iso_code, rate::double from company.currency").fetchall())
    foreign = 0
    for record in records.values():
        values = record["properties"]
        if values["amount"]:
            wanted = float(values["amount"]) / rates[values["deal_currency_code"]]
            assert float(values["amount_in_home_currency"]) == pytest.approx(wanted, abs=1e-4)
            foreign += values["deal_currency_code"] != "EUR"
    assert foreign


def test_a_company_is_loaded_into_an_empty_portal_only(hub: Served, company: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(ValueError, match="has deals already"):
        load_company(hub.portal, company)


def test_life_goes_on_after_loading(hub: Served, records: dict[str, dict]) -> None:
    newest = max(records)
    made = hub.portal.create("deals", {"dealname": "New"})
    assert int(made) > int(newest)
    open_deal = next(one for one, r in records.items() if r["properties"]["hs_is_closed"] == "false" and not r["archived"])
    hub.portal.update("deals", open_deal, {"description": "Rewritten"})
    versions = hub.history(open_deal, "description")
    assert versions[0]["value"] == "Rewritten"
    assert versions[-1]["timestamp"] == records[open_deal]["createdAt"]
    owner = hub.portal.add_owner("new@example.com", "New", "Seller")
    hub.portal.update("deals", open_deal, {"hubspot_owner_id": owner})
    hub.portal.purge("deals", made)
