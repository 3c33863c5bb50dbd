"""A hundred thousand deals with eight history rows, two contacts and four tasks each, within a gigabyte of buffers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import orjson
import pytest
from warehouse_land import NOON, TYPES, SalesforcePull, stage_rows

from connectors.landing import Field, LandedFile, Manifest

DEALS = 100_000
NAMES = "['Prospecting', 'Qualification', 'Needs Analysis', 'Proposal/Price Quote', 'Negotiation/Review', 'Closed Won', 'Closed Lost']"
LOAD = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
import orjson
from warehouse.connection import open_warehouse
from warehouse.load import load
with open_warehouse(Path(sys.argv[1]), threads=2) as warehouse:
    for _ in range(2):
        began = time.monotonic()
        deals = next(c for c in load(warehouse.con, Path(sys.argv[2]), now=datetime(2026, 11, 20, 12, tzinfo=UTC)) if c.object == "Opportunity")
        # Of this process alone: ru_maxrss begins at what the process that started us had taken.
        peak = next(int(line.split()[1]) // 1024 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(orjson.dumps({"seconds": time.monotonic() - began, "peak_mb": peak, "counts": vars(deals)}).decode(), flush=True)
"""


def stamped(expression: str) -> str:
    return f"strftime({expression}, '%Y-%m-%dT%H:%M:%S.000Z')"


def stage(*seed: str) -> str:
    return f"({NAMES})[1 + (hash({', '.join(seed)}) % 7)::int]"


