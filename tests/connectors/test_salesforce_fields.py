"""Night after night against the simulated org: what moves without a stamp, fields that come, hide and go, what was purged, parents."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from connectors.http import RetryPolicy
from connectors.landing import mark_loaded
from connectors.salesforce import extract
from connectors.salesforce.client import Client
from connectors.salesforce.objects import OBJECTS
from connectors.salesforce.settings import SalesforceSettings
from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.salesforce import SalesforceOrg
from warehouse import derive, ops
from warehouse.connection import open_warehouse
from warehouse.load import known_fields, load

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
POLICY = RetryPolicy(base=0.01, cap=0.02)
DEALS, OPEN = 12, 9
AROUND = ("Opportunity", "OpportunityContactRole", "Task", "Event")
PARENTS = ("Opportunity", "Account", "User", "UserRole", "RecordType")


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("warehouse") / "empty.duckdb"
    with open_warehouse(path) as warehouse:
        derive.prepare(warehouse.con, "salesforce")
    return path


@pytest.fixture
def org():
    clock = SimClock(NOW - timedelta(days=3))
    org = SalesforceOrg(None, clock, Faults())
    org.in_progress_polls = 0
    org.acme, org.berg = org.create("Account", {"Name": "Acme", "Industry": "Energy"}), org.create("Account", {"Name": "Berg"})
    org.contact = org.create("Contact", {"LastName": "Lind", "AccountId": org.acme})
    rows = [
        {"Name": f"Deal {n}", "AccountId": org.acme, "StageName": "Closed Won" if n % 4 == 0 else "Prospecting", "CloseDate": "2026-12-31",
         "Amount": n * 100, "NextStep": f"Step {n}", "Win_Reason__c": f"Because {n}"}
        for n in range(DEALS)
    ]  # fmt: skip
    org.deals = [outcome.id for outcome in org.create_many("Opportunity", rows)]
    clock.set(NOW - timedelta(days=1))  # what is saved last is what the overlap of the next night shows again
    org.update("Opportunity", org.deals[0], {"Description": "the last to be saved"})
    org.update("Account", org.berg, {"Name": "Berg"})
    clock.set(NOW)
    yield org
    org.close()


@pytest.fixture
def nights(org, empty, tmp_path, monkeypatch):
    shutil.copyfile(empty, tmp_path / "w.duckdb")
    with serve(org.app()) as server, open_warehouse(tmp_path / "w.duckdb", threads=1) as warehouse:
        yield Nights(org, server.url, warehouse.con, tmp_path, monkeypatch)


class Nights:
    """One source and its warehouse, a sync a night."""

    def __init__(self, org, url, con, root, monkeypatch):
        self.org, self.url, self.con, self.root, self.monkeypatch, self.number = org, url, con, root, monkeypatch, 0

    def __call__(self, *, hours=24, full=False, objects=("Opportunity", "Account"), **more):
        """A night's sync. objects: those that matter in this story. Returns the counts by object."""
        self.number += 1
        self.monkeypatch.setattr(extract, "OBJECTS", [spec for spec in OBJECTS if spec.name in objects])
        self.org.clock.advance(timedelta(hours=hours))
        keys = {"name": "sales", "crm": "salesforce", "instance_url": self.url, "client_id": "plumbline-demo", "client_secret": "demo-secret"}
        chosen = SalesforceSettings(**{**keys, **more})
        since = {} if full else ops.watermarks(self.con, "sales")
        self.directory = self.root / "sales" / f"r{self.number}"
        extract.pull(
            chosen, run_id=f"r{self.number}", landing=self.root, since=since, full=full, fields=known_fields(self.con, "sales"),
            client=Client(chosen, POLICY),
        )  # fmt: skip
        result = load(self.con, self.directory, now=self.org.clock.now(), fields=chosen.fields)
        mark_loaded(self.directory)
        return {counts.object: counts for counts in result}

    def manifest(self, obj):
        return json.loads((self.directory / obj / "manifest.json").read_text())

    def manifests(self):
        return {path.parent.name for path in self.directory.glob("*/manifest.json")}

    def paths(self):
        """What was asked for in all nights."""
        return [call.path for call in self.org.request_log.calls]

    def payloads(self, field):
        """The field of every deal, in raw."""
        rows = self.con.execute("select id, payload ->> $1 from raw.salesforce_opportunity", [f'$."{field}"']).fetchall()
        return {id: value for id, value in rows if value is not None}

    def deals(self, *columns):
        rows = self.con.execute(f"select opportunity_id, {', '.join(columns)} from core.opportunity").fetchall()
        return {id: values[0] if len(columns) == 1 else tuple(values) for id, *values in rows}

    def lost(self):
        return [row[0] for row in self.con.execute("select name from core.field_lost order by name").fetchall()]


