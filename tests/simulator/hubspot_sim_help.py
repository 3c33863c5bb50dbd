"""A served portal and the real client in front of it, for the tests of the simulated HubSpot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import hubspot
from hubspot.crm.deals.exceptions import ApiException

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import serve
from connectors.simulator.hubspot import HubSpotPortal

START = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


@dataclass
class Served:
    portal: HubSpotPortal
    clock: SimClock
    faults: Faults
    url: str
    client: hubspot.HubSpot
    raw_api: Any

    def call(self, method: str, path: str, body: Any = None, query: tuple[tuple[str, str], ...] = ()) -> tuple[int, Any]:
        """Status and JSON through the client's own transport; an error status comes back as one, not as an exception."""
        try:
            answer = self.raw_api.call_api(
                path,
                method,
                query_params=list(query),
                body=body,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                response_types_map={},
                auth_settings=["oauth2"],
                _preload_content=False,
            )
        except ApiException as error:
            return error.status, json.loads(error.body)
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    def deal(self, deal_id: str, *properties: str) -> dict[str, str | None]:
        query = (("properties", ",".join(properties)),) if properties else ()
        status, body = self.call("GET", f"/crm/v3/objects/deals/{deal_id}", query=query)
        assert status == 200, body
        return body["properties"]

    def history(self, deal_id: str, name: str) -> list[dict[str, Any]]:
        _, body = self.call("GET", f"/crm/v3/objects/deals/{deal_id}", query=(("propertiesWithHistory", name),))
        return body["propertiesWithHistory"][name]


def client_for(url: str, token: str = "demo-token") -> hubspot.HubSpot:  # noqa: S107
    """The real client, unmodified but for the address."""
    return hubspot.HubSpot(access_token=token, host=url, base_url=url)


@contextmanager
def served(portal: HubSpotPortal | None = None, *, limits: bool = False) -> Iterator[Served]:
    if portal is None:
        clock = SimClock(START)
        clock.freeze()
        portal = HubSpotPortal(None, clock, Faults())
    if not limits:
        portal.limits.lift()
    with serve(portal.app()) as server:
        client = client_for(server.url)
        raw = client.crm.deals.basic_api.api_client
        yield Served(portal, portal.clock, portal.faults, server.url, client, raw)


def instant(text: str | None) -> datetime:
    assert text is not None
    return datetime.fromisoformat(text)
