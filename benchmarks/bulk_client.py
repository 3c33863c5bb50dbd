"""What the Bulk path costs the client: `python benchmarks/bulk_client.py [ROWS] [TIMES]`.

CPU seconds of this process for ROWS (500,000) opportunities of 25 columns, twice: landed by the connector (job, pages side by side,
rows and stamps counted, manifest), and the same pages downloaded by requests into files in chunks of 1 MB, which is the least that
any client can do. Both read from the same simulated org, in a process of its own, both write and fsync the same bytes, and both are
measured TIMES (3) times; the least counts. Once as a real org sends it (gzip) and once not compressed, where nothing hides the
difference. The seconds that the kernel spends on sockets and files are shown apart. No test: figures depend on the machine.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
SIGN_IN = {"client_id": "plumbline-demo", "client_secret": "demo-secret"}  # of the simulated org
COLUMNS = (
    "Id", "IsDeleted", "AccountId", "Name", "Description", "StageName", "Amount", "Probability", "CloseDate", "Type", "NextStep", "LeadSource",
    "IsClosed", "IsWon", "ForecastCategoryName", "OwnerId", "CreatedDate", "LastModifiedDate", "SystemModstamp", "LastStageChangeDate",
    "CurrencyIsoCode", "Region__c", "Product_Line__c", "MainCompetitors__c", "TotalOpportunityQuantity",
)  # fmt: skip
# A text of some length, as sellers write it, with a quote, a comma and a line break in one of five.
FILL = """
    insert into "Opportunity" ("Id", "IsDeleted", "AccountId", "Name", "Description", "StageName", "Amount", "Probability", "CloseDate", "Type",
        "NextStep", "LeadSource", "IsClosed", "IsWon", "ForecastCategory", "ForecastCategoryName", "OwnerId", "CreatedById", "LastModifiedById",
        "CreatedDate", "LastModifiedDate", "SystemModstamp", "LastStageChangeDate", "CurrencyIsoCode", "Region__c", "Product_Line__c",
        "MainCompetitors__c", "TotalOpportunityQuantity")
    select '0065g' || lpad(i::varchar, 10, '0') || 'AAA', false, '0015g' || lpad((i % 90000)::varchar, 10, '0') || 'AAA',
           'Account ' || i % 90000 || ' - line ' || i % 17,
           if(i % 5 = 0, 'Said "not before ' || i % 12 || '", budget is open' || chr(10) || 'Call again. ', 'Wants to see the analysis first. ')
               || repeat(chr(97 + (i % 26)::integer), (i % 90)::integer),
           ['Prospecting', 'Qualification', 'Needs Analysis', 'Proposal/Price Quote', 'Closed Won'][1 + i % 5], (hash(i) % 9000000) / 100.0,
           10 * (i % 10), date '2026-01-01' + (i % 700)::integer, 'New Business', 'Send revised quote by ' || i % 28, 'Web', i % 5 = 4, i % 5 = 4,
           'Pipeline', 'Pipeline', $user, $user, $user, timestamp '2024-01-01' + to_seconds(i * 100), timestamp '2026-01-01' + to_seconds(i * 50),
           timestamp '2026-01-01' + to_seconds(i * 50), timestamp '2025-06-01' + to_seconds(i * 60), 'EUR', 'DACH', 'Platform',
           'Competitor ' || i % 11, i % 1000
    from range($rows) t(i)
