"""Pull and write-back against the simulated org: what is landed is what the org holds, whatever happens on the way."""

import csv
import json
from datetime import UTC, datetime, timedelta

import pytest

from connectors.errors import CrmPermissionError, CrmQuotaError
from connectors.http import RetryPolicy
from connectors.landing import mark_loaded
from connectors.salesforce import extract, rest, writeback
from connectors.salesforce.client import Client
from connectors.salesforce.objects import OBJECTS
from connectors.salesforce.settings import SalesforceSettings
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg
from connectors.simulator.salesforce import bulk as simulated_bulk

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DEALS = 450
POLICY = RetryPolicy(base=0.01, cap=0.02)
ODD = 'Łódź "north",\nline two \\ {"Id":"006x"}'


@pytest.fixture(scope="module")
def world():
    clock, faults = SimClock(NOW - timedelta(days=3)), Faults()
    org = SalesforceOrg(None, clock, faults)
    account = org.create("Account", {"Name": "Acme"})
    contact = org.create("Contact", {"LastName": "Berg", "AccountId": account})
    rows = [
        {"Name": f"Deal {n} {ODD}", "AccountId": account, "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": n * 1000 + 0.25}
        for n in range(DEALS)
    ]
    ids = [outcome.id for outcome in org.create_many("Opportunity", rows)]
    org.create("OpportunityContactRole", {"OpportunityId": ids[0], "ContactId": contact, "Role": "Decision Maker"})
    org.create_many("Task", [{"WhatId": what, "Subject": "Call", "ActivityDate": "2026-11-25"} for what in (*ids[:3], account)])
    clock.set(NOW)
    server = serve(org.app())
    yield org, server.url, ids
    server.stop()
    org.close()


@pytest.fixture
def org(world, monkeypatch):
    monkeypatch.setattr(rest, "PAGE", 200)  # the smallest that Salesforce takes
    monkeypatch.setattr(simulated_bulk, "PAGE", 100)
    yield world[0]
    world[0].faults.clear()


@pytest.fixture
def pull(world, org, tmp_path, monkeypatch):
    def run(run_id="r1", since=None, objects=("Opportunity",), **more):
        monkeypatch.setattr(extract, "OBJECTS", [o for o in OBJECTS if o.name in objects])
        chosen = config(world[1], **more)
        extract.pull(chosen, run_id=run_id, landing=tmp_path, since=since or {}, client=Client(chosen, POLICY))
        mark_loaded(tmp_path / "sales" / run_id)
        return Landing(tmp_path / "sales" / run_id)

    return run


def config(url, **more):
    keys = {"name": "sales", "crm": "salesforce", "instance_url": url, "client_id": "plumbline-demo", "client_secret": "demo-secret"}
    return SalesforceSettings(**{**keys, **more})


class Landing:
    def __init__(self, directory):
        self.directory = directory

    def manifest(self, obj):
        return json.loads((self.directory / obj / "manifest.json").read_text())

    def rows(self, obj, key="Id"):
        """Records by id, each value as Salesforce's CSV writes it."""
        found = []
        for file in self.manifest(obj)["files"]:
            path = self.directory / obj / file["name"]
            if file["format"] == "csv":
                with path.open(newline="", encoding="utf-8") as text:
                    records = list(csv.DictReader(text))
            else:
                records = [{k: v for k, v in r.items() if k != "attributes"} for r in json.loads(path.read_bytes())]
            assert len(records) == file["rows"]
            found += [{k: plain(v) for k, v in r.items()} for r in records]
        assert len({r[key] for r in found}) == len(found)
        return {r[key]: r for r in found}

    @property
    def watermarks(self):
        marks = {path.parent.name: json.loads(path.read_text())["watermark"] for path in self.directory.glob("*/manifest.json")}
        return {name: datetime.fromisoformat(mark) for name, mark in marks.items() if mark}


def plain(value):
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    text = str(value)
    if text.endswith("+0000"):
        return text.replace("+0000", "Z")
    try:
        return str(float(text)) if not text.startswith("00") else text
    except ValueError:
        return text


def in_org(org):
    return {i: (name, float(amount)) for i, name, amount in org.rows('SELECT "Id", "Name", "Amount" FROM "Opportunity"')}


def in_landing(landing):
    return {i: (row["Name"], float(row["Amount"])) for i, row in landing.rows("Opportunity").items()}


def test_rest_and_bulk_land_what_the_org_holds(org, pull):
    everything = [o.name for o in OBJECTS]
    by_rest, by_bulk = pull("rest", objects=everything, api="rest"), pull("bulk", objects=everything, api="bulk")
    assert in_landing(by_rest) == in_org(org) and len(in_org(org)) >= DEALS
    for obj in ("Opportunity", "OpportunityHistory", "OpportunityContactRole", "Task", "Account", "User"):
        assert by_bulk.rows(obj) == by_rest.rows(obj), obj
        assert by_bulk.manifest(obj)["watermark"] == by_rest.manifest(obj)["watermark"]
    assert {f["format"] for f in by_bulk.manifest("Opportunity")["files"]} == {"csv"}
    assert len(by_rest.manifest("Opportunity")["files"]) >= 3 and len(by_bulk.manifest("Opportunity")["files"]) >= 5
    assert len(by_rest.rows("Task")) == 3  # the account's own task is not read
    assert all(m["notice"] is None for m in (by_rest.manifest(o) for o in ("Opportunity", "Task", "CurrencyType")))


