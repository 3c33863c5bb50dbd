"""What the past costs at a million deals with eight versions each: `python benchmarks/time_machine.py [DEALS] [MEMORY]`.

As-of an instant, 24 month ends at once, a waterfall, and a night's 10,000 changed deals. Each beside one plain scan of the same versions in
the same run (reading three of their columns): the ratio is what the question costs above looking at every row once. No test: figures depend
on the machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from warehouse.apply import apply_groups
from warehouse.business import state_timezone
from warehouse.connection import open_warehouse

VERSIONS = 8
MAKE = """
    insert into core.source (source, crm, business_timezone, home_currency, first_synced_at, last_synced_at)
    values ('sales', 'salesforce', 'Europe/Berlin', 'EUR', timestamptz '2026-11-20 01:00:00Z', timestamptz '2026-11-20 01:00:00Z');
    insert into core.opportunity_version by name
    with v as (
        select i, n, hash(i) as h, timestamptz '2024-01-01 00:00:00Z' + to_seconds((hash(i) % 60000000)::bigint)
                   + to_seconds((n * (200000 + hash(i) % 2000000))::bigint) as valid_from
        from range($deals) t(i), range($versions) s(n)
    )
    select 'sales:006' || lpad(i::varchar, 15, '0') as opportunity_key, valid_from,
           if(n = $versions - 1, NULL, valid_from + to_seconds((200000 + h % 2000000)::bigint)) as valid_to, 'crm_history' as origin,
           ['qualified', 'discovery', 'proposal', 'negotiation', 'closed_won', 'closed_lost'][(least(n, 3 + (h % 3)::integer) + 1)::bigint] as stage,
           'Stage' || n::varchar as crm_stage, 'New Business' as pipeline, ((h + n) % 10000000 / 100)::decimal(18, 2) as amount, 'EUR' as currency,
           ((h + n) % 10000000 / 100)::decimal(18, 2) as amount_home, date '2024-03-01' + ((h + n * 20) % 1000)::integer as close_date,
           '005' || ((h + n // 4) % 200)::varchar as owner_id, 0.25 as probability, 'pipeline' as forecast_category, NULL as next_step,
           n > 3 and h % 3 > 0 as is_closed, n > 3 and h % 3 = 1 as is_won, n = $versions - 1 and h % 50 = 0 as is_deleted
    from v
"""
QUESTIONS = {
    "as of an instant": "select stage, count(*), sum(amount_home) from bi.opportunity_as_of(timestamptz '2025-06-30 12:00:00Z') group by stage",
    "24 month ends": """
        with month as (select unnest(generate_series(timestamptz '2024-02-01', timestamptz '2026-01-01', interval 1 month)) as instant)
        select m.instant, v.stage, count(*), sum(v.amount_home)
        from month m join core.opportunity_version v on v.valid_from <= m.instant and (v.valid_to > m.instant or v.valid_to is null)
        group by all
    """,
    "a waterfall": "from bi.pipeline_movement(date '2025-06-30', date '2025-09-30', date '2025-07-01', date '2025-12-31')",
    "a year's waterfall": "from bi.pipeline_movement(date '2024-12-31', date '2025-12-31', date '2025-01-01', date '2026-12-31')",
    "open pipeline of a day": "from bi.open_pipeline(date '2025-08-15', date '2025-07-01', date '2025-09-30')",
    "coverage of a quarter": "from bi.coverage(date '2025-08-15', date '2025-07-01', date '2025-09-30')",
    "accuracy of a forecast": "from bi.forecast_accuracy(date '2025-08-15', date '2025-07-01', date '2025-09-30')",
    "concentration": "from bi.concentration(date '2025-08-15', date '2025-07-01', date '2025-09-30')",
}
SCAN = "select count(*), max(valid_from), sum(hash(stage)), sum(amount_home) from core.opportunity_version"


def best(con: Any, sql: str, times: int = 3) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        con.execute(sql).fetchall()
        taken.append(time.perf_counter() - start)
    return min(taken)


def night(con: Any, changed: int) -> float:
    """Seconds to bring `changed` deals, each with one version more, into the timelines as a load does."""
    con.execute(f"""
        create or replace temp table in_scope as
        select opportunity_key from core.opportunity_version where valid_to is null order by hash(opportunity_key) limit {changed};
        create or replace temp table new_version as
        select * replace (if(valid_to is null, timestamptz '2026-12-01 00:00:00Z', valid_to) as valid_to)
        from core.opportunity_version semi join in_scope using (opportunity_key)
        union all
        select * replace (timestamptz '2026-12-01 00:00:00Z' as valid_from, amount + 1 as amount)
        from core.opportunity_version semi join in_scope using (opportunity_key) where valid_to is null
    """)
    start = time.perf_counter()
    con.execute("begin")
    apply_groups(con, "core.opportunity_version", "new_version", group="opportunity_key", key=("valid_from",), within="in_scope")
    con.execute("commit")
    return time.perf_counter() - start


def main(deals: int = 1_000_000, memory: str = "2GB") -> None:
    with tempfile.TemporaryDirectory() as directory, open_warehouse(Path(directory) / "plumbline.duckdb", memory_limit=memory) as warehouse:
        con = warehouse.con
        start = time.perf_counter()
        for statement in MAKE.replace("$deals", str(deals)).replace("$versions", str(VERSIONS)).split(";\n"):
            con.execute(statement)
        state_timezone(con)
        con.execute("checkpoint")
        print(f"{deals * VERSIONS:,} versions made in {time.perf_counter() - start:.0f} s")
        scan = best(con, SCAN)
        print(f"{'one scan':32} {scan:8.3f} s")
        for name, sql in QUESTIONS.items():
            taken = best(con, sql)
            print(f"{name:32} {taken:8.3f} s  {taken / scan:6.1f} scans")
        for changed in (1_000, 10_000, 100_000):
            print(f"{f'{changed:,} deals changed':32} {night(con, changed):8.3f} s")


if __name__ == "__main__":
    main(*(kind(value) for kind, value in zip((int, str), sys.argv[1:], strict=False)))