def stored(org, field):
    """The field of every deal, in the org."""
    return {id: value for id, value in org.rows(f'SELECT "Id", "{field}"::VARCHAR FROM "Opportunity"') if value is not None}


# What moves without a stamp ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["rest", "bulk"])
def test_formulas_of_open_deals_follow_their_parents_and_the_calendar(org, nights, api):
    nights(api=api)
    org.update("Account", org.acme, {"Industry": "Chemicals"})
    result = nights(api=api)
    industry, days = nights.payloads("Account_Industry__c"), nights.payloads("Days_Open__c")
    won, open_ = {org.deals[4], org.deals[8]}, {id for n, id in enumerate(org.deals) if n % 4}
    assert {industry[id] for id in won} == {"Energy"} and {industry[id] for id in open_} == {"Chemicals"}
    assert {days[id] for id in won} == {"4"} and {days[id] for id in open_} == {"5"}
    assert result["Opportunity.fields"].echoed == OPEN
    assert (result["Opportunity"].fetched, result["Opportunity"].changed) == (1, 0)  # the overlap
    assert nights.deals("custom ->> '$.Days_Open__c'") == days
    manifest = nights.manifest("Opportunity.fields")
    assert (manifest["mode"], manifest["complete"], manifest["files"][0]["format"][:3]) == ("incremental", False, {"rest": "jso", "bulk": "csv"}[api])
    asked = {f["name"] for f in manifest["fields"]}
    assert {"Id", "AccountId", "HasOpenActivity", "Days_Open__c"} <= asked
    assert not asked & {"Name", "AgeInDays", "LastStageChangeInDays", "LastViewedDate"}
    assert not {"AgeInDays", "LastViewedDate"} & {f["name"] for f in nights.manifest("Opportunity")["fields"]}


def test_a_night_in_which_nothing_moved_changes_no_row(org, nights):
    org.set_formula("Opportunity", "Days_Open__c", "Amount * 2")
    nights()
    nights()
    before = nights.con.execute("from raw.salesforce_opportunity order by id").fetchall()
    result = nights()
    assert (result["Opportunity.fields"].unchanged, result["Opportunity.fields"].echoed) == (OPEN, 0)
    assert nights.con.execute("from raw.salesforce_opportunity order by id").fetchall() == before


def test_a_mapped_formula_is_a_change_of_the_deal(org, nights):
    mapped = {"fit": "Account_Industry__c", "lost_reason": "Account_Industry__c", "age": "AgeInDays"}
    nights(fields=mapped)
    org.update("Account", org.acme, {"Industry": "Chemicals"})
    result = nights(fields=mapped)
    assert result["Opportunity"].changed == OPEN + 1  # and the deal that the overlap delivered
    deal = nights.deals("evidence ->> '$.fit'", "lost_reason", "evidence ->> '$.age'")[org.deals[1]]
    assert deal == ("Chemicals", "Chemicals", "5")


def test_an_activity_or_a_contact_that_moves_no_stamp_shows(org, nights):
    nights(objects=AROUND)
    org.create("Task", {"WhatId": org.deals[1], "Subject": "Call", "ActivityDate": "2026-11-01"})
    nights(objects=AROUND)
    assert nights.payloads("HasOverdueTask")[org.deals[1]] == nights.payloads("HasOpenActivity")[org.deals[1]] == "true"


def test_where_the_filter_is_refused_all_deals_are_read(org, nights):
    nights()
    org.update("Account", org.acme, {"Industry": "Chemicals"})
    refusal = [{"errorCode": "INVALID_FIELD", "message": "IsClosed can not be filtered in a query call"}]
    org.faults.arm("status", status=400, path=r"IsClosed\W+false", body=refusal)
    result = nights()
    assert (result["Opportunity.fields"].fetched, result["Opportunity.fields"].notice) == (DEALS, None)
    assert set(nights.payloads("Account_Industry__c").values()) == {"Chemicals"}