def test_a_night_fetches_changes_and_its_overlap(org, world, pull):
    first = pull("r1")
    _, _, ids = world
    org.clock.advance(timedelta(hours=5))
    org.update("Opportunity", ids[7], {"NextStep": "Call Karin"})
    second = pull("r2", since=first.watermarks)
    assert second.rows("Opportunity")[ids[7]]["NextStep"] == "Call Karin"
    mark = second.manifest("Opportunity")
    assert mark["mode"] == "incremental" and datetime.fromisoformat(mark["watermark"]) > first.watermarks["Opportunity"]
    org.clock.advance(timedelta(hours=5))
    third = pull("r3", since=second.watermarks)
    assert set(third.rows("Opportunity")) <= {ids[7]}  # the overlap, and nothing else
    assert third.watermarks["Opportunity"] == second.watermarks["Opportunity"]


def test_late_commits_are_caught_by_the_overlap(org, world, pull):
    _, _, ids = world
    org.clock.advance(timedelta(hours=3))
    org.faults.arm("late_commit", seconds=900)
    org.update("Opportunity", ids[11], {"NextStep": "stamped now, seen later"})
    org.clock.advance(timedelta(minutes=5))
    org.update("Opportunity", ids[12], {"NextStep": "stamped and seen"})
    first = pull("r1", since={"Opportunity": org.clock.now() - timedelta(hours=1)})
    assert ids[12] in first.rows("Opportunity") and ids[11] not in first.rows("Opportunity")
    org.clock.advance(timedelta(hours=8))
    second = pull("r2", since=first.watermarks)
    assert second.rows("Opportunity")[ids[11]]["NextStep"] == "stamped now, seen later"


def test_deleted_restored_and_purged_records_are_told(org, world, pull):
    _, _, ids = world
    org.clock.advance(timedelta(hours=3))
    first = pull("r1")
    org.clock.advance(timedelta(hours=3))
    for n in (20, 21, 22):
        org.delete("Opportunity", ids[n])
    org.clock.advance(timedelta(minutes=1))
    org.undelete("Opportunity", ids[21])
    org.hard_delete("Opportunity", ids[22])
    org.clock.advance(timedelta(minutes=5))
    second = pull("r2", since=first.watermarks)
    deals = second.rows("Opportunity")
    assert deals[ids[20]]["IsDeleted"] == "true" and deals[ids[21]]["IsDeleted"] == "false" and ids[22] not in deals
    gone = second.rows("Opportunity.deleted", key="id")
    assert {ids[20], ids[22]} <= set(gone)
    mark = second.watermarks["Opportunity.deleted"]
    assert first.watermarks["Opportunity"] < mark <= org.clock.now()


@pytest.mark.parametrize("api", ["rest", "bulk"])
@pytest.mark.parametrize("fault", ["401", "503 twice", "drop", "truncate", "429"])
def test_faults_amid_the_pages(org, pull, api, fault):
    path = "/query/" if api == "rest" else r"/results\?"
    if fault == "401":
        org.faults.arm("status", status=401, path=path, times=2)
    elif fault == "503 twice":
        org.faults.arm("status", status=503, path=path, times=2)
    elif fault == "429":
        org.faults.arm("status", status=429, path=path, headers={"Retry-After": "0"})
    else:
        org.faults.arm(fault, path=path, after=1)
    landed = pull(api, api=api)
    assert in_landing(landed) == in_org(org)
    assert not list(landed.directory.rglob("*.part"))


def test_tokens_that_expire_between_any_two_calls(org, world, pull, monkeypatch):
    original, calls = Client._run, []

    def strike(self, obj, send):
        calls.append(obj)
        if len(calls) % 5 == 0:
            org.faults.arm("expire_tokens")
        return original(self, obj, send)

    monkeypatch.setattr(Client, "_run", strike)
    assert in_landing(pull(api="bulk")) == in_org(org)


def test_daily_limit(org, pull, tmp_path):
    org.faults.arm("daily_limit", path="/queryAll")
    with pytest.raises(CrmQuotaError) as caught:
        pull()
    assert "API calls" in str(caught.value) and not (tmp_path / "sales" / "r1" / "pull.json").exists()


def test_hidden_field_and_hidden_object(org, pull):
    org.hide_field("Opportunity", "NextStep")
    org.hide_object("OpportunityContactRole")
    try:
        landed = pull(objects=("Opportunity", "OpportunityContactRole"))
    finally:
        org.hide_field("Opportunity", "NextStep", hidden=False)
        org.hide_object("OpportunityContactRole", hidden=False)
    assert "NextStep" in landed.manifest("Opportunity")["notice"]
    assert "NextStep" not in next(iter(landed.rows("Opportunity").values()))
    assert landed.manifest("OpportunityContactRole")["files"] == [] and "not read" in landed.manifest("OpportunityContactRole")["notice"]
    assert len(landed.rows("Opportunity")) == len(in_org(org))


