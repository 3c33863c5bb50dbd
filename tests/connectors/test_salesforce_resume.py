"""Killed, failed or stopped at any instant: the next pull goes on, fetches no page twice and lands what the org holds."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.errors import CrmQuotaError, CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.landing import mark_loaded
from connectors.salesforce import bulk, extract, refresh
from connectors.salesforce.client import Client
from connectors.salesforce.objects import OBJECTS
from connectors.salesforce.settings import SalesforceSettings
from connectors.salesforce.transport import TSession
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
POLICY = RetryPolicy(tries=2, base=0.001, cap=0.002)
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"name": "sales", "crm": "salesforce", "client_id": "plumbline-demo", "client_secret": "demo-secret"}
# A pull in a process of its own: directory, run, address and API are its arguments.
CHILD = """
import sys
from pathlib import Path
from connectors.salesforce import bulk, extract
from connectors.salesforce.objects import OBJECTS
from connectors.salesforce.settings import SalesforceSettings
bulk.FIRST_POLL = 0.02
extract.OBJECTS = [o for o in OBJECTS if o.name == "Opportunity"]
directory, run, url, api = sys.argv[1:]
settings = SalesforceSettings(name="sales", crm="salesforce", client_id="plumbline-demo", client_secret="demo-secret", instance_url=url, api=api)
extract.pull(settings, run_id=run, landing=Path(directory), since={})
"""


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def world():
    clock = SimClock(NOW - timedelta(days=3))
    clock.freeze()
    org = SalesforceOrg(None, clock, Faults())
    account = org.create("Account", {"Name": "Acme"})
    rows = [{"Name": f"Deal {n}", "AccountId": account, "StageName": "Prospecting", "CloseDate": "2026-12-31", "Amount": n} for n in range(23)]
    org.ids = []
    for row in rows:
        org.ids.append(org.create("Opportunity", row))
        clock.advance(timedelta(hours=2))
    clock.set(NOW)
    org.bulk_page, org.query_page = 8, 5
    with serve(org.app()) as server:
        org.url = server.url
        yield org
    org.close()


@pytest.fixture
def org(world, monkeypatch):
    monkeypatch.setattr(bulk, "FIRST_POLL", 0.02)
    yield world
    world.faults.clear()
    world.jobs.clear()
    world.request_log.clear()


@dataclass
class Stopped:
    stopped: str
    calls: int = 0
    objects: tuple = ()


class Night:
    """Pulls of one source into one landing directory."""

    def __init__(self, org, root, monkeypatch, objects=("Opportunity",), **settings):
        self.org, self.root, self.patch, self.number, self.since, self.fields = org, root, monkeypatch, 0, {}, {}
        self.settings = SalesforceSettings(**SETTINGS, instance_url=org.url, **settings)
        monkeypatch.setattr(extract, "OBJECTS", [o for o in OBJECTS if o.name in objects])

    def pull(self, full=False, budget=None):
        self.number += 1
        return extract.pull(
            self.settings, run_id=f"r{self.number:03d}", landing=self.root, since=self.since, full=full, fields=self.fields,
            client=Client(self.settings, POLICY, budget),
        )  # fmt: skip

    def pull_within_share(self, **more):
        """A pull that may have to stop, loaded. What it brought and said."""
        try:
            result = self.pull(**more)
        except CrmQuotaError as error:  # not one object was finished
            return Stopped(str(error))
        self.load()
        return result

    def load(self):
        """Take the last pull for loaded: its watermarks are committed, its fields known."""
        directory = self.directory
        for name in json.loads((directory / "pull.json").read_text())["objects"]:
            told = self.manifest(name)
            if told["watermark"]:
                self.since[name] = datetime.fromisoformat(told["watermark"])
            if told["fields"] and "." not in name:
                types = {f["name"]: ("calculated " if f["calculated"] else "") + f["type"] for f in told["fields"]}
                self.fields[name] = types
        mark_loaded(directory)

    @property
    def directory(self):
        return self.root / "sales" / f"r{self.number:03d}"

    def manifest(self, obj="Opportunity"):
        return json.loads((self.directory / obj / "manifest.json").read_text())

    def journals(self):
        """Pages that a next run need not fetch: by run, what each journal names."""
        return [json.loads(path.read_text()) for path in sorted(self.root.glob("sales/*/*/journal.json"))]

    def rows(self, obj="Opportunity"):
        """Names of the landed records; of one that was read twice, as the last reading had it."""
        found = {}
        for file in self.manifest(obj)["files"]:
            path = self.directory / obj / file["name"]
            assert path.stat().st_size == file["bytes"]
            with path.open(newline="") as text:
                records = list(csv.DictReader(text)) if file["format"] == "csv" else json.loads(text.read())
            assert len(records) == file["rows"]
            found |= {r["Id"]: r["Name"] for r in records}
        return found

    def die_at(self, request, *, answered, path=""):
        """The process is killed at its request of that number (to such a path): before it leaves, or when the server has answered."""
        original, sent, dead = TSession.request, [], []

        def send(session, method, url, *args, **kwargs):
            sent.extend([url] if path in url else [])
            last = path in url and len(sent) == request
            if dead or (last and not answered):
                dead.append(url)
                raise Killed
            response = original(session, method, url, *args, **kwargs)
            if dead or last:
                dead.append(url)
                raise Killed
            return response

        with self.patch.context() as patch:
            patch.setattr(TSession, "request", send)
            try:
                self.pull()
            except Killed:
                return True
        return False


def held(org):
    return dict(org.rows('SELECT "Id", "Name" FROM "Opportunity"'))


def pages(org, of=""):
    """Addresses of result pages that were asked for, in order; `of` a job or cursor."""
    return [call.path for call in org.request_log.calls if ("/results?" in call.path or "/query/01g" in call.path) and of in call.path]


def first(org):
    """The job or the cursor that was asked for its pages first."""
    return re.search(r"750\w{15}|01g\w{15}", pages(org)[0])[0]


@pytest.mark.parametrize("answered", [False, True], ids=["before it leaves", "its answer is lost"])
@pytest.mark.parametrize("api", ["bulk", "rest"])
def test_killed_at_any_request_the_next_run_fetches_only_what_is_not_there(org, tmp_path, monkeypatch, api, answered):
    monkeypatch.setattr(extract, "LOGGED", ())
    monkeypatch.setattr(refresh, "beside", lambda *args, **more: [])  # only the requests for the deals themselves
    for request in range(1, 99):
        night = Night(org, tmp_path / str(request), monkeypatch, api=api)
        org.request_log.clear()
        if not night.die_at(request, answered=answered):
            break
        kept = {page["file"]["name"] for journal in night.journals() for r in journal["readings"] for page in r["pages"]}
        asked = pages(org)
        org.request_log.clear()
        night.pull()
        assert night.rows() == held(org)
        again = [path for path in pages(org) if path in asked]
        assert len(again) <= max(0, len(asked) + (api == "rest") - len(kept)), "pages that had come were fetched again"
        assert len(pages(org)) == len(set(pages(org)))
        assert org.jobs.all() == [], "no job is left behind"
        assert list(night.directory.parent.iterdir()) == [night.directory], "nor anything else"
        assert not list(tmp_path.rglob("*.part"))
    assert request > 8


@pytest.mark.parametrize("second", [False, True], ids=["the first run", "the run that goes on"])
@pytest.mark.slow
def test_killed_between_any_two_steps_on_disk(org, tmp_path, monkeypatch, second):
    """A file renamed, a directory moved, a journal written: the process dies before each of them."""
    monkeypatch.setattr(extract, "LOGGED", ())
    monkeypatch.setattr(refresh, "beside", lambda *args, **more: [])
    for step in range(1, 300):
        night = Night(org, tmp_path / str(step), monkeypatch, ("Opportunity", "Account"), api="bulk")
        if second:
            assert night.die_at(2, path="/results?", answered=True)
        if not dies_before(step, night):
            break
        night.pull()
        assert night.rows() == held(org)
        assert set(night.rows("Account")) == {id for (id,) in org.rows('SELECT "Id" FROM "Account"')}
        night.load()
        assert org.jobs.all() == []
        assert [path.name for path in night.directory.parent.iterdir() if path.is_dir()] == [night.directory.name]
    assert step > 20


def dies_before(step, night):
    """Pull, and die before the step of that number that changes a name on disk. Whether there was one."""
    dead, steps = [], []

    def guarded(original):
        def change(*args, **kwargs):
            if "sales" in str(args[0]) or kwargs:
                steps.append(args)
            if dead or len(steps) == step:
                dead.append(args)
                raise Killed
            return original(*args, **kwargs)

        return change

    with night.patch.context() as patch:
        for name in ("replace", "rename", "unlink", "rmdir"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        try:
            night.pull()
        except Killed:
            return True
    return bool(dead)


def test_pages_that_came_are_not_fetched_again_and_the_others_once(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    with monkeypatch.context() as patch:
        patch.setattr(bulk, "STREAMS", 1)
        assert night.die_at(3, path="/results?", answered=True)
    job, there = first(org), sum(len(r["pages"]) for journal in night.journals() for r in journal["readings"])
    assert there == 2
    org.request_log.clear()
    night.pull()
    assert len(pages(org, job)) == 1 and night.rows() == held(org)


@pytest.mark.parametrize("api", ["bulk", "rest"])
def test_sigkill_amid_the_pages(org, tmp_path, monkeypatch, api):
    org.faults.arm("slow", seconds=60, path=r"/results\?locator=|/query/01g", after=2, times=None)
    line = [sys.executable, "-c", CHILD, str(tmp_path), "r000", org.url, api]
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        night = Night(org, tmp_path, monkeypatch, api=api)
        deadline = datetime.now(UTC) + timedelta(seconds=30)
        while datetime.now(UTC) < deadline and not any(len(r["pages"]) >= 2 for j in night.journals() for r in j["readings"]):
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    org.faults.clear()
    assert process.returncode == -signal.SIGKILL
    asked = first(org)
    org.request_log.clear()
    night.pull()
    assert night.rows() == held(org)
    assert 1 <= len(set(pages(org, asked))) <= 3
    assert org.jobs.all() == []


def test_what_changed_meanwhile_is_read_at_the_end(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    assert night.die_at(9, answered=True)
    org.clock.advance(timedelta(hours=20))
    org.update("Opportunity", org.ids[0], {"Name": "Changed after the first attempt"})
    org.clock.advance(timedelta(hours=4))
    night.pull()
    told = night.manifest()
    assert night.rows() == held(org)
    assert {f["reading"] for f in told["files"]} == {0, 1}
    assert datetime.fromisoformat(told["watermark"]) == org.clock.now() - timedelta(hours=4)
    assert told["complete"]


def test_a_job_that_is_gone_is_begun_anew(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    assert night.die_at(9, answered=True)
    org.clock.advance(timedelta(days=6, hours=23))
    org.jobs.clear()
    night.pull()
    assert night.rows() == held(org)
    assert org.jobs.all() == []


def test_after_a_week_nothing_is_gone_on_with(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    assert night.die_at(9, answered=True)
    org.clock.advance(timedelta(days=8))
    night.pull()
    assert night.rows() == held(org)
    assert {f["reading"] for f in night.manifest()["files"]} == {0}


def test_a_rest_cursor_that_is_lost_is_begun_anew(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="rest")
    assert night.die_at(7, answered=True)
    org.faults.arm("status", status=400, path="/query/01g", body=[{"errorCode": "INVALID_QUERY_LOCATOR", "message": "invalid query locator"}])
    night.pull()
    assert night.rows() == held(org)


def test_a_page_that_is_not_as_the_journal_says_is_fetched_again(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    monkeypatch.setattr(bulk, "STREAMS", 1)
    assert night.die_at(3, path="/results", answered=False)
    there = sorted((night.directory / "Opportunity").glob("part-*.csv"))
    assert len(there) == 2
    there[0].write_bytes(there[0].read_bytes()[:-7])
    job = first(org)
    org.request_log.clear()
    night.pull()
    assert night.rows() == held(org)
    assert len(pages(org, job)) == 3 - len(there) + 1


def test_another_query_or_watermark_begins_anew_and_closes_the_job(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    assert night.die_at(9, answered=True)
    assert len(org.jobs.all()) == 1
    org.add_field("Opportunity", "Reason__c", "string", length=80)
    night.pull()
    assert "Reason__c" in {f["name"] for f in night.manifest()["fields"]}
    assert night.rows() == held(org) and org.jobs.all() == []


def test_the_intent_of_a_job_whose_answer_was_lost_finds_it_and_nobody_elses(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    assert night.die_at(4, answered=True)
    (lost,) = org.jobs.all()
    assert lost.operation == "queryAll"
    stranger = next(user for (user,) in org.rows('SELECT "Id" FROM "User"') if user != org.integration_user_id)
    theirs = org.jobs.create_query({"operation": "queryAll", "query": "SELECT Id FROM Opportunity"}, stranger, "60.0")
    other = org.jobs.create_query({"operation": "queryAll", "query": "SELECT Id FROM Account"}, org.integration_user_id, "60.0")
    org.clock.advance(timedelta(hours=3))
    later = org.jobs.create_query({"operation": "queryAll", "query": "SELECT Id FROM Opportunity"}, org.integration_user_id, "60.0")
    night.pull()
    assert {job.id for job in org.jobs.all()} == {theirs["id"], other["id"], later["id"]}
    assert night.rows() == held(org)


def test_an_answer_that_is_lost_on_the_way_leaves_no_second_job(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="bulk")
    org.faults.arm("drop", path="/jobs/query$", method="POST", applied=True)
    night.pull()
    assert night.rows() == held(org) and org.jobs.all() == []


def test_a_failed_pull_leaves_its_pages_too(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, api="rest")
    org.faults.arm("status", status=503, path="/query/01g", after=2, times=None)
    with pytest.raises(CrmUnavailableError):
        night.pull()
    org.faults.clear()
    cursor = first(org)
    org.request_log.clear()
    night.pull()
    assert len(pages(org, cursor)) == 2 and night.rows() == held(org)


def test_objects_that_were_finished_are_kept_when_another_fails(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, ("Opportunity", "OpportunityHistory"), api="rest")
    org.faults.arm("status", status=503, path="OpportunityHistory", times=None)
    with pytest.raises(CrmUnavailableError):
        night.pull()
    org.faults.clear()
    assert night.manifest()["complete"] and not (night.directory / "pull.json").exists()
    cursor = first(org)
    org.request_log.clear()
    org.clock.advance(timedelta(hours=2))
    org.update("Opportunity", org.ids[3], {"Name": "Changed after the failure"})
    night.pull()
    assert night.rows() == held(org) and pages(org, cursor) == []
    assert {f["reading"] for f in night.manifest()["files"]} == {0, 1}
    night.load()
    org.request_log.clear()
    night.pull()
    assert {f["reading"] for f in night.manifest()["files"]} == {0} and night.manifest()["mode"] == "incremental"


def test_a_share_that_ends_while_an_empty_object_is_asked_again_keeps_it(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, ("Task", "Event"), api="rest")
    org.faults.arm("status", status=503, path="FROM.Event", times=None)
    with pytest.raises(CrmUnavailableError):
        night.pull()
    org.faults.clear()
    night.settings = night.settings.model_copy(update=share_of(org, 3))  # none is left to look whether there are tasks by now
    result = night.pull_within_share()
    assert "Task" in result.objects and "stopped after 3" in result.stopped
    assert night.manifest("Task")["files"] == [] and night.manifest("Task")["complete"]


def test_what_was_loaded_is_not_taken_over_again(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch)
    night.pull()
    night.load()
    night.since = {}
    night.pull()
    assert {f["reading"] for f in night.manifest()["files"]} == {0} and night.rows() == held(org)


# Quota --------------------------------------------------------------------------------------------------------------------------


def share_of(org, calls):
    """Settings that allow so many calls in a run."""
    return {"quota_share": calls / org.daily_limit}


def until_done(night, most=60, **more):
    """Pull and load until a pull reads everything. Returns the objects of each."""
    runs = []
    for _ in range(most):
        result = night.pull_within_share(**more)
        runs.append(result)
        if not result.stopped:
            return runs
    raise AssertionError("never done")


EVERY = tuple(o.name for o in OBJECTS)


def test_runs_of_few_calls_read_what_one_large_run_reads(org, tmp_path, monkeypatch):
    whole = Night(org, tmp_path / "whole", monkeypatch, EVERY)
    whole.pull()
    seen = {}
    night = Night(org, tmp_path / "parts", monkeypatch, EVERY, **share_of(org, 6))
    for _ in range(30):
        result = night.pull_within_share()
        assert result.calls <= 6 and "quota_share" in result.stopped and "the next run goes on from there" in result.stopped
        for name in result.objects:
            if "." not in name:
                seen.setdefault(name, night.rows(name) if name == "Opportunity" else night.manifest(name)["files"] != [])
        if set(seen) == set(EVERY):
            break
    assert seen.pop("Opportunity") == held(org)
    expected = {o: json.loads((tmp_path / f"whole/sales/r001/{o}/manifest.json").read_text())["files"] != [] for o in seen}
    assert seen == expected
    assert night.number <= 15, "each run gets on"


def test_a_share_that_suffices_for_a_night_ends_well_in_the_end(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, ("Opportunity", "Account", "User"), **share_of(org, 15))
    runs = until_done(night)
    assert all(run.calls <= 15 for run in runs)
    assert [bool(run.stopped) for run in runs][-1] is False


def test_a_full_sync_of_few_calls_is_gone_on_with_by_the_next_and_others_between_stay_right(org, tmp_path, monkeypatch):
    night = Night(org, tmp_path, monkeypatch, ("Opportunity", "OpportunityHistory", "Account", "User"))
    night.pull()
    night.load()
    night.settings = night.settings.model_copy(update=share_of(org, 15))
    whole = set()
    for _ in range(4):
        result = night.pull_within_share(full=True)
        assert result.calls <= 15
        whole |= {name for name in result.objects if "." not in name and night.manifest(name)["mode"] == "full"}
        if "Opportunity" in result.objects and night.manifest()["mode"] == "full":
            assert night.rows() == held(org) and night.manifest()["complete"]
        if not result.stopped:
            break
        org.clock.advance(timedelta(hours=12))
        org.update("Opportunity", org.ids[5], {"Name": f"Changed before night {night.number}"})
        org.clock.advance(timedelta(hours=12))
        plain = night.settings
        night.settings = plain.model_copy(update={"quota_share": 1.0})
        between = night.pull()
        assert not between.stopped and night.manifest()["mode"] == "incremental"
        assert night.rows()[org.ids[5]] == held(org)[org.ids[5]]
        night.load()
        night.settings = plain
    assert whole == {"Opportunity", "OpportunityHistory", "Account", "User"}
    assert not result.stopped
