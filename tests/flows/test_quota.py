"""Few API calls: each run keeps within its share, keeps what it read, says so, and the next one goes on from there."""

import json

import duckdb
import pytest
from company import NIGHT_1, _environment, company, configuration, differences, merged_away

from flows.run import open_run
from flows.settings import load_settings
from flows.sync import sync

TABLES = (
    "opportunity", "opportunity_version", "stage_event", "contact_role", "activity", "account", "owner", "pipeline", "exchange_rate", "field",
)  # fmt: skip


@pytest.fixture(scope="module")
def sim():
    with company(salesforce_deals=130, hubspot_deals=60) as sim, _environment(sim):
        yield sim


def allow(file, calls, daily_limit, source="sales"):
    """Let a run make so many calls of a source."""
    text = file.read_text(encoding="utf-8")
    line = next(line for line in text[text.index(f"[sources.{source}]") :].splitlines() if line.startswith(("instance_url", "base_url")))
    lines = [kept for kept in text.splitlines() if not kept.startswith("quota_share")]
    file.write_text("\n".join(lines).replace(line, f"{line}\nquota_share = {calls / daily_limit}"), encoding="utf-8")


def synced(file, source="sales", *, full=False):
    """A sync of one source. Why it failed, in its two lines, or None."""
    with open_run("sync", load_settings(file), NIGHT_1) as run:
        return sync(run, [source], full=full).errors.get(source)


def tables(file):
    """The deals and what stands around them as the warehouse has them, without the names and times of runs."""
    left_out = {"synced_at", "landed_at", "run_id", "first_seen_at", "last_seen_at", "row_hash"}
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True) as con:
        found = {}
        for table in TABLES:
            columns = [f'"{row[0]}"' for row in con.execute(f"describe core.{table}").fetchall() if row[0] not in left_out]
            rows = con.execute(f"select {', '.join(columns)} from core.{table} order by all").fetchall()
            found[table] = (columns, rows)
        return found


def usage(file, source="sales"):
    with duckdb.connect(str(file.parent / "plumbline.duckdb"), read_only=True) as con:
        return con.execute("""
            select u.calls, u.calls_by_object, r.status, r.error from ops.api_usage u
            join ops.sync_run r on r.run_id = u.run_id and r.source = u.source where u.source = ? order by u.run_id
        """, [source]).fetchall()


def test_runs_of_few_calls_end_in_the_warehouse_of_one_with_many(sim, tmp_path):
    (tmp_path / "many").mkdir()
    (tmp_path / "few").mkdir()
    many, few = configuration(tmp_path / "many", sim), configuration(tmp_path / "few", sim)
    sim.salesforce.query_page = 40
    try:
        assert synced(many) is None
        expected = tables(many)
        allow(few, 20, sim.salesforce.daily_limit)
        for _ in range(20):
            said = synced(few)
            if said is None or tables(few) == expected:
                break
            first, second = said.splitlines()
            assert "stopped after 20 API calls: quota_share" in first and "; what was read is kept, the next run goes on from there" in first
            assert second == "Raise quota_share for this source, or run again tomorrow."
    finally:
        sim.salesforce.query_page = None
    here = tables(few)
    for name, held in expected.items():
        assert here[name] == held, name
    runs = usage(few)
    assert 3 <= len(runs) < 12
    for calls, by_object, status, error in runs:
        assert calls <= 20 and sum(json.loads(by_object).values()) == calls
        assert (status == "failed") == (error is not None)
    allow(few, 1000, sim.salesforce.daily_limit)
    assert synced(few) is None
    with duckdb.connect(str(tmp_path / "few" / "plumbline.duckdb"), read_only=True) as con:
        assert [d for d in differences(sim, con, merged_away(sim)) if d[0] == "sales"] == []


def test_a_portals_day_of_few_calls_is_kept_too(sim, tmp_path, monkeypatch):
    for name in ("reading.PAGE", "reading.PAGE_WITH_HISTORY", "deals.PAGE_WITH_HISTORY"):
        monkeypatch.setattr(f"connectors.hubspot.{name}", 4)
    (tmp_path / "many").mkdir()
    (tmp_path / "few").mkdir()
    many, few = configuration(tmp_path / "many", sim), configuration(tmp_path / "few", sim)
    assert synced(many, "inbound") is None
    expected = tables(many)
    allow(few, 24, sim.hubspot.limits.daily, "inbound")
    for _ in range(12):
        said = synced(few, "inbound")
        if said is None:
            break
        first, second = said.splitlines()
        assert "stopped after 24 API calls: quota_share" in first and "; what was read is kept, the next run goes on from there" in first
        assert second == "Raise quota_share for this source, or run again tomorrow."
    assert said is None
    here = tables(few)
    for name, held in expected.items():
        assert here[name] == held, name
    runs = usage(few, "inbound")
    assert 2 <= len(runs) < 12
    assert all(calls <= 24 for calls, *_ in runs)
