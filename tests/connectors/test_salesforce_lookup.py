"""The live deals as the simulated org lists them, and single deals read again: in one query or in many, by REST or by Bulk."""

import csv
import json
from datetime import UTC, datetime

import pytest

from connectors.errors import CrmPermissionError
from connectors.http import RetryPolicy
from connectors.salesforce import lookup
from connectors.salesforce.client import Client
from connectors.salesforce.settings import SalesforceSettings
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DEALS = 90
POLICY = RetryPolicy(base=0.01, cap=0.02, sleep=lambda seconds: None)
ODD = 'Łódź "north",\n{"Id":"006x"}'


@pytest.fixture(scope="module")
def world():
    clock = SimClock(NOW)
    org = SalesforceOrg(None, clock, Faults())
    accounts = [org.create("Account", {"Name": name}) for name in ("Acme", "Borg")]
    contact = org.create("Contact", {"LastName": "Berg", "AccountId": accounts[0]})
    rows = [
        {"Name": f"Deal {n} {ODD}", "AccountId": accounts[n % 2], "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": n + 0.25}
        for n in range(DEALS)
    ]
    ids = [outcome.id for outcome in org.create_many("Opportunity", rows)]
    org.create_many("OpportunityContactRole", [{"OpportunityId": id_, "ContactId": contact} for id_ in ids[:4]])
    org.create_many("Task", [{"WhatId": what, "Subject": "Call", "ActivityDate": "2026-11-25"} for what in (*ids[:3], accounts[0])])
    org.delete("Opportunity", ids[80])
    for id_ in ids[81:83]:
        org.delete("Opportunity", id_)
        org.hard_delete("Opportunity", id_)
    server = serve(org.app())
    yield org, server.url, ids
    server.stop()
    org.close()


@pytest.fixture
def looked(world, tmp_path):
    """Run sweep or fetch; gives the landed pull."""

    def run(what, ids=None, **more):
        keys = {"name": "sales", "crm": "salesforce", "instance_url": world[1], "client_id": "plumbline-demo", "client_secret": "demo-secret"}
        settings = SalesforceSettings(**{**keys, **more})
        given = {}
        if ids is not None:
            given["ids"] = tmp_path / "ids"
            given["ids"].write_text("\n".join(ids), encoding="utf-8")
        pull = what(settings, run_id="r1", landing=tmp_path, client=Client(settings, POLICY), **given)
        return Landed(tmp_path / "sales" / "r1", pull)

    return run


class Landed:
    def __init__(self, directory, pull):
        self.directory, self.pull = directory, pull
        assert json.loads((directory / "pull.json").read_text())["objects"] == pull.objects

    def manifest(self, obj):
        return json.loads((self.directory / obj / "manifest.json").read_text())

    def rows(self, obj, key="Id"):
        found = []
        for file in self.manifest(obj)["files"]:
            text = (self.directory / obj / file["name"]).read_text(encoding="utf-8")
            part = list(csv.DictReader(text.splitlines(keepends=True))) if file["format"] == "csv" else json.loads(text)
            assert len(part) == file["rows"]
            found += part
        assert len({row[key] for row in found}) == len(found) or obj == "Account"  # deals of several queries may have one account
        return {row[key]: row for row in found}


@pytest.mark.parametrize("api", ["rest", "bulk"])
def test_a_sweep_lists_what_is_live_in_few_columns(world, looked, api):
    listed = looked(lookup.sweep, api=api)
    deals, manifest = listed.rows("Opportunity.ids"), listed.manifest("Opportunity.ids")
    assert deals.keys() == {*world[2][:80], *world[2][83:]}
    assert {f["name"] for f in manifest["fields"]} == {"Id", "SystemModstamp", "StageName", "Amount", "CurrencyIsoCode", "RecordTypeId", "IsClosed"}
    assert (manifest["mode"], manifest["complete"], manifest["watermark"]) == ("full", True, None)
    assert float(deals[world[2][3]]["Amount"]) == 3.25
    assert api == "bulk" or listed.pull.calls == 2


