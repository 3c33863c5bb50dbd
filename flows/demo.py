"""The whole job with no account: two simulated CRMs, three nights, and on each night what a newcomer would ask about it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from flows.errors import Interrupted, PlumblineError

if TYPE_CHECKING:
    from connectors.simulator.server import Simulator
    from flows.nightly import Night

Say = Callable[[str], None]
ZONE = ZoneInfo("Europe/Berlin")  # where the simulated company is
MARKER = ".plumbline-demo"
CONFIG = """\
# Written by `plumbline demo`: the configuration of its simulated company.
[warehouse]
path = "plumbline.duckdb"
published = "published/plumbline.duckdb"
landing = "landing"

[report]
path = "report"

[sources.sales]
crm = "salesforce"
instance_url = "{salesforce}"
client_id = "${{DEMO_SF_CLIENT_ID}}"
client_secret = "${{DEMO_SF_CLIENT_SECRET}}"

[sources.sales.fields]
lost_reason = "Loss_Reason__c"

[sources.inbound]
crm = "hubspot"
base_url = "{hubspot}"
access_token = "${{DEMO_HUBSPOT_TOKEN}}"

[writeback]
mode = "apply"
max_share = 1.0     # a real org starts with 0.2 and confirms the first, large plan by hand
appear_after = 1    # and waits for a second night before it flags what is not critical
"""


@dataclass
class DemoReport:
    """What the demo did and left. nights: one document per night, as `plumbline nightly --json` prints it."""

    directory: Path
    config: Path
    report: Path
    published: Path
    seconds: float
    nights: list[dict[str, Any]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        paths = {key: str(getattr(self, key)) for key in ("directory", "config", "report", "published")}
        return {**paths, "seconds": round(self.seconds, 1), "nights": self.nights}


def demo(
    directory: Path,
    *,
    now: datetime,
    keep: bool = False,
    deals: int = 2000,
    seed: int = 7,
    with_prefect: bool = True,
    say: Say = print,
    warn: Say = print,
) -> DemoReport:
    """Start both CRMs, run three nights, say what happened, leave a warehouse, a report and a published file in `directory`.

    now: the demo plays on two days before it, the first of them a working day. keep: hold the CRMs and Prefect's UI up until Ctrl-C.
    Raises PlumblineError when `directory` holds something that is not a demo's.
    """
    start = time.perf_counter()
    directory = _fresh(directory)
    worked = now.astimezone(ZONE).date() - timedelta(days=2)
    while worked.isoweekday() > 5:
        worked -= timedelta(days=1)

    def at(days_later: int, hour: int, minute: int = 0) -> datetime:
        return datetime.combine(worked + timedelta(days=days_later), clock_time(hour, minute), ZONE)

    say("Plumbline demo: a company with two sales teams' CRMs, three nights of the pipeline that keeps them honest.\n")
    with _prefect_server(directory, say) if with_prefect else _nothing() as ui:
        from connectors.simulator.server import Simulator

        say(f"Starting a Salesforce and a HubSpot with {deals:,} deals and two years of history …")
        sim = Simulator(None, seed=seed, salesforce_deals=round(deals * 0.6), hubspot_deals=deals - round(deals * 0.6), now=at(0, 0, 30))
        with sim, _environment(sim):
            config = directory / "plumbline.toml"
            config.write_text(CONFIG.format(salesforce=sim.salesforce_url, hubspot=sim.hubspot_url), encoding="utf-8")
            if ui:
                _await_prefect(ui, say, warn)
            say(f"  Salesforce {sim.salesforce_url}   HubSpot {sim.hubspot_url}   configuration {_short(config)}")
            result = DemoReport(directory, config, directory / "report/index.html", directory / "published/plumbline.duckdb", 0.0)

            _night(result, "Night 1: everything is new", sim, at(0, 0, 30), say, warn)
            say("\nA working day passes:")
            sim.clock.set(at(0, 9))
            from connectors.simulator.scenario import changed_day

            for sentence in changed_day(sim):
                say(f"  · {sentence}")
            _night(result, "Night 2: what changed", sim, at(1, 0, 30), say, warn)
            say("\nNobody touches anything. The flags that night 2 wrote moved the stamps of their deals: these come back as")
            say("echoes, and nothing may follow from them.")
            _night(result, "Night 3: nothing changed", sim, at(1, 23, 30), say, warn)
            result.seconds = time.perf_counter() - start
            _closing(result, ui, keep, say)
            if keep:
                _hold(sim, say)
    return result


def _night(result: DemoReport, title: str, sim: Simulator, moment: datetime, say: Say, warn: Say) -> None:
    """One night at `moment`, told in a few lines."""
    from flows.nightly import nightly
    from flows.run import open_run
    from flows.settings import load_settings
    from flows.steps import recorded

    say(f"\n── {title} ({moment:%A %d %B %Y, %H:%M}) " + "─" * max(4, 60 - len(title)))
    sim.clock.set(moment)
    settings = load_settings(result.config)

    def body() -> Night:
        with open_run("nightly", settings, moment, warn=warn) as run:
            return nightly(run)

    begun = time.perf_counter()
    night = recorded("nightly", {"config": str(result.config), "now": moment.isoformat(), "options": {}}, body, warn)
    night.raise_failures()
    result.nights.append(night.document())
    for line in night.lines()[:-2]:  # the paths are said once, at the end
        say(f"  {line}")
    say(f"  ({time.perf_counter() - begun:.1f} s)")


def _closing(result: DemoReport, ui: str | None, keep: bool, say: Say) -> None:
    say(f"\nDone in {result.seconds:.0f} s. What is left for you to open:")
    say(f"  report      {_short(result.report)}   (one HTML file: open it in a browser)")
    say(f"  published   {_short(result.published)}   (for BI tools, read-only: bi.opportunity, bi.finding, bi.pipeline_snapshot …)")
    say(f"  warehouse   {_short(result.directory / 'plumbline.duckdb')}")
    if ui:
        say(f"  Prefect UI  {ui}" + ("" if keep else "   (only while `make demo ARGS=--keep` holds it up)"))


def simulator(directory: Path | None, *, now: datetime, salesforce_port: int, hubspot_port: int, deals: int, seed: int, say: Say) -> None:
    """The two CRM servers alone, until Ctrl-C."""
    from connectors.simulator.server import Simulator

    share = round(deals * 0.6)
    sim = Simulator(
        directory,
        seed=seed,
        salesforce_deals=share,
        hubspot_deals=deals - share,
        now=now,
        salesforce_port=salesforce_port,
        hubspot_port=hubspot_port,
    )
    say("Making the company …")
    with sim:
        app = sim.salesforce.identity
        say(f"Salesforce  {sim.salesforce_url}   client_id {app.client_id}   client_secret {app.client_secret}")
        say(f"HubSpot     {sim.hubspot_url}   access_token {sim.hubspot.access.access_token}")
        _hold(sim, say)


def _hold(sim: Simulator, say: Say) -> None:
    say("\nUp until Ctrl-C.")
    try:
        while True:
            time.sleep(3600)
    except (KeyboardInterrupt, Interrupted):
        say("Stopping.")


@contextmanager
def _environment(sim: Simulator) -> Iterator[None]:
    """The credentials as a real installation gets them: from the environment, not from the file."""
    names: dict[str, str] = {
        "DEMO_SF_CLIENT_ID": sim.salesforce.identity.client_id,
        "DEMO_SF_CLIENT_SECRET": sim.salesforce.identity.client_secret,
        "DEMO_HUBSPOT_TOKEN": sim.hubspot.access.access_token or "",
    }
    os.environ.update(names)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _prefect_server(directory: Path, say: Say) -> Iterator[str | None]:
    """A Prefect server of the demo's own, on loopback, its database in `directory`. Yields the address of its UI.

    When one is at hand already (PREFECT_API_URL or a profile), that one is used and nothing is started.
    """
    from flows.steps import prefect_api, quiet_prefect, settle

    if url := prefect_api():
        say(f"Using the Prefect API at {url}.")
        yield url.removesuffix("/api")
        return
    quiet_prefect()
    port = _free_port()
    home = directory / "prefect"
    home.mkdir()
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    }
    say(f"Starting a Prefect server of the demo's own on http://127.0.0.1:{port} …")
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 (our own interpreter, no word of it from outside)
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    os.environ["PREFECT_API_URL"] = environment["PREFECT_API_URL"]
    os.environ["PREFECT_HOME"] = str(home)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        settle()
        os.environ.pop("PREFECT_API_URL", None)
        os.environ.pop("PREFECT_HOME", None)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


def _await_prefect(ui: str, say: Say, warn: Say, wait: float = 75) -> None:
    """Until the server answers. One that never does costs the demo its flow runs, not its nights."""
    from flows.steps import prefect_answers

    end = time.monotonic() + wait
    while not prefect_answers(f"{ui}/api", 1):
        if time.monotonic() > end:
            warn(f"The Prefect server did not come up within {wait:.0f} s: the nights run without it.")
            os.environ.pop("PREFECT_API_URL", None)
            return
        time.sleep(0.2)
    say(f"  Prefect UI {ui}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _fresh(directory: Path) -> Path:
    """`directory`, empty, as an absolute path. Only a demo's own directory is ever emptied."""
    directory = directory.resolve()
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise PlumblineError(f"{directory} is not empty and no demo made it.\nChoose another with --dir, or empty it yourself.")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()
    return directory


def _short(path: Path) -> str:
    """`path` as seen from here, where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
