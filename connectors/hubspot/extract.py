"""One pull of one portal, in the order in which it is safe: what surrounds the deals, the deals, their companies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from connectors.errors import CrmQuotaError
from connectors.hubspot.client import Client
from connectors.hubspot.deals import Deals
from connectors.hubspot.known import Known
from connectors.hubspot.settings import HubSpotSettings
from connectors.hubspot.spool import KEEP
from connectors.landing import Field, Landing, Pull
from connectors.limits import KEPT, Budget

LONG = ("deals", "companies")  # what may take more calls than a run has; the rest takes a few

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
    Where the portal's calls do not suffice, the pull is `stopped`: it holds what was finished, `unread` names the rest, and the next pull
    goes on from there. Raises CrmError otherwise; what was landed until then has no pull.json and is to be ignored.
    """
    with Client(settings, budget=budget) as client:
        return Extraction(client, Landing(landing, settings.name, run_id), since, full, Known.read(known), progress).run(run_id)


class Extraction(Deals):
    """One pull while it goes on."""

    def run(self, run_id: str) -> Pull:
        fields: list[Field] = []
        steps: dict[str, Callable[[], object]] = {
            "account": self.account, "owners": self.owners, "pipelines": self.pipelines,
            "properties": lambda: fields.extend(self.deal_properties()),
            "exchange_rates": lambda: self.exchange_rates(fields), "deals": lambda: self.deals(fields), "companies": self.companies,
        }  # fmt: skip
        self.unread = [*(name for name in steps if name not in LONG), *self._long_ones()]
        try:
            while self.unread:
                steps[self.unread[0]]()
                self.unread.pop(0)
        except CrmQuotaError as error:
            self.stopped = error.with_more(KEPT.format(run="sync --full" if self.full else "run"))
            if not self.done:
                raise self.stopped from None
        return self.finished(run_id, full=self.full or "deals" not in self.since)

    def _long_ones(self) -> list[str]:
        """Deals and companies: first what the last pull did not come to because it had to stop."""
        told = self.landing.unread(full=self.full)
        now = self.client.clock
        if told and now and told[1] and now - told[1] > KEEP:
            told = None
        left = [name for name in told[0] if name in LONG] if told else []
        if self.full and told:
            self.whole = set(left)
        return [*left, *(name for name in LONG if name not in left)]