def test_a_list_too_long_for_an_address_goes_in_parts(org, nights):
    """No Bulk API here, and more fields than an address holds: each night asks for them in several queries."""
    names = [f"A_rather_long_name_for_a_field_of_ours_{n:03d}__c" for n in range(250)]
    for n, name in enumerate(names):
        org.add_field("Opportunity", name, "double", formula=f"Amount * {n}" if n % 5 else None)
    org.bulk_enabled = False
    org.con.execute(f'UPDATE "Opportunity" SET "{names[245]}" = 8, "{names[0]}" = 6')
    nights(objects=("Opportunity",))
    assert all(nights.payloads(names[n]) == dict.fromkeys(org.deals, value) for n, value in ((0, "6"), (245, "8")))
    assert "Opportunity.fields" in nights.manifests() and nights.manifest("Opportunity")["notice"] is None
    assert set(names) <= known_fields(nights.con, "sales")["Opportunity"].keys()
    org.update("Opportunity", org.deals[1], {names[245]: 9, "Amount": 1})
    org.con.execute('UPDATE "Opportunity" SET "Amount" = 7')
    result = nights(objects=("Opportunity",))
    assert nights.payloads(names[245]) == dict.fromkeys(org.deals, "8") | {org.deals[1]: "9"}
    for n in (1, 126, 249):
        values = nights.payloads(names[n])
        assert {values[id] for i, id in enumerate(org.deals) if i % 4} == {str(7 * n)}
    assert {"Opportunity.fields.2", "Opportunity.fields.3"} <= nights.manifests()
    assert nights.lost() == [] and result["Opportunity"].fetched == 2
    assert max(len(path) for path in nights.paths()) < 8300


# Fields that come ----------------------------------------------------------------------------------------------------------------


def test_what_was_written_before_we_saw_the_field_is_read_when_we_see_it(org, nights):
    nights()
    org.add_field("Opportunity", "Tier__c", "string")
    org.hide_field("Opportunity", "Tier__c")
    org.con.execute("""UPDATE "Opportunity" SET "Tier__c" = 'Gold ' || "Amount" """)  # by people who may see it, long ago
    org.delete("Opportunity", org.deals[3])
    nights()
    assert nights.payloads("Tier__c") == {}
    org.hide_field("Opportunity", "Tier__c", hidden=False)
    result = nights()
    assert nights.payloads("Tier__c") == stored(org, "Tier__c") and len(stored(org, "Tier__c")) == DEALS
    assert nights.deals("is_deleted")[org.deals[3]] is True
    assert result["Opportunity"].changed == DEALS
    assert nights.manifest("Opportunity.fields")["complete"] is True
    nights()
    assert nights.manifest("Opportunity.fields")["mode"] == "incremental"  # once was enough


def test_a_field_hidden_for_a_night_is_whole_again_afterwards(org, nights):
    nights()
    hashes = nights.deals("row_hash", "next_step")
    org.hide_field("Opportunity", "NextStep")
    org.update("Opportunity", org.deals[1], {"Description": "saved while hidden"})
    result = nights()
    assert "NextStep is no longer visible (removed, or hidden from the user): its last values are kept" in result["Opportunity"].notice
    assert result["Opportunity"].changed == 1 and nights.lost() == ["NextStep"]
    assert {id: step for id, (_, step) in nights.deals("row_hash", "next_step").items()} == {id: step for id, (_, step) in hashes.items()}
    org.hide_field("Opportunity", "NextStep", hidden=False)
    org.con.execute("""UPDATE "Opportunity" SET "NextStep" = CASE WHEN "Amount" > 600 THEN 'New' END WHERE "Amount" > 300""")
    result = nights()
    assert nights.payloads("NextStep") == stored(org, "NextStep")
    assert nights.lost() == [] and result["Opportunity"].changed == 8