"""


def serve(rows: int, pipe) -> None:
    from connectors.simulator.clock import SimClock
    from connectors.simulator.faults import Faults
    from connectors.simulator.http import serve
    from connectors.simulator.salesforce import SalesforceOrg

    with tempfile.TemporaryDirectory() as directory:
        org = SalesforceOrg(Path(directory) / "org.duckdb", SimClock(NOW), Faults())
        org.con.execute(FILL, {"rows": rows, "user": org.admin_id})
        for name in org.objects["Opportunity"].fields:
            org.objects["Opportunity"].fields[name].hidden = name not in COLUMNS
        app = org.app()
        plain = [layer for layer in app.user_middleware if "GZip" not in layer.cls.__name__]
        assert len(plain) < len(app.user_middleware)
        with serve(app) as compressed:
            second = org.app()
            second.user_middleware = [layer for layer in second.user_middleware if "GZip" not in layer.cls.__name__]
            with serve(second) as uncompressed:
                pipe.send({"gzip": compressed.url, "not compressed": uncompressed.url})
                pipe.recv()
        org.close()


class Cpu:
    """User and kernel seconds of this process, and its wall clock, over a block."""

    def __enter__(self) -> Cpu:
        self._began, self._wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        now = resource.getrusage(resource.RUSAGE_SELF)
        self.user, self.kernel = now.ru_utime - self._began.ru_utime, now.ru_stime - self._began.ru_stime
        self.wall = time.perf_counter() - self._wall

    @property
    def total(self) -> float:
        return self.user + self.kernel


def by_connector(url: str, directory: Path) -> Cpu:
    """The first pull of an org that has opportunities only, by Bulk API."""
    from connectors.salesforce import extract, pull
    from connectors.salesforce.objects import OPPORTUNITY
    from connectors.salesforce.settings import SalesforceSettings

    extract.OBJECTS = (OPPORTUNITY,)
    settings = SalesforceSettings(
        name="big", crm="salesforce", instance_url=url, api="bulk", quota_share=1.0, **SIGN_IN
    )
    with Cpu() as cpu:
        pull(settings, run_id="r1", landing=directory, since={})
    return cpu


def by_requests(url: str, directory: Path, pages: list[str], token: str) -> Cpu:
    """The pages of a finished job, five at a time, streamed to files."""
    import requests

    session = requests.Session()
    directory.mkdir(parents=True, exist_ok=True)

    def fetch(number: int) -> None:
        with session.get(url + pages[number], headers={"Authorization": f"Bearer {token}"}, stream=True, timeout=120) as response:
            response.raise_for_status()
            with (directory / f"{number}.csv").open("wb") as out:
                for chunk in response.iter_content(1 << 20):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())

    with Cpu() as cpu, ThreadPoolExecutor(5) as pool:
        list(pool.map(fetch, range(len(pages))))
    return cpu


def job(url: str) -> tuple[list[str], str]:
    """A finished job for the same records: the addresses of its pages, and a token."""
    import requests

    sign_in = {"grant_type": "client_credentials", **SIGN_IN}
    token = requests.post(f"{url}/services/oauth2/token", data=sign_in, timeout=60).json()["access_token"]
    data, headers = f"{url}/services/data/v62.0", {"Authorization": f"Bearer {token}"}
    body = {"operation": "queryAll", "query": f"SELECT {', '.join(sorted(COLUMNS, key=lambda c: c != 'SystemModstamp'))} FROM Opportunity"}
    made = requests.post(f"{data}/jobs/query", json=body, headers=headers, timeout=60).json()["id"]
    while requests.get(f"{data}/jobs/query/{made}", headers=headers, timeout=60).json()["state"] != "JobComplete":
        time.sleep(0.2)
    pages, more = [], f"/services/data/v62.0/jobs/query/{made}/resultPages"
    while more:
        told = requests.get(url + more, headers=headers, timeout=60).json()
        pages += [page["resultUrl"] for page in told["resultPages"]]
        more = told["nextRecordsUrl"]
    return pages, token


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(rows, theirs), daemon=True)
    server.start()
    urls = ours.recv()
    import connectors.salesforce.extract  # noqa: F401  imports are not what is measured

    print(f"{rows:,} opportunities of {len(COLUMNS)} columns, best of {times}; CPU seconds of the client (of them in the kernel)")
    with tempfile.TemporaryDirectory() as scratch:
        for sent, url in urls.items():
            pages, token = job(url)
            connector, plain, size = [], [], 0
            for _ in range(times):
                for kind, take in (("connector", connector), ("plain", plain)):
                    directory = Path(scratch) / kind
                    cpu = by_connector(url, directory) if kind == "connector" else by_requests(url, directory, pages, token)
                    take.append(cpu)
                    size = sum(file.stat().st_size for file in directory.rglob("*.csv"))
                    shutil.rmtree(directory)
            best, least = (min(runs, key=lambda cpu: cpu.total) for runs in (connector, plain))
            print(
                f"{sent:<15}{size / 1e6:7.1f} MB   connector {best.total:5.2f} s ({best.kernel:4.2f})   raw download {least.total:5.2f} s "
                f"({least.kernel:4.2f})   ratio {best.total / least.total:4.2f}"
            )
    ours.send("done")
    server.join(20)


if __name__ == "__main__":
    main()
