"""What goes wrong on an ordinary night: one clear message each, the exit code of the contract, and nothing lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from company import NIGHT_1, NIGHT_2, WORKDAY, _environment, company, configuration, differences, merged_away

from connectors.simulator.scenario import changed_day

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def sim():
    with company(salesforce_deals=150, hubspot_deals=100) as sim, _environment(sim):
        yield sim


@pytest.fixture
def file(sim, tmp_path):
    yield configuration(tmp_path, sim)
    sim.faults_salesforce.clear()
    sim.faults_hubspot.clear()


def command(file, *words, now=NIGHT_1):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return [sys.executable, "-m", "flows.cli", "--config", str(file), "--now", now.isoformat(), *words], {**clean, "PYTHONPATH": str(ROOT)}


def plumbline(file, *words, now=NIGHT_1, **environment):
    line, clean = command(file, *words, now=now)
    return subprocess.run(line, capture_output=True, text=True, env={**clean, **environment}, timeout=120, check=False)


def count(file, table="core.opportunity", where="true"):
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True) as con:
        return con.execute(f"select count(*) from {table} where {where}").fetchone()[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def plain(done):
    """What a person reads: no traceback, no secret."""
    assert "Traceback" not in done.stderr
    assert "demo-secret" not in done.stderr + done.stdout
    assert "demo-token" not in done.stderr + done.stdout
    return done.stderr


def test_a_wrong_password_fails_its_source_and_not_the_other(file):
    done = plumbline(file, "sync", DEMO_SF_CLIENT_SECRET="not-the-secret")
    assert done.returncode == 3
    first, second, *_ = plain(done).splitlines()  # said once, in two lines
    assert first.startswith("sales: Salesforce refuses")
    assert "client_secret" in second
    assert done.stderr.count("refuses") == 1
    assert "not-the-secret" not in done.stderr
    assert count(file, where="source = 'inbound'") > 0
    assert count(file, "ops.sync_run", "source = 'sales' and status = 'failed' and error is not null") == 1
    assert count(file, "ops.sync_run", "source is null and status = 'failed'") == 1


def test_a_wrong_token_says_where_to_get_a_right_one(file):
    done = plumbline(file, "sync", "inbound", DEMO_HUBSPOT_TOKEN="pat-wrong")
    assert done.returncode == 3
    assert "inbound" in plain(done)
    assert "access_token" in done.stderr
    assert "pat-wrong" not in done.stderr


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "https://nobody.plumbline.invalid"])
def test_a_host_that_is_not_there(file, address):
    text = file.read_text()
    sales = text.index("[sources.sales]")
    line = next(line for line in text[sales:].splitlines() if line.startswith("instance_url"))
    url = address.format(port=free_port())
    file.write_text(text.replace(line, f'instance_url = "{url}"'))
    done = plumbline(file, "sync", "sales")
    assert done.returncode == 3
    assert url.split("//")[1] in plain(done)
    assert len([line for line in done.stderr.splitlines() if "sales" in line]) <= 3


def test_a_user_who_may_not_read_deals_is_told_which_permission_is_missing(file, sim):
    sim.faults_hubspot.arm("status", status=403, times=99, path="/crm/v3/objects/deals")
    done = plumbline(file, "sync", "inbound")
    assert done.returncode == 3
    assert "crm.objects.deals.read" in plain(done)


def test_the_day_s_calls_used_up_ends_red_and_keeps_what_was_there(file, sim):
    assert plumbline(file, "sync").returncode == 0
    before = count(file)
    sim.faults_salesforce.arm("daily_limit")
    done = plumbline(file, "sync")
    assert done.returncode == 3
    assert "API calls" in plain(done)
    assert count(file) == before


def test_a_locked_warehouse_names_the_process_that_holds_it(file):
    assert plumbline(file, "sync", "inbound").returncode == 0
    from warehouse.connection import open_warehouse

    with open_warehouse(file.parent / "plumbline.duckdb", command="somebody's sync"):
        done = plumbline(file, "sync")
    assert done.returncode == 4
    assert f"process {os.getpid()} (somebody's sync)" in plain(done)


def test_a_bi_tool_on_the_private_file_is_named_too(file):
    assert plumbline(file, "sync", "inbound").returncode == 0
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True):
        done = plumbline(file, "sync")
    assert done.returncode == 4
    assert str(os.getpid()) in plain(done)
    assert "published" in done.stderr


def test_a_newer_warehouse_is_left_alone(file):
    assert plumbline(file, "sync", "inbound").returncode == 0
    with duckdb.connect(str(file.parent / "plumbline.duckdb")) as con:
        con.execute("insert into ops.schema_migration select 9999, 'from the future', now()")
    before = (file.parent / "plumbline.duckdb").read_bytes()
    done = plumbline(file, "sync")
    assert done.returncode == 4
    assert "newer" in plain(done)
    assert (file.parent / "plumbline.duckdb").read_bytes() == before


def test_a_file_that_is_no_warehouse_is_left_alone(file):
    (file.parent / "plumbline.duckdb").write_text("my diary")
    done = plumbline(file, "sync")
    assert done.returncode == 4
    assert "backup" in plain(done)
    assert (file.parent / "plumbline.duckdb").read_text() == "my diary"


def test_a_mistake_in_a_rule_is_told_before_the_night_begins(file):
    file.write_text(file.read_text() + "\n[rules.no_recent_activty]\ndays = 7\n")
    done = plumbline(file, "nightly")
    assert done.returncode == 2
    assert "no_recent_activity" in plain(done)
    assert not (file.parent / "plumbline.duckdb").exists()


def test_json_is_one_document_also_when_a_source_fails(file):
    done = plumbline(file, "--json", "sync", DEMO_SF_CLIENT_SECRET="wrong")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["status"] == "failed"
    assert {s["source"]: bool(s["error"]) for s in document["sources"]} == {"sales": True, "inbound": False}


def test_the_gate_fails_on_what_was_asked_for_and_not_without(file):
    assert plumbline(file, "sync").returncode == 0
    assert plumbline(file, "check").returncode == 0
    done = plumbline(file, "check", "--fail-on", "critical")
    assert done.returncode == 1
    assert "critical" in plain(done)


def test_a_plan_is_shown_held_and_sent_only_by_its_hash(file, sim):
    file.write_text(file.read_text().replace('mode = "apply"', 'mode = "approve"').replace("max_share = 1.0", "max_share = 0.1"))
    assert plumbline(file, "sync").returncode == 0
    assert plumbline(file, "check").returncode == 0
    planned = json.loads(plumbline(file, "--json", "writeback", "plan").stdout)
    assert planned["status"] == "held"
    shown = plumbline(file, "writeback", "show", "--csv", file.parent / "plan.csv")
    assert planned["plan_hash"] in shown.stdout
    assert len((file.parent / "plan.csv").read_text(encoding="utf-8").splitlines()) > planned["records"]
    held = plumbline(file, "writeback", "apply", "--plan", planned["plan_hash"])
    assert held.returncode == 2
    assert "--confirm-large" in plain(held)
    assert plumbline(file, "writeback", "apply", "--plan", "0000").returncode == 2
    done = plumbline(file, "writeback", "apply", "--plan", planned["plan_hash"], "--confirm-large")
    assert done.returncode == 0, done.stderr
    held_now = sim.salesforce.rows('select count(*) from "Opportunity" where "Plumbline_Status__c" is not null')
    assert held_now[0][0] > 10
    again = json.loads(plumbline(file, "--json", "writeback", "plan").stdout)
    assert again["records"] == 0


def test_write_back_is_off_until_it_is_configured(file):
    text = file.read_text()
    file.write_text(text[: text.index("[writeback]")])
    done = plumbline(file, "writeback", "plan")
    assert done.returncode == 2
    assert "[writeback]" in plain(done)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_told_to_stop_it_stops_at_once_says_so_and_lets_go_of_the_warehouse(file, sim, number, code):
    assert plumbline(file, "sync").returncode == 0
    sim.faults_hubspot.arm("slow", seconds=30, times=1)
    line, clean = command(file, "sync")
    process = subprocess.Popen(line, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    process.send_signal(number)
    start = time.perf_counter()
    _, said = process.communicate(timeout=20)
    assert process.returncode == code
    assert time.perf_counter() - start < 10
    assert said.strip() == "Stopped. What was committed is kept; the next run goes on from there."
    assert count(file, "ops.sync_run", "status = 'interrupted' and source is null") == 1


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_arrives_where_an_undisturbed_one_would(tmp_path):
    """kill -9 at many moments of a night; then one whole night: the warehouse equals the CRMs and no deal is there twice."""
    with company(salesforce_deals=300, hubspot_deals=200) as sim, _environment(sim):
        file = configuration(tmp_path, sim)
        gone_before = merged_away(sim)
        for seconds in (1.5, 2.5, 3.5, 5, 7, 9):
            line, clean = command(file, "nightly")
            process = subprocess.Popen(line, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
        sim.clock.set(WORKDAY)
        changed_day(sim)
        sim.clock.set(NIGHT_2)
        done = plumbline(file, "nightly", now=NIGHT_2)
        assert done.returncode == 0, done.stderr
        with duckdb.connect(str(tmp_path / "plumbline.duckdb"), read_only=True) as con:
            assert differences(sim, con, gone_before) == []
            assert con.execute("select opportunity_key from core.opportunity group by 1 having count(*) > 1").fetchall() == []
            assert con.execute("select count(*) from ops.sync_run where status = 'running'").fetchone() == (0,)
        again = json.loads(plumbline(file, "--json", "nightly", now=NIGHT_2).stdout)
        assert again["findings"]["opened"] == 0
        assert again["writeback"]["records"] == 0
