"""What an admin is told before the first night and after a bad one: each thing that is in the way, by name, with its fix."""

import hashlib
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import duckdb
import pytest
from company import NIGHT_1, _environment, company, configuration
from typer.testing import CliRunner

from connectors.salesforce import access
from connectors.salesforce.auth import TokenProvider
from flows.cli import app
from warehouse.connection import open_warehouse
from warehouse.writeback import FIELDS

SECRETS = ("demo-secret", "simulated-secret")


@pytest.fixture(scope="module")
def sim():
    with company(salesforce_deals=60, hubspot_deals=50) as sim, _environment(sim):
        sim.salesforce.tracked_fields = [*sim.salesforce.tracked_fields, "RecordTypeId"]
        yield sim


@pytest.fixture(scope="module")
def synced(sim, tmp_path_factory):
    """An installation after its first sync."""
    file = configuration(tmp_path_factory.mktemp("synced"), sim)
    assert run(file, "sync")[0] == 0
    return file


@pytest.fixture
def file(sim, tmp_path):
    """An installation before its first sync."""
    return configuration(tmp_path, sim)


def run(file, *words, now=NIGHT_1):
    """A command in this process: exit code and everything that it printed."""
    done = CliRunner().invoke(app, ["--config", str(file), "--now", now.isoformat(), *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    for secret in SECRETS:
        assert secret not in done.output
    return done.exit_code, done.output


def doctor(file, *sources, now=NIGHT_1):
    """(exit code, {source or "Plumbline": lines})."""
    code, printed = run(file, "--json", "doctor", *sources, now=now)
    told = json.loads(printed)
    assert told["exit_code"] == code
    return code, {**{s["source"]: s["lines"] for s in told["sources"]}, "Plumbline": told["general"]}


def line(lines, area, containing=""):
    """The one line about `area` that holds the words; a line that is not ok says what to do."""
    found = [x for x in lines if x["area"] == area and containing in x["said"]]
    assert len(found) == 1, (area, containing, lines)
    assert found[0]["state"] == "ok" or found[0]["fix"]
    return found[0]


@contextmanager
def briefly(do, undo):
    do()
    try:
        yield
    finally:
        undo()


def hidden(org, *fields):
    """Fields of Opportunity under field-level security for a while."""

    def show(visible):
        for name in fields:
            org.hide_field("Opportunity", name, hidden=not visible)

    return briefly(lambda: show(False), lambda: show(True))


def absent(org, name):
    """An object that the user may not see for a while."""
    return briefly(lambda: org.hide_object(name), lambda: org.hide_object(name, hidden=False))


def changed(text, file, old, new):
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_before_the_first_sync_nothing_is_in_the_way_and_nothing_is_made(sim, file):
    before = sim.salesforce.calls_today
    code, told = doctor(file)
    assert code == 0
    assert {x["state"] for lines in told.values() for x in lines} == {"ok"}
    signed_in = line(told["sales"], "sign-in")["said"]
    assert "integration@plumbline.example" in signed_in
    assert "client credentials, API 68.0" in signed_in
    assert "there is none yet: the first `plumbline sync` makes" in line(told["Plumbline"], "warehouse")["said"]
    took = line(told["sales"], "API budget")["detail"]["calls"]
    assert took == sim.salesforce.calls_today - before <= 12
    assert sorted(path.name for path in file.parent.iterdir()) == ["plumbline.toml"]


def test_as_people_read_it(sim, file):
    with hidden(sim.salesforce, "NextStep"):
        code, printed = run(file, "doctor", "sales")
        quiet = run(file, "-q", "doctor", "sales")[1]
    assert code == 0
    lines = printed.splitlines()
    assert lines[0].startswith("sales (Salesforce, 127.0.0.1:")
    place = next(i for i, text in enumerate(lines) if text.startswith("  ! fields"))
    assert "NextStep is not in the org, or hidden by field-level security: next_step_empty cannot be judged (unknown)" in lines[place]
    assert lines[place + 1].strip() == "→ Give the user's permission set Read on Opportunity.NextStep."
    assert lines[-1] == "1 warning."
    assert not any("✓" in text for text in quiet.splitlines())
    assert "NextStep" in quiet


def test_an_org_without_history_tracking(sim, file):
    org = sim.salesforce
    tracked = org.tracked_fields
    with briefly(lambda: org.set_field_history_tracking([]), lambda: org.set_field_history_tracking(tracked)):
        code, told = doctor(file, "sales")
        found = line(told["sales"], "history", "field history tracking is off for Opportunity")
        assert (code, found["state"]) == (0, "warning")
        assert "when the next step was last changed; who owned a deal" in found["said"]
        assert "Set History Tracking" in found["fix"]
        org.set_field_history_tracking(["StageName", "OwnerId"])
        found = line(doctor(file, "sales")[1]["sales"], "history", "NextStep, RecordTypeId are not tracked")
        assert found["detail"]["tracked"] == ["OwnerId", "StageName"]
        # Where the org does not say which fields are tracked, nothing is guessed: the log tells of what has changed, and no more.
        with absent(org, "FieldDefinition"):
            found = line(doctor(file, "sales")[1]["sales"], "history", "not tracked, or never changed")
            assert "NextStep" in found["detail"]["seen"]
            with absent(org, "OpportunityFieldHistory"):
                line(doctor(file, "sales")[1]["sales"], "history", "off for Opportunity, or OpportunityFieldHistory is hidden")


def test_hidden_fields_by_name_with_the_rules_that_they_blind(sim, file):
    with hidden(sim.salesforce, "Amount", "Loss_Reason__c", "Type"):
        code, told = doctor(file, "sales")
    assert code == 0
    amount = line(told["sales"], "fields", "Amount is not in the org, or hidden")
    assert amount["detail"]["rules"] == ["amount_missing_or_zero", "single_threaded", "state_inconsistent"]
    assert "state_inconsistent in part cannot be judged" in amount["said"]
    reason = line(told["sales"], "fields", "Loss_Reason__c (mapped as lost_reason)")
    assert reason["detail"]["rules"] == ["exit_closed_lost"]
    assert "[sources.sales.fields]" in reason["fix"]
    assert "renewals are told by their record type only" in line(told["sales"], "fields", "Type")["said"]


def test_what_the_last_sync_lost_says_since_when(sim, synced):
    text = synced.read_text(encoding="utf-8")
    with hidden(sim.salesforce, "NextStep"):
        assert run(synced, "sync", "sales", now=NIGHT_1 + timedelta(hours=1))[0] == 0
        _, told = doctor(synced, "sales", now=NIGHT_1 + timedelta(days=3))
        assert "as since the sync of 2026-03-10: next_step_empty cannot be judged" in line(told["sales"], "fields")["said"]
        assert run(synced, "check", now=NIGHT_1 + timedelta(hours=1))[0] == 0
        with duckdb.connect(str(synced.parent / "plumbline.duckdb"), read_only=True) as con:
            counts = "select applicable, evaluable, failed from quality.result where rule_id = 'next_step_empty' and source = 'sales'"
            applicable, evaluable, failed = con.execute(counts).fetchone()
        assert applicable > 0
        assert (evaluable, failed) == (0, 0)
        changed(text, synced, sim.salesforce_url, "http://127.0.0.1:9")  # the CRM cannot be asked: it is known all the same
        code, told = doctor(synced, "sales", now=NIGHT_1 + timedelta(days=3))
        synced.write_text(text, encoding="utf-8")
        assert code == 3
        assert "next_step_empty" in line(told["sales"], "last seen")["said"]
    assert run(synced, "sync", "sales", now=NIGHT_1 + timedelta(hours=2))[0] == 0
    assert line(doctor(synced, "sales")[1]["sales"], "fields")["state"] == "ok"


@pytest.mark.parametrize(
    ("name", "cost", "rules"),
    [
        ("OpportunityContactRole", "contacts on deals are unknown", ["exit_qualified", "no_contact", "single_threaded"]),
        ("Event", "meetings do not count as activity", None),
        ("User", "whether they still work here", ["owner_not_working"]),
    ],
)
def test_an_object_around_the_deal_that_cannot_be_read(sim, file, name, cost, rules):
    with absent(sim.salesforce, name):
        code, told = doctor(file, "sales")
    found = line(told["sales"], "objects", name)
    assert (code, found["state"]) == (0, "warning")
    assert cost in found["said"]
    assert found["detail"].get("rules") == rules


def test_opportunities_that_cannot_be_read_at_all(sim, file):
    with absent(sim.salesforce, "Opportunity"):
        code, told = doctor(file)
    assert code == 3
    assert "View All" in line(told["sales"], "deals")["fix"]
    assert line(told["inbound"], "deals")["state"] == "ok"


def test_a_user_who_does_not_see_every_deal(sim, file):
    org = sim.salesforce
    with briefly(lambda: org.set_view_all(False), lambda: org.set_view_all(True)):
        found = line(doctor(file, "sales")[1]["sales"], "sharing", "shared with it only")
        assert found["state"] == "warning"
        with absent(org, "PermissionSet"):
            line(doctor(file, "sales")[1]["sales"], "sharing", "cannot be told")


def test_a_read_only_user(sim, file):
    org, text = sim.salesforce, file.read_text(encoding="utf-8")
    with briefly(lambda: org.set_read_only(True), lambda: org.set_read_only(False)):
        code, told = doctor(file, "sales")
        found = line(told["sales"], "write-back", "may not edit opportunities")
        assert (code, found["state"]) == (3, "problem")
        assert "Edit on Opportunity" in found["fix"]
        changed(text, file, 'mode = "apply"', 'mode = "off"')
        code, told = doctor(file, "sales")
        assert (code, line(told["sales"], "write-back", "off;")["state"]) == (0, "ok")


def test_fields_that_write_back_lacks(sim, file):
    org = sim.salesforce
    locked = briefly(
        lambda: org.lock_field("Opportunity", "Plumbline_Issues__c"), lambda: org.lock_field("Opportunity", "Plumbline_Issues__c", locked=False)
    )
    with hidden(org, "Plumbline_Score__c"), locked:
        code, told = doctor(file, "sales")
    found = line(told["sales"], "write-back", "some fields will be left out")
    assert (code, found["state"]) == (0, "warning")
    assert "hidden: Plumbline_Score__c; read-only for the user: Plumbline_Issues__c" in found["said"]
    assert set(access.WRITTEN) == set(FIELDS["salesforce"].values())


def test_two_percent_of_the_days_calls_left_and_none(sim, file):
    org = sim.salesforce
    limit, used = org.daily_limit, org.calls_today
    with briefly(lambda: org.use_calls(int(limit * 0.98) - used), lambda: setattr(org, "daily_limit", limit)):
        code, told = doctor(file, "sales")
        found = line(told["sales"], "API budget", "(2%) are left")
        assert (code, found["state"]) == (0, "warning")
        assert "Setup > API Usage" in found["fix"]
        assert found["detail"]["run"] == found["detail"]["left"] < limit * 0.25
        org.use_calls(limit)
        code, told = doctor(file)
        assert code == 3
        assert line(told["sales"], "API budget", "0 (0%) are left")["state"] == "problem"
        assert line(told["inbound"], "API budget")["state"] == "ok"
        sim.clock.advance(timedelta(days=1))  # the rest of the tests have a day of their own


def test_deletions_and_bulk_that_are_closed(sim, file):
    org = sim.salesforce
    org.purge_delete_log(org.clock.now() - timedelta(days=3))
    with briefly(lambda: setattr(org, "bulk_enabled", False), lambda: setattr(org, "bulk_enabled", True)):
        code, told = doctor(file, "sales")
    assert code == 0
    assert "plumbline reconcile" in line(told["sales"], "deletions", "reaches back 3 days only")["fix"]
    assert line(told["sales"], "Bulk API", "large reads go by REST")["state"] == "warning"


def test_a_wrong_secret(sim, file, monkeypatch):
    monkeypatch.setenv("DEMO_SF_CLIENT_SECRET", "simulated-secret")
    code, told = doctor(file)
    found = line(told["sales"], "sign-in")
    assert (code, found["state"]) == (3, "problem")
    assert "client_secret" in found["fix"]
    assert [x["area"] for x in told["sales"]] == ["sign-in", "last sync"]  # nothing else could be asked
    assert line(told["inbound"], "deals")["state"] == "ok"
    monkeypatch.setenv("DEMO_HUBSPOT_TOKEN", "simulated-secret")
    assert line(doctor(file, "inbound")[1]["inbound"], "sign-in")["state"] == "problem"


def test_a_crm_that_is_down_is_told_soon(sim, file):
    changed(file.read_text(encoding="utf-8"), file, sim.salesforce_url, "http://127.0.0.1:9")
    start = time.monotonic()
    code, told = doctor(file, "sales")
    assert (code, line(told["sales"], "sign-in")["state"]) == (3, "problem")
    assert "refuses the connection" in line(told["sales"], "sign-in")["said"]
    assert time.monotonic() - start < 20


def test_tokens_that_do_not_last(sim, file, monkeypatch):
    text = file.read_text(encoding="utf-8")
    token = sim.salesforce.identity.issue(sim.salesforce.integration_user_id)
    monkeypatch.setenv("DEMO_SF_CLIENT_SECRET", token)
    changed(text, file, 'client_secret = "${DEMO_SF_CLIENT_SECRET}"', 'auth = "session"\naccess_token = "${DEMO_SF_CLIENT_SECRET}"')
    code, printed = run(file, "doctor", "sales")
    assert code == 0
    assert token not in printed
    assert "which is never renewed" in printed
    monkeypatch.setattr(TokenProvider, "_take_rotated", lambda self: setattr(self, "rotates", True))
    monkeypatch.setenv("DEMO_SF_CLIENT_SECRET", sim.salesforce.identity.refresh_token)
    changed(
        text, file, 'client_secret = "${DEMO_SF_CLIENT_SECRET}"',
        'client_secret = "demo-secret"\nauth = "refresh_token"\nrefresh_token = "${DEMO_SF_CLIENT_SECRET}"',
    )  # fmt: skip
    code, told = doctor(file, "sales")
    assert code == 3
    assert "rotation off" in line(told["sales"], "sign-in", "rotates refresh tokens")["fix"]


def test_a_hubspot_key_of_narrow_scope(sim, file):
    granted = sim.hubspot.access.scopes
    narrow = {s for s in granted if "owners" not in s and "contacts" not in s and "currencies" not in s}
    with briefly(lambda: setattr(sim.hubspot.access, "scopes", narrow), lambda: setattr(sim.hubspot.access, "scopes", granted)):
        code, told = doctor(file, "inbound")
    assert code == 0
    owners = line(told["inbound"], "objects", "owners")
    assert "crm.objects.owners.read" in owners["fix"]
    assert owners["detail"]["rules"] == ["owner_not_working"]
    assert "crm.objects.contacts.read" in line(told["inbound"], "objects", "contacts")["fix"]
    assert "settings.currencies.read" in line(told["inbound"], "currencies", "exchange rates")["fix"]
    without_deals = {s for s in granted if "deals" not in s}
    with briefly(lambda: setattr(sim.hubspot.access, "scopes", without_deals), lambda: setattr(sim.hubspot.access, "scopes", granted)):
        code, told = doctor(file, "inbound")
    assert code == 3
    assert "crm.objects.deals.read" in line(told["inbound"], "deals")["fix"]


def test_unmapped_stages_and_old_syncs(sim, synced):
    code, told = doctor(synced, now=NIGHT_1 + timedelta(days=9))
    assert code == 0
    found = line(told["sales"], "stages", "no canonical stage is known for 'Orbit Check'")
    assert "plumbline stages confirm sales 'Orbit Check' STAGE" in found["fix"]
    assert line(told["sales"], "last sync", " days ago")["state"] == "warning"
    assert "schema" in line(told["Plumbline"], "warehouse")["said"]


def test_values_that_cannot_be_read_say_where_they_stand(synced):
    assert not [x for lines in doctor(synced)[1].values() for x in lines if x["area"] == "values"]
    unread = [("amount", "amount", "12"), ("amount", "amount", "7"), ("closedate", "close_date", "7")]
    with open_warehouse(synced.parent / "plumbline.duckdb") as warehouse:
        for field, column, record in unread:
            warehouse.con.execute(
                "insert into core.unparsed_value values ('inbound', 'deals', $1, $2, $3, 'number', $4)", [record, field, column, NIGHT_1]
            )
    try:
        code, told = doctor(synced)
        found = line(told["inbound"], "values", "2 of amount (deals, such as 12), 1 of closedate (deals, such as 7)")
    finally:
        with open_warehouse(synced.parent / "plumbline.duckdb") as warehouse:
            warehouse.con.execute("delete from core.unparsed_value")
    assert (code, found["state"]) == (0, "warning")


def test_it_leaves_the_warehouse_as_it_was(synced):
    path = synced.parent / "plumbline.duckdb"
    before = hashlib.sha256(path.read_bytes()).hexdigest(), sorted(p.name for p in synced.parent.iterdir())
    doctor(synced)
    assert (hashlib.sha256(path.read_bytes()).hexdigest(), sorted(p.name for p in synced.parent.iterdir())) == before


HOLD = """
import sys, time
if sys.argv[2] == "ours":
    from warehouse.connection import open_warehouse
    held = open_warehouse(sys.argv[1], command="sync")
else:
    import duckdb
    held = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("who", "state", "code"), [("ours", "warning", 0), ("another", "problem", 4)])
def test_beside_a_run_and_behind_a_tool_that_holds_the_file(synced, who, state, code):
    path = synced.parent / "plumbline.duckdb"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), who], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        exit_code, told = doctor(synced)
    finally:
        holder.kill()
        holder.wait()
    found = line(told["Plumbline"], "warehouse", f"process {holder.pid}")
    assert (exit_code, found["state"]) == (code, state)
    assert line(told["sales"], "fields")["state"] == "ok"  # the CRMs are looked at all the same
    if who == "ours":
        assert f"is being written by process {holder.pid} (sync)" in found["said"]


def test_a_warehouse_that_is_none(sim, file):
    (file.parent / "plumbline.duckdb").write_text("a file of another kind, long enough to be read as a database" * 400, encoding="utf-8")
    code, told = doctor(file, "inbound")
    assert code == 4
    assert "not a whole DuckDB database" in line(told["Plumbline"], "warehouse")["said"]
    (file.parent / "diary").write_text("a file, not a directory", encoding="utf-8")
    changed(file.read_text(encoding="utf-8"), file, 'path = "plumbline.duckdb"', 'path = "diary/plumbline.duckdb"')
    changed(file.read_text(encoding="utf-8"), file, 'landing = "landing"', 'landing = "diary/landing"')
    code, told = doctor(file, "inbound")
    assert code == 4
    assert "diary is not a directory" in line(told["Plumbline"], "warehouse")["said"]
    assert "[warehouse] landing" in line(told["Plumbline"], "paths")["said"]


def test_a_configuration_that_cannot_be_used(sim, file, monkeypatch):
    monkeypatch.delenv("DEMO_HUBSPOT_TOKEN")
    changed(file.read_text(encoding="utf-8"), file, "max_share = 1.0", "max_share = 7.0")
    code, told = doctor(file)
    assert code == 2
    unset = line(told["Plumbline"], "configuration", "DEMO_HUBSPOT_TOKEN is not set")
    assert unset["fix"] == "Run: export DEMO_HUBSPOT_TOKEN=…"
    assert line(told["Plumbline"], "configuration", "[writeback] max_share")["state"] == "problem"
    assert list(told) == ["Plumbline"]
    file.unlink()
    code, told = doctor(file)
    assert code == 2
    assert "docs/configuration.md" in line(told["Plumbline"], "configuration", "no configuration file")["fix"]


def test_a_name_that_the_configuration_does_not_have(file):
    code = CliRunner().invoke(app, ["--config", str(file), "doctor", "sails"])
    assert "No source is called 'sails'" in str(code.exception)


def test_rules_that_cannot_be_used_come_before_the_crms(sim, file, monkeypatch):
    monkeypatch.setenv("DEMO_SF_CLIENT_SECRET", "simulated-secret")
    file.write_text(file.read_text(encoding="utf-8") + "\n[rules.next_step_emty]\nstate = 'off'\n", encoding="utf-8")
    code, told = doctor(file, "sales")
    assert code == 2
    assert "next_step_empty" in line(told["Plumbline"], "rules")["said"] + line(told["Plumbline"], "rules")["fix"]
    assert line(told["sales"], "sign-in")["state"] == "problem"


def test_prefect_is_at_hand_or_not(file, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://somebody:simulated-secret@127.0.0.1:9/api")
    code, told = doctor(file, "inbound")
    assert code == 0
    assert "http://127.0.0.1:9 does not answer" in line(told["Plumbline"], "Prefect")["said"]