def test_opportunity_itself_hidden(org, pull):
    org.hide_object("Opportunity")
    try:
        with pytest.raises(CrmPermissionError, match="Opportunity"):
            pull()
    finally:
        org.hide_object("Opportunity", hidden=False)


def test_new_field_comes_with_its_values(org, world, pull):
    before = pull("r1")
    org.clock.advance(timedelta(hours=2))
    org.add_field("Opportunity", "Verdict__c", "string", length=80)
    org.update("Opportunity", world[2][30], {"Verdict__c": "go"})
    after = pull("r2", since=before.watermarks)
    assert after.rows("Opportunity")[world[2][30]]["Verdict__c"] == "go"
    assert {"name": "Verdict__c", "custom": True}.items() <= next(
        f for f in after.manifest("Opportunity")["fields"] if f["name"] == "Verdict__c"
    ).items()


def test_bulk_closed_to_the_org(org, pull):
    org.bulk_enabled = False
    try:
        landed = pull(api="bulk")
    finally:
        org.bulk_enabled = True
    assert in_landing(landed) == in_org(org) and {f["format"] for f in landed.manifest("Opportunity")["files"]} == {"json_array"}


@pytest.mark.parametrize("auth", ["jwt", "refresh_token", "session"])
def test_every_way_of_signing_in(org, world, pull, auth, tmp_path):
    identity = org.identity
    if auth == "jwt":
        (tmp_path / "key.pem").write_text(identity.private_key_pem)
        keys = {"username": identity.username, "private_key_file": tmp_path / "key.pem"}
    elif auth == "refresh_token":
        keys = {"refresh_token": identity.refresh_token}
    else:
        keys = {"access_token": identity.issue(org.integration_user_id)}
    landed = pull(objects=("Organization",), auth=auth, **keys)
    assert landed.rows("Organization")


# Write-back


@pytest.fixture
def write(world, org, tmp_path):
    def run(changes):
        (tmp_path / "changes").write_text("".join(json.dumps({"id": i, "fields": f}) + "\n" for i, f in changes.items()))
        chosen = config(world[1])
        done = writeback.write(
            chosen, changes=tmp_path / "changes", results=tmp_path / "results", client=Client(chosen, POLICY)
        )
        told = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
        assert sorted(t["id"] for t in told) == sorted(changes)
        return done, {t["id"]: t for t in told}

    return run


@pytest.mark.parametrize("bulk", [False, True], ids=["collections", "bulk"])
def test_write_sets_clears_and_reports_each_record(org, world, write, monkeypatch, bulk):
    monkeypatch.setattr(writeback, "COLLECTIONS", 5 if bulk else 2000)
    ids = world[2][100:160]
    text = f"Łódź {bulk}, \"soon\"\nor later"
    org.update_many("Opportunity", [{"Id": i, "Plumbline_Top_Issue__c": "old"} for i in ids])
    org.update("Opportunity", ids[3], {"NextStep": f"closed for good {bulk}"})
    org.add_validation_rule("Opportunity", "frozen", f"NextStep = 'closed for good {bulk}'", "This deal is frozen")
    org.lock_rows([ids[5]], times=2)
    changes = {i: {"Plumbline_Score__c": 70, "Plumbline_Status__c": "OK", "Plumbline_Top_Issue__c": text} for i in ids}
    changes[ids[0]] = {"Plumbline_Top_Issue__c": None}
    changes[ids[1]] = {"Plumbline_Flagged_Since__c": "2026-11-19"}
    try:
        done, told = write(changes)
    finally:
        org.remove_validation_rule("frozen")
    assert (done.written, done.failed) == (59, 1)
    assert told[ids[3]]["code"] == "FIELD_CUSTOM_VALIDATION_EXCEPTION" and told[ids[3]]["message"] == "This deal is frozen"
    held = {
        i: (score, issue, str(since))
        for i, score, issue, since in org.rows(
            'SELECT "Id", "Plumbline_Score__c", "Plumbline_Top_Issue__c", "Plumbline_Flagged_Since__c" FROM "Opportunity"'
        )
    }
    assert held[ids[0]][1] is None and held[ids[1]][1:] == ("old", "2026-11-19")
    assert held[ids[2]][:2] == (70, text) and held[ids[5]][0] == 70 and held[ids[3]][1] == "old"


def test_field_that_the_org_lacks(org, world, write):
    done, told = write({i: {"Plumbline_Nothing__c": 1} for i in world[2][200:203]})
    assert (done.written, done.failed) == (0, 3) and {t["code"] for t in told.values()} == {"INVALID_FIELD"}


def test_answer_lost_on_the_way_back(org, world, write):
    org.faults.arm("drop", path="composite", applied=True)
    done, _ = write({world[2][210]: {"Plumbline_Score__c": 55}})
    assert (done.written, done.calls) == (1, 2)