def test_a_field_of_another_type_is_read_again(org, nights):
    org.add_field("Opportunity", "Rank__c", "string")
    org.con.execute("""UPDATE "Opportunity" SET "Rank__c" = '0' || ("Amount" / 100)::INTEGER""")
    nights()
    assert nights.payloads("Rank__c")[org.deals[5]] == "05"
    with org.lock:
        del org.objects["Opportunity"].fields["Rank__c"]
        org.con.execute('ALTER TABLE "Opportunity" DROP "Rank__c"')
    org.add_field("Opportunity", "Rank__c", "double")
    org.con.execute('UPDATE "Opportunity" SET "Rank__c" = "Amount" / 100')
    nights()
    assert nights.payloads("Rank__c") == {id: str(n) for n, id in enumerate(org.deals)}
    assert known_fields(nights.con, "sales")["Opportunity"]["Rank__c"] == "double"


def test_a_field_of_an_account_that_becomes_visible_is_read_of_all_accounts(org, nights):
    org.hide_field("Account", "Industry")
    nights()
    org.hide_field("Account", "Industry", hidden=False)
    nights()
    assert nights.manifest("Account")["mode"] == "full"
    assert nights.con.execute("select industry from core.account where name = 'Acme'").fetchall() == [("Energy",)]
    mark = ops.watermarks(nights.con, "sales")["Account"]
    nights()
    assert nights.manifest("Account")["mode"] == "incremental" and ops.watermarks(nights.con, "sales")["Account"] >= mark


# Fields that go ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["rest", "bulk"])
def test_a_field_removed_between_describe_and_query_stops_nothing(org, nights, monkeypatch, api):
    nights(api=api)
    org.update("Opportunity", org.deals[1], {"Amount": 5})
    chosen = extract.select

    def select(client, spec, mapped=()):
        selection = chosen(client, spec, mapped)
        if spec.name == "Opportunity":
            org.hide_field("Opportunity", "Win_Reason__c")
        return selection

    monkeypatch.setattr(extract, "select", select)
    result = nights(api=api)
    assert result["Opportunity"].fetched == 2 and "Win_Reason__c" in result["Opportunity"].notice
    assert nights.payloads("Win_Reason__c") == stored(org, "Win_Reason__c") and nights.lost() == ["Win_Reason__c"]
    assert nights.deals("amount")[org.deals[1]] == 5


def test_a_field_removed_while_a_bulk_job_runs_costs_one_job(org, nights):
    nights(api="bulk")
    org.update("Opportunity", org.deals[1], {"Amount": 5})
    message = "INVALID_FIELD: \nWin_Reason__c FROM Opportunity\n^\nERROR at Row:1:Column:24\nNo such column 'Win_Reason__c' on entity 'Opportunity'."
    org.faults.arm("job_failed", path="FROM Opportunity WHERE SystemModstamp", message=message)
    jobs = len(org.jobs.all())
    result = nights(api="bulk")
    assert len([job for job in org.jobs.all()[jobs:] if "FROM Opportunity WHERE SystemModstamp" in job.text]) <= 2
    assert result["Opportunity"].fetched == 2 and nights.lost() == ["Win_Reason__c"]
    assert {file["format"] for file in nights.manifest("Opportunity")["files"]} == {"csv"}


def test_a_mapped_field_that_is_hidden_is_named(org, nights):
    org.hide_field("Opportunity", "Loss_Reason__c")
    result = nights(fields={"lost_reason": "Loss_Reason__c"})
    assert "Loss_Reason__c" in result["Opportunity"].notice


# What went -----------------------------------------------------------------------------------------------------------------------


def test_purged_contacts_and_activities_leave_their_deals(org, nights):
    role = org.create("OpportunityContactRole", {"OpportunityId": org.deals[1], "ContactId": org.contact})
    org.create("OpportunityContactRole", {"OpportunityId": org.deals[2], "ContactId": org.contact})
    task = org.create("Task", {"WhatId": org.deals[1], "Subject": "Call", "Status": "Completed"})
    event = org.create("Event", {"WhatId": org.deals[2], "Subject": "Meet", "StartDateTime": "2026-11-19T10:00:00Z", "DurationInMinutes": 30})
    nights(objects=AROUND)
    assert nights.con.execute("select count(*) from core.activity").fetchone() == (2,)
    for obj, id in (("OpportunityContactRole", role), ("Task", task), ("Event", event)):
        org.hard_delete(obj, id)
    result = nights(objects=AROUND)
    assert nights.con.execute("select count(*) from core.activity").fetchone() == (0,)
    assert [nights.deals("contact_count")[org.deals[n]] for n in (1, 2)] == [0, 1]
    assert all(result[f"{obj}.deleted"].deleted == 1 for obj in ("OpportunityContactRole", "Task", "Event"))