def bulk(pull: SalesforcePull, con: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
    """Land the rows of a query as the Bulk API would deliver them."""
    file = pull.landing.object_directory(name) / "part-00000.csv"
    columns = con.sql(sql).columns
    written = con.execute(f"copy ({sql}) to '{file}' (header, force_quote *)").fetchone()
    manifest = Manifest(pull.source, "salesforce", name, "Id", "full", complete=True, watermark=NOON)
    manifest.files = [LandedFile(file.name, "csv", written[0] if written else 0, file.stat().st_size, columns)]
    manifest.fields = [Field(c, TYPES.get(c, "string"), custom=c.endswith("__c")) for c in columns]
    pull._finish(manifest)


def land(root: Path) -> Path:
    con = duckdb.connect()
    pull = SalesforcePull(root, 1, full=True)
    deal, since = "'006' || lpad(i::varchar, 12, '0') || 'AAA'", stamped("timestamp '2025-01-01' + to_minutes((hash(i, 3) % 800000)::bigint)")
    custom = ", ".join(f"""if(hash(i, {k}) % 5 < 2, NULL, 'value ' || (hash(i, {k}) % 1000)) as "Custom_{k}__c" """ for k in range(40))
    bulk(pull, con, "Opportunity", f"""
        select {deal} as "Id", 'false' as "IsDeleted", '001' || lpad((i // 4)::varchar, 12, '0') || 'AAA' as "AccountId", 'Deal ' || i as "Name",
               'What is known of deal ' || i as "Description", {stage('i')} as "StageName",
               if(i % 20 = 0, NULL, (100 + hash(i, 1) % 900000) / 10.0) as "Amount", '10.0' as "Probability",
               (date '2026-01-01' + (hash(i, 2) % 500)::int)::varchar as "CloseDate", 'Call ' || i as "NextStep",
               (hash(i) % 7 >= 5)::varchar as "IsClosed", (hash(i) % 7 = 5)::varchar as "IsWon", 'Pipeline' as "ForecastCategoryName",
               (['EUR', 'USD', 'GBP'])[1 + i % 3] as "CurrencyIsoCode", '005' || lpad((i % 300)::varchar, 12, '0') || 'AAA' as "OwnerId",
               {since} as "CreatedDate", {since} as "SystemModstamp", {custom}
        from range({DEALS}) as t(i)
    """)  # fmt: skip
    bulk(pull, con, "OpportunityHistory", f"""
        select '008' || lpad((i * 8 + k)::varchar, 12, '0') || 'AAA' as "Id", {deal} as "OpportunityId",
               if(k = 7, {stage('i')}, {stage('i', 'k')}) as "StageName", '1000.0' as "Amount",
               (date '2026-01-01' + (hash(i, k, 2) % 300)::int)::varchar as "CloseDate", 'false' as "IsDeleted",
               {stamped("timestamp '2025-01-01' + to_minutes((hash(i, 3) % 800000)::bigint) + to_hours((k * 200)::bigint)")} as "CreatedDate"
        from range({DEALS}) as t(i), range(8) as s(k)
    """)  # fmt: skip
    bulk(pull, con, "OpportunityContactRole", f"""
        select '00K' || lpad((i * 2 + k)::varchar, 12, '0') || 'AAA' as "Id", {deal} as "OpportunityId",
               '003' || (i + k) as "ContactId", 'Influencer' as "Role", 'false' as "IsPrimary", 'false' as "IsDeleted"
        from range({DEALS}) as t(i), range(2) as s(k)
    """)  # fmt: skip
    bulk(pull, con, "Task", f"""
        select '00T' || lpad((i * 4 + k)::varchar, 12, '0') || 'AAA' as "Id", {deal} as "WhatId", 'Call' as "Subject", (k > 0)::varchar as "IsClosed",
               '2026-12-01' as "ActivityDate", {stamped("timestamp '2026-01-01' + to_hours((k * 200)::bigint)")} as "CompletedDateTime",
               'false' as "IsDeleted"
        from range({DEALS}) as t(i), range(4) as s(k)
    """)  # fmt: skip
    bulk(pull, con, "Account", f"""
        select '001' || lpad(i::varchar, 12, '0') || 'AAA' as "Id", 'Account ' || i as "Name", 'Energy' as "Industry", 'false' as "IsDeleted"
        from range({DEALS // 4}) as t(i)
    """)  # fmt: skip
    bulk(pull, con, "User", """
        select '005' || lpad(i::varchar, 12, '0') || 'AAA' as "Id", 'User ' || i as "Name", 'true' as "IsActive" from range(300) as t(i)
    """)  # fmt: skip
    rates = [{"Id": f"01L{i}", "IsoCode": c, "ConversionRate": r} for i, (c, r) in enumerate([("EUR", 1.0), ("USD", 1.1), ("GBP", 0.85)])]
    return pull.add("OpportunityStage", stage_rows()).add("Event", []).add("CurrencyType", rates).done()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_deals(tmp_path: Path) -> None:
    path, pull = tmp_path / "w.duckdb", land(tmp_path)
    loads = subprocess.run([sys.executable, "-c", LOAD, str(path), str(pull)], capture_output=True, text=True, check=True)
    first, second = map(orjson.loads, loads.stdout.splitlines())
    assert (first["counts"]["inserted"], second["counts"]["unchanged"]) == (DEALS, DEALS)
    assert max(first["peak_mb"], second["peak_mb"]) < 1500
    assert first["seconds"] < 240, "about half a minute on two idle cores"
    with duckdb.connect(str(path), read_only=True) as con:
        assert con.execute("select count(*), count(distinct opportunity_key) from core.opportunity").fetchone() == (DEALS, DEALS)
        assert con.execute("select count(*) from core.opportunity_version where valid_to is null").fetchone() == (DEALS,)
        assert con.execute("select count(*) from core.opportunity where is_closed and closed_at is null").fetchone() == (0,)
        assert con.execute("select count(*) from core.opportunity where amount is not null and amount_home is null").fetchone() == (0,)
        assert con.execute("select sum(contact_count), count(last_activity_at) from core.opportunity").fetchone() == (2 * DEALS, DEALS)
        assert con.execute("select count(*) from core.opportunity where stage = 'unmapped'").fetchone() == (0,)
