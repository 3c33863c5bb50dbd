"""One pull of one portal, in the order in which it is safe.

The invariant of the watermark: every deal whose hs_lastmodifieddate is at the watermark or earlier has been landed. It holds
because the new watermark is neither later than the server's clock when the reading began, nor later than the newest stamp that
was seen, and because each pull asks again for an overlap before it: search lags behind, and stamps of one moment come in any order.

What moves no stamp is looked at by itself:

- Archived deals: their listing is read whole, before the live deals. A deal that is restored meanwhile is then archived in our
  files tonight and found by the next pull; read in the other order it could be in neither listing and be lost.
- Restored deals: those that the warehouse believes deleted and that the archived listing no longer shows are read by id.
- Deals that are gone for good: found by counting (see reading.vanished), or by a full listing, in which they are missing.
- Contacts and companies attached or detached: read each time for all open deals and all deals landed tonight; where there are few
  deals, for all of them.
- Losers of a merge stand in hs_merged_object_ids of the survivor, whose stamp the merge moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.hubspot.client import Client, Refusal
from connectors.hubspot.files import Ndjson
from connectors.hubspot.known import Known
from connectors.hubspot.objects import COMPANIES, DEALS
from connectors.hubspot.reading import (
    Listing,
    Record,
    associations,
    batches,
    changed,
    existing,
    instant,
    pages,
    read_all,
    records,
    vanished,
)
from connectors.hubspot.settings import HubSpotSettings
from connectors.landing import Field, Landing, Manifest, Pull
from connectors.limits import Budget

SAY_EVERY = 5000  # records
FEW = 10_000  # deals: up to here contacts and companies of the closed ones are read each time too, at two calls per thousand
SUSPICIOUS = 100  # deals that vanish at once, if they are most of all: more likely a permission was taken away


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
        return Pulling(client, Landing(landing, settings.name, run_id), since, full, Known.read(known), progress).run(run_id)


@dataclass
class _Newest:
    """The greatest cursor seen of an object."""

    at: datetime | None = None

    def see(self, record: Record, cursor: str) -> None:
        stamp = instant((record.get("properties") or {}).get(cursor))
        if stamp is not None and (self.at is None or stamp > self.at):
            self.at = stamp


class Pulling:
    """One pull while it goes on."""

    def __init__(
        self, client: Client, landing: Landing, since: Mapping[str, datetime], full: bool, known: Known | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.client, self.landing, self.since, self.full, self.known = client, landing, since, full, known
        self.say = progress or (lambda words: None)
        self.spent, self.spent_on = client.budget.total, client.budget.calls.copy()
        self.done: list[str] = []
        self.org: dict[str, Any] = {}

    def run(self, run_id: str) -> Pull:
        self.account()
        self.owners()
        self.pipelines()
        fields = self.deal_properties()
        self.deals(fields)
        self.companies()
        return self.finished(run_id, full=self.full or "deals" not in self.since)

    def finished(self, run_id: str, *, full: bool) -> Pull:
        """Write pull.json: what was landed until now is the whole pull."""
        budget = self.client.budget
        pulled = Pull(
            self.client.source, "hubspot", run_id, full=full, objects=self.done, org=self.org, calls=budget.total - self.spent,
            daily_used=budget.daily_used, daily_limit=budget.daily_limit, server_time=self.client.clock,
        )
        self.landing.finish(pulled)
        return pulled

    # What surrounds the deals -----------------------------------------------------------------------------------------------

    def account(self) -> None:
        """Who the portal is: id, time zone, currency, and where its records are shown."""
        with self._files("account") as out:
            details: Record = {}
            notice = self._unless_refused(lambda: details.update(self.client.get(self.client.paths.account)))
            if details:
                out.write(details)
            portal, ui = details.get("portalId"), details.get("uiDomain") or "app.hubspot.com"
            self.org = {
                "org_id": str(portal) if portal else None, "timezone": details.get("timeZone"), "currency": details.get("companyCurrency"),
                "record_url": f"https://{ui}/contacts/{portal}/record/0-3/{{id}}" if portal else None,
            }
            self.org = {key: value for key, value in self.org.items() if value}
            self._whole("account", out, key="portalId", notice=notice)

    def owners(self) -> None:
        """Owners, those who left too: their deals remain."""
        with self._files("owners") as out:
            seen: set[str] = set()
            usual, other = self.client.paths.owners

            def read(path: str, *, archived: bool) -> None:
                for page in pages(self.client, path, {"limit": 100, "archived": archived}):
                    for owner in page:
                        if owner["id"] not in seen:
                            seen.add(owner["id"])
                            out.write(owner)

            def read_either() -> None:
                nonlocal usual
                try:
                    read(usual, archived=False)
                except CrmProtocolError:
                    if seen:
                        raise
                    usual = other
                    read(usual, archived=False)

            notice = self._unless_refused(read_either)
            refused = None if notice else self._unless_refused(lambda: read(usual, archived=True))
            self._whole("owners", out, notice=notice, partly=refused and f"owners who left are unknown: {refused}")

    def pipelines(self) -> None:
        """Deal pipelines with their stages. Without them no deal's stage means anything, so they are not optional."""
        with self._files("pipelines") as out:
            for pipeline in self._results(self.client.paths.pipelines("deals")):
                out.write(pipeline)
            self._whole("pipelines", out)

    def deal_properties(self) -> list[Field]:
        """The portal's deal properties."""
        definitions: list[Record] = []
        with self._files("properties") as out:
            notice = self._unless_refused(lambda: definitions.extend(self._results(self.client.paths.properties("deals"))))
            for definition in definitions:
                out.write(definition)
            self._whole("properties", out, key="name", notice=notice)
        return [
            Field(
                d["name"], str(d.get("type") or "string"), d.get("label"), custom=not d.get("hubspotDefined"),
                calculated=bool(d.get("calculated")),
            )
            for d in definitions
        ]

    def companies(self) -> None:
        since = None if self.full else self.since.get("companies")
        self.client.object, started, newest = "companies", self.client.clock, _Newest()
        with self._files("companies") as out:

            def read(found: Iterable[Record]) -> None:
                for company in self._counted(found, "companies"):
                    newest.see(company, COMPANIES.cursor)
                    out.write(company)

            listed = since is None
            notice = unsearched = None
            if since is not None:
                pages_changed = changed(self.client, COMPANIES, self._from(since), COMPANIES.properties)
                unsearched = self._unless_refused(lambda: read(r for page in pages_changed for r in page))
                listed = unsearched is not None
            if listed:
                out.clear()
                notice = self._unless_refused(lambda: read(Listing(self.client, COMPANIES, COMPANIES.properties).read()))
            self._finish(
                Manifest(
                    self.client.source, "hubspot", "companies", "id", "full" if listed else "incremental",
                    complete=listed and notice is None, cursor=COMPANIES.cursor, since=None if listed else since,
                    watermark=since if notice else _watermark(since, started, newest.at), notice=notice or _listed_because(unsearched),
                ),
                out, keep=notice is None,
            )

    # Deals ------------------------------------------------------------------------------------------------------------------

    def deals(self, fields: list[Field]) -> None:
        """deals, deals.archived, deals.gone, deals.history, deals.associations: one story, because each explains the others."""
        client, known = self.client, self.known or Known()
        before = since = None if self.full else self.since.get("deals")
        # HubSpot answers standard properties that it does not list; whether a portal has them, the deals themselves show.
        names = list(dict.fromkeys([*(field.name for field in fields), *DEALS.properties]))
        newest = _Newest()
        with ExitStack() as stack:
            objects = ("deals", "deals.archived", "deals.gone", "deals.history", "deals.associations")
            live, archive, gone, history, links = (stack.enter_context(Ndjson(self.landing.object_directory(o))) for o in objects)

            client.object = "deals.archived"
            started = client.clock
            in_bin: set[str] = set()
            losers: set[str] = set()
            listing = Listing(client, DEALS, names, history=DEALS.history if since is None else ())
            unlisted: str | None = None
            try:
                for record in self._counted(listing.read(archived=True), "archived deals"):
                    if record.get("archived") is False:
                        continue  # a server that lists live deals here, whatever it was asked for, must not have them deleted
                    losers |= _losers(record)
                    in_bin.add(land(record, archive, history))
            except CrmProtocolError as error:  # then they are missed: by a full listing, or by counting
                unlisted = f"archived deals are not listed: {error.what}"

            client.object = "deals"
            landed: set[str] = set()
            cut: list[str] = []
            inline = False
            found: Iterator[Record] = iter(())
            notice: str | None = None
            if since is not None:
                try:
                    found = _begun(self._changed_deals(since, names, known, in_bin, newest))
                except CrmProtocolError as error:
                    notice, since = _listed_because(error.what), None
            if since is None:
                found, unknown = self._all_deals(names)
                notice = unknown or notice
            for record in self._counted(found, "deals"):
                key = str(record["id"])
                if key in landed:
                    continue
                landed.add(key)
                if since is None:
                    newest.see(record, DEALS.cursor)
                    inline = inline or "associations" in record
                    if _is_cut(record):
                        cut.append(key)
                losers |= _losers(record)
                land(record, live, history)

            if both := in_bin & landed:  # archived or restored while we read: what is true now?
                restored = both if since is not None else existing(client, DEALS, sorted(both))
                archive.drop(restored)
                in_bin -= restored
                landed -= both - restored

            client.object = "deals.gone"
            missing: set[str] = set()
            uncounted: str | None = None
            if since is not None and self.known is not None:
                believed = (known.live | landed) - in_bin - losers
                try:
                    missing = vanished(client, DEALS, believed)
                except CrmProtocolError as error:  # its search cannot count: then a full pull finds them
                    uncounted = f"deals deleted for good were not looked for: {error.what}"
                if len(missing) > max(SUSPICIOUS, len(believed) // 2):
                    raise CrmPermissionError(
                        f"{len(missing):,} of {len(believed):,} deals can no longer be seen, as if they were deleted for good",
                        source=client.source, obj="deals", code="DEALS_VANISHED",
                        fix="Check what the token's user may see. If the deals are really gone, run once with --full.",
                    )
                for key in sorted(missing, key=int):
                    gone.write({"id": key})

            client.object = "deals.history"
            if since is not None and self.known is not None:
                fresh = sorted(in_bin - known.deleted.keys())
                for record in read_all(client, DEALS, fresh, ["hs_object_id"], DEALS.history, archived=True):
                    land(record, None, history)

            client.object = "deals.associations"
            if since is not None:
                others = known.live if len(known.live) <= FEW else set(known.open)
                wanted = sorted((landed | others) - in_bin - missing - losers)
            else:  # where no deal showed any, none may have one, or the server's listings do not show them
                wanted = cut if inline else sorted(landed)
            refused = self._associations(wanted, links)

            mode: Literal["full", "incremental"] = "full" if since is None else "incremental"
            deals = Manifest(
                client.source, "hubspot", "deals", "id", mode, complete=since is None, cursor=DEALS.cursor, since=since,
                watermark=_watermark(before, started, newest.at), fields=fields, notice=notice,
            )
            self._finish(deals, live, keep=True)
            self._whole("deals.archived", archive, partly=unlisted)
            rest = (("deals.gone", gone, uncounted), ("deals.history", history, None), ("deals.associations", links, refused))
            for name, out, said in rest:
                self._finish(Manifest(client.source, "hubspot", name, "id", mode, notice=said), out, keep=True)

    def _all_deals(self, names: list[str]) -> tuple[Iterator[Record], str | None]:
        """Every live deal with its history and, where the token may read them, its contacts and companies."""

        def listing(kinds: tuple[str, ...]) -> Iterator[Record]:
            return Listing(self.client, DEALS, names, history=DEALS.history, associations=kinds).read()

        try:
            return _begun(listing(DEALS.associations)), None
        except CrmPermissionError as error:
            found = _begun(listing(()))  # refused again: it is the deals that may not be read
            unknown = ({**record, "associations": None} for record in found)  # not the same as having none
            return unknown, f"contacts and companies are unknown: {error.what}"

    def _changed_deals(
        self, since: datetime, names: list[str], known: Known, in_bin: set[str], newest: _Newest
    ) -> Iterator[Record]:
        """Deals that changed and deals that were restored. Search tells which; what they hold is read from where it is kept,
        for the index may be behind with values too, and for history it must be asked anyway: it costs no call more."""
        ids: list[str] = []
        for page in changed(self.client, DEALS, self._from(since), [DEALS.cursor]):
            for record in page:
                newest.see(record, DEALS.cursor)
                ids.append(str(record["id"]))
        # By the records' own time where that is behind the server's clock: looking up too many is only slower.
        candidates = known.restorable(min(since, self.client.clock or since)) - in_bin - set(ids)
        ids += sorted(existing(self.client, DEALS, sorted(candidates)))
        return read_all(self.client, DEALS, ids, names, DEALS.history)

    def _associations(self, ids: list[str], out: Ndjson) -> str | None:
        """Land ``{"id", "contacts": [ids], "companies": [{"id", "primary"}]}`` of each deal. A kind that the token may not read is
        left out of the lines: not knowing is not the same as having none."""
        notices: dict[str, str] = {}
        for part in batches(ids, 10_000):
            of: dict[str, dict[str, list[dict[str, Any]]]] = {}
            unread: set[str] = set()
            for kind in DEALS.associations:
                if kind in notices:
                    continue
                try:
                    found = associations(self.client, DEALS, kind, part)
                except (CrmPermissionError, CrmProtocolError) as error:
                    notices[kind] = f"{kind} are unknown: {error.what}"
                    continue
                of[kind] = found.of
                unread |= found.unread
            if unread:
                notices["unread"] = "HubSpot could not tell the contacts and companies of some deals; the next run asks again"
            for key in part if of else ():
                if key in unread:
                    continue
                line: Record = {"id": key}
                if "contacts" in of:
                    line["contacts"] = [one["id"] for one in of["contacts"][key]]
                if "companies" in of:
                    line["companies"] = of["companies"][key]
                out.write(line)
        return "; ".join(notices.values()) or None

    # Small things -----------------------------------------------------------------------------------------------------------

    def _files(self, obj: str) -> Ndjson:
        self.client.object = obj
        return Ndjson(self.landing.object_directory(obj))

    def _results(self, path: str) -> list[Record]:
        try:
            return records(self.client.get(path), self.client)
        except Refusal as refusal:
            raise self.client.protocol_error(refusal) from None

    def _unless_refused(self, read: Callable[[], None]) -> str | None:
        """Read what the pull can do without; why it could not be read, in words, or None."""
        try:
            read()
        except (CrmPermissionError, CrmProtocolError) as error:
            return error.what
        except Refusal as refusal:
            return self.client.protocol_error(refusal).what
        return None

    def _from(self, since: datetime) -> datetime:
        return since - timedelta(minutes=self.client.settings.overlap_minutes)

    def _whole(self, obj: str, out: Ndjson, *, key: str = "id", notice: str | None = None, partly: str | None = None) -> None:
        """Finish an object that is read whole each time. notice: why it could not be read; partly: why only a part of it."""
        said = notice or partly
        self._finish(Manifest(self.client.source, "hubspot", obj, key, "full", complete=said is None, notice=said), out, keep=not notice)

    def _finish(self, manifest: Manifest, out: Ndjson, *, keep: bool) -> None:
        """keep: whether what was read is worth loading, though there may be a notice."""
        manifest.files = out.finish() if keep else []
        manifest.calls = self.client.budget.calls[manifest.object] - self.spent_on[manifest.object]
        self.landing.finish_object(manifest)
        self.done.append(manifest.object)

    def _counted(self, found: Iterable[Record], what: str) -> Iterator[Record]:
        number = 0
        for number, record in enumerate(found, 1):
            if number % SAY_EVERY == 0:
                self.say(f"{self.client.source}: {number:,} {what} read …")
            yield record
        self.say(f"{self.client.source}: {number:,} {what} read")


def _begun(found: Iterator[Record]) -> Iterator[Record]:
    """`found`, its first page asked for already, so that a refusal shows itself here."""
    first = next(found, None)

    def all_of_it() -> Iterator[Record]:
        if first is not None:
            yield first
            yield from found

    return all_of_it()


def _listed_because(refused: str | None) -> str | None:
    return refused and f"all of them were listed, for what changed cannot be searched: {refused}"


def land(record: Record, out: Ndjson | None, history: Ndjson) -> str:
    """Write a deal and, apart from it, its past values; its id."""
    key, past = str(record["id"]), record.pop("propertiesWithHistory", None)
    if past:
        history.write({"id": key, "propertiesWithHistory": past})
    if out is not None:
        out.write(record)
    return key


def _losers(record: Record) -> set[str]:
    """Ids that were merged into this deal."""
    merged = (record.get("properties") or {}).get("hs_merged_object_ids")
    return {key for part in str(merged).split(";") if (key := part.strip())} if merged else set()


def _is_cut(record: Record) -> bool:
    """Whether a listing's inline associations go on after what it shows."""
    return any("paging" in kind for kind in (record.get("associations") or {}).values() if isinstance(kind, dict))


def _watermark(before: datetime | None, started: datetime | None, newest: datetime | None) -> datetime | None:
    """Up to where everything has been landed: see the module's invariant. It never falls behind what was promised before."""
    reached = min((at for at in (started, newest) if at is not None), default=None) if newest is not None else None
    return max((at for at in (before, reached) if at is not None), default=None)