def test_after_a_long_pause_what_is_there_is_listed(org, nights):
    role = org.create("OpportunityContactRole", {"OpportunityId": org.deals[2], "ContactId": org.contact})
    org.create("Task", {"WhatId": org.deals[2], "Subject": "Call", "Status": "Completed"})
    nights(objects=AROUND)
    org.hard_delete("Opportunity", org.deals[1])
    org.hard_delete("OpportunityContactRole", role)
    org.clock.advance(timedelta(days=20))
    result = nights(objects=AROUND)
    assert {id for id, gone in nights.deals("is_deleted").items() if gone} == {org.deals[1]}
    assert nights.deals("contact_count")[org.deals[2]] == 0
    assert nights.con.execute("select count(*) from core.activity").fetchone() == (1,)
    assert result["Opportunity.ids"].fetched == DEALS - 1 and "does not reach back" in result["Opportunity.deleted"].notice
    result = nights(objects=AROUND)
    assert "Opportunity.ids" not in result and result["Opportunity.deleted"].notice is None


def test_a_quiet_org_is_not_listed_each_night(org, nights):
    nights(objects=AROUND)
    for _ in range(3):
        result = nights(objects=AROUND, hours=24 * 8)
    assert "Opportunity.ids" not in result


def test_deleted_and_restored_between_two_nights(org, nights):
    nights()
    org.delete("Opportunity", org.deals[1])
    org.clock.advance(timedelta(seconds=1))
    org.undelete("Opportunity", org.deals[1])
    nights(hours=1)
    assert not any(nights.deals("is_deleted").values())


def test_an_org_that_tells_no_deletions_is_noted(org, nights):
    nights()
    org.faults.arm("status", status=404, path="/deleted/", times=9)
    result = nights()
    assert all("does not tell what was deleted" in result[f"{obj}.deleted"].notice for obj in ("Opportunity", "Account"))


# Parents -------------------------------------------------------------------------------------------------------------------------


def test_an_account_renamed_or_merged_shows_on_deals_that_nobody_saved(org, nights):
    nights()
    org.update("Account", org.acme, {"Name": "Acme SE"})
    result = nights()
    assert set(nights.deals("account_name").values()) == {"Acme SE"} and result["Opportunity"].changed == 0
    stamps = stored(org, "SystemModstamp")
    org.merge_accounts(org.berg, [org.acme])
    org.con.executemany('UPDATE "Opportunity" SET "SystemModstamp" = ?::TIMESTAMP WHERE "Id" = ?', [[at, id] for id, at in stamps.items()])
    org.con.execute('DELETE FROM "Account" WHERE "Id" = ?', [org.acme])  # the bin was emptied: nobody names the survivor any more
    nights()
    names = nights.deals("account_name")
    assert {names[id] for n, id in enumerate(org.deals) if n % 4} == {"Berg"}


def test_merged_accounts_take_their_deals_along(org, nights):
    nights()
    org.merge_accounts(org.berg, [org.acme])
    nights()
    assert set(nights.deals("account_id", "account_name").values()) == {(org.berg, "Berg")}


def test_owners_roles_and_record_types_show_on_deals_that_nobody_saved(org, nights):
    nights(objects=PARENTS)
    owner = org.rows('SELECT "OwnerId" FROM "Opportunity"')[0][0]
    org.update("User", owner, {"LastName": "Married", "IsActive": False, "ManagerId": org.integration_user_id})
    org.con.execute("""UPDATE "RecordType" SET "Name" = "Name" || ' renamed'""")
    result = nights(objects=PARENTS)
    assert all(name.endswith("Married") for name in nights.deals("owner_name").values())
    assert set(nights.deals("owner_active").values()) == {False}
    assert nights.con.execute("select manager_id from core.owner where owner_id = ?", [owner]).fetchone() == (org.integration_user_id,)
    assert result["Opportunity"].changed == 0
