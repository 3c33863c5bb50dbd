"""A simulated org being served, and the real simple-salesforce client in front of it, unmodified but for the address."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import SalesforceOrg

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
VERSION = "62.0"


class Loop(HTTPAdapter):
    """The client forces https; this sends every request to the simulator instead."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        request.url = self.url + urlunsplit(("", "", parts.path, parts.query, ""))
        return super().send(request, *args, **kwargs)


class World:
    """org: the state; sf: a signed-in simple-salesforce; raw: a requests session with its token, for what the client hides."""

    def __init__(self, org: SalesforceOrg, url: str) -> None:
        self.org, self.clock, self.faults, self.url = org, org.clock, org.faults, url
        self.data = f"{url}/services/data/v{VERSION}"
        self.session = requests.Session()
        self.session.mount("https://", Loop(url))
        self.raw = requests.Session()
        self.start()

    def start(self) -> None:
        self.sf = self.sign_in()
        self.raw.headers["Authorization"] = f"Bearer {self.sf.session_id}"

    def reset(self) -> None:
        """A new org on the same server."""
        self.clock.set(NOW)
        self.org.reset()
        self.start()

    def deal(self, **values: Any) -> str:
        return self.org.create("Opportunity", {"Name": "Deal", "StageName": "Prospecting", "CloseDate": "2026-12-31"} | values)

    def deleted(self, sobject: str = "Opportunity", days: float = 1) -> Any:
        """What getDeleted answers for the last days."""
        now = self.clock.now() + timedelta(minutes=1)
        span = {"start": (now - timedelta(days=days)).isoformat(), "end": now.isoformat()}
        return self.raw.get(f"{self.data}/sobjects/{sobject}/deleted/", params=span).json()

    def sign_in(self, **kwargs: Any) -> Salesforce:
        given = {"consumer_key": "plumbline-demo", "consumer_secret": "demo-secret", "domain": "acme.my"} | kwargs
        return Salesforce(session=self.session, version=VERSION, **given)

    def records(self, soql: str, **kwargs: Any) -> list[dict[str, Any]]:
        """Records of a query, with parents nested, without the noise of attributes."""
        return [plain(r) for r in self.sf.query_all(soql, **kwargs)["records"]]

    def column(self, soql: str, **kwargs: Any) -> list[Any]:
        """The first selected field of each record."""
        return [next(iter(r.values())) for r in self.records(soql, **kwargs)]

    def row(self, opportunity: str, *columns: str) -> tuple[Any, ...]:
        """Stored columns of an opportunity."""
        names = ", ".join(f'"{c}"' for c in columns)
        return self.org.rows(f'SELECT {names} FROM "Opportunity" WHERE "Id" = ?', [opportunity])[0]

    def bulk(self, soql: str, operation: str = "query", **body: Any) -> dict[str, Any]:
        """A Bulk query job, waited for."""
        job = self.raw.post(f"{self.data}/jobs/query", json={"operation": operation, "query": soql} | body).json()
        return self.wait("query", job["id"])

    def wait(self, kind: str, job: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            info = self.raw.get(f"{self.data}/jobs/{kind}/{job}").json()
            if info["state"] in {"JobComplete", "Failed", "Aborted"}:
                return info
            time.sleep(0.01)
        raise AssertionError(f"job {job} did not end")


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "attributes"}
    return [plain(v) for v in value] if isinstance(value, list) else value


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@contextmanager
def world(org: SalesforceOrg | None = None) -> Iterator[World]:
    """An org at NOW with a frozen clock, served."""
    if org is None:
        clock = SimClock(NOW)
        clock.freeze()
        org = SalesforceOrg(None, clock, Faults())
    with org.serve() as server:
        yield World(org, server.url)
    org.close()
