"""The live deals as the simulated portal lists them, and single deals read again, wherever they are by now."""

from datetime import UTC, datetime

import pytest
from hubspot_landing import lines, manifest

from connectors import hubspot
from connectors.errors import CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.hubspot import client as client_module
from connectors.hubspot.settings import HubSpotSettings
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.hubspot import HubSpotPortal

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def portal():
    portal = HubSpotPortal(None, SimClock(NOW), Faults())
    portal.limits.lift()
    server = serve(portal.app())
    settings = HubSpotSettings(name="inbound", crm="hubspot", base_url=server.url, access_token="demo-token")
    yield portal, settings
    server.stop()
    portal.close()


@pytest.fixture(scope="module")
def deals(portal):
    """Live ones, one of them with a past and a contact; one archived, one purged, one merged into another."""
    made = {name: portal[0].create("deals", {"dealname": name, "amount": "10", "dealstage": "qualifiedtobuy"})
            for name in ("plain", "told", "archived", "purged", "survivor", "loser")}  # fmt: skip
    person = portal[0].create("contacts", {"lastname": "Berg"})
    portal[0].associate("deals", made["told"], "contacts", person)
    portal[0].update("deals", made["told"], {"amount": "12.50"})
    portal[0].archive("deals", made["archived"])
    portal[0].purge("deals", made["purged"])
    portal[0].merge("deals", made["survivor"], made["loser"])
    return made


def test_a_sweep_lists_what_is_live_in_few_properties(portal, deals, tmp_path):
    pulled = hubspot.sweep(portal[1], run_id="r1", landing=tmp_path)
    directory = tmp_path / "inbound" / "r1"
    found = {line["id"]: line["properties"] for line in lines(directory, "deals.ids")}
    assert found.keys() == {deals["plain"], deals["told"], deals["survivor"]}
    assert found[deals["told"]]["amount"] == "12.50"
    assert all({"dealstage", "pipeline", "hs_lastmodifieddate"} <= told.keys() for told in found.values())
    assert (pulled.calls, pulled.objects, manifest(directory, "deals.ids")["complete"]) == (1, ["deals.ids"], True)


def test_deals_are_read_by_their_ids_wherever_they_are_by_now(portal, deals, tmp_path):
    ids = tmp_path / "ids"
    ids.write_text("\n".join([*deals.values(), "77", "no-id"]), encoding="utf-8")
    pulled = hubspot.fetch(portal[1], run_id="r1", landing=tmp_path, ids=ids)
    directory = tmp_path / "inbound" / "r1"
    found = {line["id"]: line for line in lines(directory, "deals")}
    assert found.keys() == {deals["plain"], deals["told"], deals["survivor"]}
    assert found[deals["told"]]["properties"]["dealname"] == "told"
    assert {line["id"] for line in lines(directory, "deals.archived")} == {deals["archived"]}
    assert {line["id"] for line in lines(directory, "deals.gone")} == {deals["purged"], deals["loser"], "77", "no-id"}
    past = {line["id"]: line["propertiesWithHistory"] for line in lines(directory, "deals.history")}
    assert [entry["value"] for entry in past[deals["told"]]["amount"]] == ["12.50", "10"]
    links = {line["id"]: line["contacts"] for line in lines(directory, "deals.associations")}
    assert links.keys() == found.keys()
    assert len(links[deals["told"]]) == 1
    assert {manifest(directory, obj)["watermark"] for obj in pulled.objects} == {None}


def test_a_portal_that_fails_leaves_no_pull_behind(portal, deals, tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "POLICY", RetryPolicy(tries=2, sleep=lambda seconds: None))
    portal[0].faults.arm("status", status=502, times=9, path="/crm/v3/objects/deals")
    try:
        with pytest.raises(CrmUnavailableError):
            hubspot.sweep(portal[1], run_id="r1", landing=tmp_path)
    finally:
        portal[0].faults.clear()
    assert not (tmp_path / "inbound" / "r1" / "pull.json").exists()
