"""How long a first night takes on a large org, step by step, and how much memory: `python benchmarks/first_sync.py [DEALS] [CRM] [MEMORY]`.

The simulator runs in a process of its own, so that the memory printed is Plumbline's. The floor is DuckDB reading the same landed
files once into text columns, in the same run: the ratio to its CPU time is what raw, canonical tables, history, deletions and counts
cost. No test: figures depend on the machine.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
CONFIG = """
[sources.big]
crm = "salesforce"
instance_url = "{url}"
client_id = "${{ID}}"
client_secret = "${{SECRET}}"
quota_share = 1.0

[warehouse]
memory_limit = "{memory}"
"""
CONFIG_HUBSPOT = """
[sources.big]
crm = "hubspot"
base_url = "{url}"
access_token = "${{TOKEN}}"
quota_share = 1.0

[warehouse]
memory_limit = "{memory}"
"""


def serve(deals: int, crm: str, pipe) -> None:
    from connectors.simulator.server import Simulator

    sizes = {"salesforce_deals": deals if crm == "salesforce" else 10, "hubspot_deals": deals if crm == "hubspot" else 10}
    start = time.perf_counter()
    with Simulator(None, now=NOW, crms=(crm,), **sizes) as sim:
        if crm == "salesforce":
            app = sim.salesforce.identity
            pipe.send((sim.salesforce_url, {"ID": app.client_id, "SECRET": app.client_secret}, time.perf_counter() - start))
        else:
            pipe.send((sim.hubspot_url, {"TOKEN": sim.hubspot.access.access_token}, time.perf_counter() - start))
        pipe.recv()


@contextmanager
def timed(title: str):
    wall, cpu = time.perf_counter(), time.process_time()
    took = {}
    yield took
    took["cpu"] = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{title:<34}{time.perf_counter() - wall:>8.1f} s wall {time.process_time() - cpu:>8.1f} s CPU   peak {peak:>6,.0f} MB", flush=True
    )


READERS = {
    "part-*.csv": "read_csv('{}', all_varchar = true)",
    "part-*.json": "read_json_objects('{}', format = 'array')",
    "part-*.ndjson": "read_json_objects('{}', format = 'newline_delimited')",
}


def read(landed: Path) -> int:
    """Read every landed file once, as text; returns the number of records."""
    import duckdb

    con, rows = duckdb.connect(), 0
    for directory in sorted(path for path in landed.iterdir() if path.is_dir()):
        for pattern, reader in READERS.items():
            if list(directory.glob(pattern)):
                con.execute(f"create or replace table landed as from {reader.format(directory / pattern)}")
                rows += con.execute("select count(*) from landed").fetchone()[0]
    return rows


def main() -> None:
    deals = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    crm = sys.argv[2] if len(sys.argv) > 2 else "salesforce"
    memory = sys.argv[3] if len(sys.argv) > 3 else "750MB"
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(deals, crm, theirs), daemon=True)
    server.start()
    url, secrets, seconds = ours.recv()
    print(f"{deals:,} deals in {crm}, made in {seconds:.1f} s (not counted)")
    os.environ.update(secrets)
    from flows import check, publish, report, snapshot, stages, sync
    from flows.run import open_run
    from flows.settings import load_settings

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "plumbline.toml"
        file.write_text((CONFIG if crm == "salesforce" else CONFIG_HUBSPOT).format(url=url, memory=memory))
        settings = load_settings(file)
        with timed("the whole first night"), open_run("benchmark", settings, NOW) as run:
            (source,) = settings.chosen(None)
            with timed("  pull"):
                pulled = sync.pull(run, source, full=False, known=sync._known(run, source))
            with timed("  load") as load:
                objects = sync.load(run, source, pulled)
            with timed("  stages"):
                stages.refresh(run)
            with timed("  import Great Expectations"):
                import great_expectations  # noqa: F401
            with timed("  check"):
                result = check.check(run)
            with timed("  check again, nothing changed"):
                check.check(run)
            with timed("  snapshot"):
                snapshot.snapshot(run)
            with timed("  report"):
                page = report.report(run)
            with timed("  publish"):
                published = publish.publish(run)
        with timed("the next sync, nothing changed"), open_run("benchmark", settings, NOW) as run:
            again = sync.sync(run)
        with timed("floor: the files into text columns") as floor:
            rows = read(settings.warehouse.landing / "big" / pulled.run_id)
        print(
            f"load / floor: {load['cpu'] / floor['cpu']:.1f} (CPU), {rows:,} records of {len(objects)} objects, {pulled.calls:,} API calls"
        )
        for line in [*again.lines(), *check.lines(result)]:
            print(line)
        files = {"report": page, "published": published, "warehouse": settings.warehouse.path}
        print(", ".join(f"{name} {file.stat().st_size / 1e6:.1f} MB" for name, file in files.items()))
    ours.send("done")
    server.join(10)


if __name__ == "__main__":
    main()
