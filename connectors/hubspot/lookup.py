"""The live deals as a portal lists them, to be compared with a warehouse; and single deals, read again by their ids.

Both write an ordinary pull. The listing is consistent and has no cap: a call for each hundred deals, whatever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from connectors.hubspot.client import Client
from connectors.hubspot.deals import Deals, land
from connectors.hubspot.files import Ndjson
from connectors.hubspot.objects import DEALS
from connectors.hubspot.reading import Listing, read_all
from connectors.hubspot.settings import HubSpotSettings
from connectors.landing import Field, Landing, Manifest, Pull
from connectors.limits import Budget

LISTED = ("dealstage", "pipeline", "amount", "deal_currency_code", "hs_lastmodifieddate")

Say = Callable[[str], None]


def sweep(settings: HubSpotSettings, *, run_id: str, landing: Path, budget: Budget | None = None, progress: Say | None = None) -> Pull:
    """Land `deals.ids` under ``landing/<source>/<run_id>/``: every live deal with the properties LISTED. n/100 calls for n deals.

    budget: what this run may still spend of the portal's calls; None: one of its own. Raises CrmError; then there is no pull.json.
    """
    with Client(settings, budget=budget) as client:
        return _Looking(client, Landing(landing, settings.name, run_id), {}, True, None, progress).sweep(run_id)


def fetch(
    settings: HubSpotSettings, *, run_id: str, landing: Path, ids: Path, budget: Budget | None = None, progress: Say | None = None
) -> Pull:
    """Land the deals whose ids stand in the file `ids`, one a line, under ``landing/<source>/<run_id>/``.

    `deals` with their history and associations, `deals.archived` those of them in the recycle bin, `deals.gone` ``{"id"}`` of those that
    the portal does not know (any more). About 0.05 calls a deal. Raises CrmError; then there is no pull.json.
    """
    wanted = list(dict.fromkeys(ids.read_text(encoding="utf-8").split()))
    with Client(settings, budget=budget) as client:
        return _Looking(client, Landing(landing, settings.name, run_id), {}, False, None, progress).fetch(run_id, wanted)


class _Looking(Deals):
    """A pull of the deals that somebody names, or of their names."""

    def sweep(self, run_id: str) -> Pull:
        obj = "deals.ids"
        with self.files(obj) as out:
            for record in self.counted(Listing(self.client, DEALS, LISTED).read(), "listed deals"):
                if not record.get("archived"):
                    out.write(record)
            fields = [Field(name, "string") for name in LISTED]
            self.finish(Manifest(self.client.source, "hubspot", obj, "id", "full", complete=True, fields=fields), out, keep=True)
        return self.finished(run_id, full=True)

    def fetch(self, run_id: str, wanted: list[str]) -> Pull:
        fields = self.deal_properties()
        names = list(dict.fromkeys([*(field.name for field in fields), *DEALS.properties]))
        possible = [key for key in wanted if key.isdigit()]  # one id of another form would have HubSpot refuse its whole batch
        with ExitStack() as stack:

            def files(obj: str) -> Ndjson:
                return stack.enter_context(self.files(obj))

            live, archive, gone = files("deals"), files("deals.archived"), files("deals.gone")
            history, links = files("deals.history"), files("deals.associations")

            def read(keys: Iterable[str], out: Ndjson, *, archived: bool) -> set[str]:
                found = read_all(self.client, DEALS, keys, names, DEALS.history, archived=archived)
                return {land(record, out, history) for record in found}

            self.client.object = "deals"
            found = read(possible, live, archived=False)
            self.client.object = "deals.archived"
            in_bin = read([key for key in possible if key not in found], archive, archived=True)
            for key in wanted:
                if key not in found | in_bin:
                    gone.write({"id": key})
            self.client.object = "deals.associations"
            refused = self._associations(sorted(found), links)
            objects: tuple[tuple[str, Ndjson, list[Field], str | None], ...] = (
                ("deals", live, fields, None), ("deals.archived", archive, [], None), ("deals.gone", gone, [], None),
                ("deals.history", history, [], None), ("deals.associations", links, [], refused),
            )  # fmt: skip
            for name, out, told, notice in objects:
                manifest = Manifest(self.client.source, "hubspot", name, "id", "incremental", fields=told, notice=notice)
                self.finish(manifest, out, keep=True)
        self.say(f"{self.client.source}: {len(found):,} of {len(wanted):,} deals read again, {len(in_bin):,} are in the recycle bin")
        return self.finished(run_id, full=False)
