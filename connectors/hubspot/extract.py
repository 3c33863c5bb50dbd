"""One pull of one portal, in the order in which it is safe: what surrounds the deals, the deals, their companies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from connectors.hubspot.client import Client
from connectors.hubspot.deals import Deals
from connectors.hubspot.known import Known
from connectors.hubspot.settings import HubSpotSettings
from connectors.landing import Landing, Pull
from connectors.limits import Budget


def pull(
    settings: HubSpotSettings,
    *,
    run_id: str,
    landing: Path,
    since: Mapping[str, datetime],
    full: bool = False,
    known: Path | None = None,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Pull:
    """Land a portal's deals and what surrounds them under ``landing/<source>/<run_id>/``.

    since: the watermark per object that the warehouse has committed; an object without one is listed whole. full: list everything.
    known: NDJSON lines ``{"id", "is_deleted", "is_closed", "deleted_at"?}`` of the deals in the warehouse; without it nothing that
    moves no stamp is looked for among older deals.
    budget: what this run may still spend of the portal's calls, shared with its write-back; None: one of its own.
    Raises CrmError; what was landed until then has no pull.json and is to be ignored.
    """
    with Client(settings, budget=budget) as client:
        return Extraction(client, Landing(landing, settings.name, run_id), since, full, Known.read(known), progress).run(run_id)


class Extraction(Deals):
    """One pull while it goes on."""

    def run(self, run_id: str) -> Pull:
        self.account()
        self.owners()
        self.pipelines()
        fields = self.deal_properties()
        self.deals(fields)
        self.companies()
        return self.finished(run_id, full=self.full or "deals" not in self.since)
