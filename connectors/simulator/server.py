"""Both simulated CRMs, filled and serving: what the demo, rehearsals and end-to-end tests start."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import duckdb

from connectors.simulator.clock import SimClock
from connectors.simulator.company import build_company
from connectors.simulator.faults import Faults

if TYPE_CHECKING:
    from connectors.simulator.http import RunningServer
    from connectors.simulator.hubspot import HubSpotPortal
    from connectors.simulator.salesforce import SalesforceOrg

Crm = Literal["salesforce", "hubspot"]
IN_MEMORY = 20_000  # deals up to which a company is drawn in memory; beyond that in a file that goes when the simulator stops


class Simulator:
    """A Salesforce and a HubSpot of two believable companies, each on a loopback port. A context manager.

    directory: keeps the state of both in DuckDB files, and takes up what an earlier simulator left there (then seed and
    sizes are what they were). None: in memory, or in a temporary file when it is large. now: the instant at which the companies
    stand and the clock starts; it then runs on at wall speed. crms: which to start.

    While it runs: `salesforce`, `hubspot` (their state and what their people can do), `salesforce_url`, `hubspot_url`, `clock`,
    `faults_salesforce`, `faults_hubspot`, and `companies` (the tables that a CRM was filled from, with what was planted;
    empty for state that was taken up).
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        seed: int = 7,
        salesforce_deals: int = 1200,
        hubspot_deals: int = 800,
        now: datetime,
        salesforce_port: int = 0,
        hubspot_port: int = 0,
        crms: Sequence[Crm] = ("salesforce", "hubspot"),
    ) -> None:
        self.directory, self.seed, self.now, self.crms = directory, seed, now, tuple(crms)
        self.deals: dict[Crm, int] = {"salesforce": salesforce_deals, "hubspot": hubspot_deals}
        self.ports: dict[Crm, int] = {"salesforce": salesforce_port, "hubspot": hubspot_port}
        self.clock = SimClock(now)
        self.faults_salesforce, self.faults_hubspot = Faults(), Faults()
        self.companies: dict[str, duckdb.DuckDBPyConnection] = {}
        self.servers: dict[str, RunningServer] = {}
        self._salesforce: SalesforceOrg | None = None
        self._hubspot: HubSpotPortal | None = None
        self._stack = ExitStack()

    def start(self) -> Simulator:
        """Fill and serve; returns when both answer. Raises OSError when a port is taken. The clock restarts at `now`."""
        from connectors.simulator.http import serve

        try:
            self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="plumbline-simulator-")))
            make: dict[str, Callable[[], None]] = {"salesforce": self._make_salesforce, "hubspot": self._make_hubspot}
            with ThreadPoolExecutor(len(make)) as pool:
                for made in [pool.submit(make[crm]) for crm in self.crms]:
                    made.result()
            self.clock.set(self.now)  # filling took its time; the companies stand at `now`
            for crm in self.crms:
                app = self.salesforce.app() if crm == "salesforce" else self.hubspot.app()
                self.servers[crm] = serve(app, self.ports[crm])
                self._stack.callback(self.servers[crm].stop)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop serving and close the state; a directory keeps it."""
        self._stack.close()
        self.servers.clear()
        self.companies.clear()
        self._salesforce = self._hubspot = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def salesforce(self) -> SalesforceOrg:
        if self._salesforce is None:
            raise RuntimeError("The simulated Salesforce is not running")
        return self._salesforce

    @property
    def hubspot(self) -> HubSpotPortal:
        if self._hubspot is None:
            raise RuntimeError("The simulated HubSpot is not running")
        return self._hubspot

    @property
    def salesforce_url(self) -> str:
        return self.servers["salesforce"].url

    @property
    def hubspot_url(self) -> str:
        return self.servers["hubspot"].url

    def _make_salesforce(self) -> None:
        from connectors.simulator.salesforce import SalesforceOrg, load_company

        path = self._state("salesforce")
        self._salesforce = SalesforceOrg(
            path, self.clock, self.faults_salesforce, seed_company=lambda org: load_company(org, self._company("salesforce"))
        )
        self._stack.callback(self._salesforce.close)

    def _make_hubspot(self) -> None:
        from connectors.simulator.hubspot import HubSpotPortal, load_company

        path = self._state("hubspot")
        fresh = path is None or not path.exists()
        self._hubspot = HubSpotPortal(path, self.clock, self.faults_hubspot)
        self._stack.callback(self._hubspot.close)
        if fresh:
            load_company(self._hubspot, self._company("hubspot"))

    def _state(self, crm: Crm) -> Path | None:
        """Where the state of a CRM is kept: in the directory, or where there is none, on disk only when it is large."""
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            return self.directory / f"{crm}.duckdb"
        return self._scratch / f"{crm}.duckdb" if self.deals[crm] > IN_MEMORY else None

    def _company(self, crm: Crm) -> duckdb.DuckDBPyConnection:
        path = str(self._scratch / f"{crm}-company.duckdb") if self.deals[crm] > IN_MEMORY else ":memory:"
        con = duckdb.connect(path, config={"memory_limit": "1GB", "threads": 2})
        self._stack.callback(con.close)
        con.execute("set timezone = 'UTC'")
        build_company(con, seed=self.seed, deals=self.deals[crm], now=self.now, kind=crm)
        self.companies[crm] = con
        return con


def serve_forever(simulator: Simulator, say: Callable[[str], None] = print) -> None:
    """Run a simulator until Ctrl-C, saying where it is and what it accepts."""
    with simulator:
        if "salesforce" in simulator.crms:
            identity = simulator.salesforce.identity
            say(f"Salesforce  {simulator.salesforce_url}   client_id {identity.client_id}   client_secret {identity.client_secret}")
        if "hubspot" in simulator.crms:
            say(f"HubSpot     {simulator.hubspot_url}   access_token {simulator.hubspot.access.access_token}")
        say("Up until Ctrl-C.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("Stopping.")
