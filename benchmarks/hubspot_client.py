"""What reading a portal costs the client: `python benchmarks/hubspot_client.py [DEALS] [TIMES]`.

CPU seconds of this process per 10,000 deals, for DEALS (10,000) deals of a simulated portal with all their properties, their history,
contacts and companies: landed by the connector (pages parsed, records and history written line by line, stamps seen, manifests), and the
same pages downloaded one after the other by requests and written as they come, which is the least that any client can do. Both read from
the same portal, in a process of its own, both fsync what they wrote, and both are measured TIMES (3) times; the least counts. Once as
HubSpot sends it (gzip) and once not compressed, where nothing hides the difference. Kernel seconds, for sockets and files, are
shown apart. No test: figures depend on the machine, the ratio less so.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NOW = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
TOKEN = {"access_token": "demo-token"}  # of the simulated portal


def serve(deals: int, pipe: Any) -> None:
    """Two addresses of one portal; ("pages",) gives the addresses of the pages of deals that were asked for since the last time."""
    from connectors.simulator.http import serve as listen
    from connectors.simulator.server import Simulator

    with Simulator(None, now=NOW, crms=("hubspot",), salesforce_deals=1, hubspot_deals=deals) as sim:
        sim.hubspot.limits.lift()
        second = sim.hubspot.app()
        second.user_middleware = [layer for layer in second.user_middleware if "GZip" not in layer.cls.__name__]
        log = sim.servers["hubspot"].app.state.requests
        with listen(second) as uncompressed:
            pipe.send({"gzip": sim.hubspot_url, "not compressed": uncompressed.url})
            while pipe.recv() != "stop":
                live = sim.hubspot.rows("select count(*) from object_deals where _merged_into is null")[0][0]
                pipe.send((live, [call.path for call in log.calls if call.path.startswith("/crm/v3/objects/deals?")]))
                log.clear()


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
    """The deals of a first pull, without what surrounds them."""
    from connectors.hubspot.client import Client
    from connectors.hubspot.extract import Extraction
    from connectors.hubspot.settings import HubSpotSettings
    from connectors.landing import Landing

    settings = HubSpotSettings(name="big", crm="hubspot", base_url=url, quota_share=1.0, **TOKEN)
    with Client(settings) as client:
        extraction = Extraction(client, Landing(directory, "big", "r1"), {}, True, None, None)
        fields = extraction.deal_properties()
        with Cpu() as cpu:
            extraction.deals(fields)
    return cpu


def by_requests(url: str, directory: Path, pages: list[str]) -> tuple[Cpu, int]:
    """The same pages one after the other into one file, and the bytes of them."""
    import requests

    directory.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session, Cpu() as cpu, (directory / "pages").open("wb") as out:
        session.headers["Authorization"] = f"Bearer {TOKEN['access_token']}"
        for page in pages:
            answer = session.get(url + page, timeout=120)
            answer.raise_for_status()
            out.write(answer.content)
        out.flush()
        os.fsync(out.fileno())
        size = out.tell()
    return cpu, size


def main() -> None:
    deals = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(deals, theirs), daemon=True)
    server.start()
    urls = ours.recv()

    from connectors.hubspot import client

    client.PER_10S = 1_000_000  # pace is not what is measured
    with tempfile.TemporaryDirectory() as scratch:
        by_connector(urls["gzip"], Path(scratch) / "warm")
        ours.send("pages")
        found, pages = ours.recv()
        print(f"{found:,} deals on {len(pages):,} pages; CPU seconds per 10,000 deals, the least of {times}\n")
        print(f"{'':<32}{'user':>8}{'kernel':>8}{'together':>10}{'wall':>8}")
        for how, url in urls.items():
            ours_, theirs_, size = [], [], 0
            for number in range(times):
                for directory in (Path(scratch) / f"a{number}", Path(scratch) / f"b{number}"):
                    shutil.rmtree(directory, ignore_errors=True)
                ours_.append(by_connector(url, Path(scratch) / f"a{number}"))
                cpu, size = by_requests(url, Path(scratch) / f"b{number}", pages)
                theirs_.append(cpu)
            best = {"connector": min(ours_, key=lambda cpu: cpu.total), "raw bytes by requests": min(theirs_, key=lambda cpu: cpu.total)}
            for who, cpu in best.items():
                per = 10_000 / found
                print(f"{how + ': ' + who:<32}" + "".join(f"{n * per:>{w}.2f}" for n, w in (
                    (cpu.user, 8), (cpu.kernel, 8), (cpu.total, 10), (cpu.wall, 8)
                )))
            ratio = best["connector"].total / best["raw bytes by requests"].total
            print(f"{how}: connector / raw bytes = {ratio:.2f}, of {size / 1e6:,.0f} MB\n", flush=True)
    ours.send("stop")
    server.join(20)


if __name__ == "__main__":
    main()