@pytest.mark.parametrize("way", ["one query", "many queries", "a job", "a job refused"])
def test_deals_are_read_by_their_ids_with_what_belongs_to_them(world, looked, monkeypatch, way):
    org, _, ids = world
    if way == "many queries":
        monkeypatch.setattr(lookup, "FEWEST", 1)
        monkeypatch.setattr(lookup, "IN_URL", 1000)
        monkeypatch.setattr(lookup, "BULK_CALLS", 1000)
    elif way != "one query":
        monkeypatch.setattr(lookup, "BULK_CALLS", 0)
        monkeypatch.setattr(lookup, "IN_QUERY", 5000)
        org.bulk_enabled = way == "a job"
    strange = ["' OR Name != '", "0060000000zzzzzAAA", "x"]
    asked = [*ids[2:40], ids[80], ids[81], *strange]
    try:
        found = looked(lookup.fetch, asked)
    finally:
        org.bulk_enabled = True
    deals, manifest = found.rows("Opportunity"), found.manifest("Opportunity")
    assert deals.keys() == {*ids[2:40], ids[80]}
    assert {str(deals[id_]["IsDeleted"]).lower() for id_ in ids[2:40]} == {"false"}
    assert str(deals[ids[80]]["IsDeleted"]).lower() == "true"
    assert deals[ids[5]]["Name"] == f"Deal 5 {ODD}"
    assert found.rows("Opportunity.gone", "id").keys() == {ids[81], "0060000000zzzzzAAA", "x", *strange[0].split()}
    assert {row["OpportunityId"] for row in found.rows("OpportunityContactRole").values()} == {ids[2], ids[3]}
    assert {row["WhatId"] for row in found.rows("Task").values()} == {ids[2]}
    assert {row["OpportunityId"] for row in found.rows("OpportunityHistory").values()} == set(deals)
    assert {row["Name"] for row in found.rows("Account").values()} == {"Acme", "Borg"}
    assert (manifest["mode"], manifest["complete"], manifest["watermark"]) == ("incremental", False, None)
    several = {file["name"].split("/")[0] for file in manifest["files"]}
    assert (len(several) > 1) is (way in ("many queries", "a job"))
    assert {file["format"] for file in manifest["files"]} == {"csv" if way == "a job" else "json_array"}


def test_a_list_of_fields_too_long_for_an_address_goes_by_job(world, looked, monkeypatch):
    monkeypatch.setattr(lookup, "URL_LIMIT", 600)
    found = looked(lookup.fetch, world[2][:2])
    assert found.rows("Opportunity")[world[2][1]]["Name"] == f"Deal 1 {ODD}"
    assert {file["format"] for file in found.manifest("Opportunity")["files"]} == {"csv"}


def test_what_may_not_be_read_beside_deals_is_left_out_and_deals_are_the_end(world, looked, tmp_path):
    org, _, ids = world
    org.hide_object("Task")
    try:
        found = looked(lookup.fetch, ids[:2])
    finally:
        org.hide_object("Task", hidden=False)
    assert "Task" not in found.pull.objects
    assert "OpportunityContactRole" in found.pull.objects
    org.hide_object("Opportunity")
    try:
        for what, given in ((lookup.sweep, None), (lookup.fetch, ids[:2])):
            with pytest.raises(CrmPermissionError, match="Opportunity"):
                looked(what, given)
    finally:
        org.hide_object("Opportunity", hidden=False)


def test_nothing_to_ask_for_asks_for_nothing_of_deals(looked):
    found = looked(lookup.fetch, ["x"])
    assert found.rows("Opportunity") == {}
    assert found.pull.objects == ["Opportunity", "Opportunity.gone"]
    assert found.pull.calls == 1  # what the org calls its fields
