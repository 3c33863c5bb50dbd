"""A portal's deals in one pull, in the order in which it is safe.

The invariant of the watermark: every deal whose hs_lastmodifieddate is at the watermark or earlier has been landed. It holds
because the new watermark is neither later than the server's clock when the reading began, nor later than the newest stamp that
was seen, and because each pull asks again for an overlap before it: search lags behind, and stamps of one moment come in any order.

What moves no stamp is looked at by itself:

- Archived deals: their listing is read whole, before the live deals. A deal that is restored meanwhile is then archived in our
  files tonight and found by the next pull; read in the other order it could be in neither listing and be lost.
- Restored deals: those that the warehouse believes deleted and that the archived listing no longer shows are read by id.
- Deals that are gone for good: found by counting (see reading.vanished), or by a full listing, in which they are missing.
- Contacts and companies attached or detached, contacts labelled otherwise: read each time for all open deals and all deals landed
  tonight; where there are few deals, for all of them.
- Losers of a merge stand in hs_merged_object_ids of the survivor, whose stamp the merge moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.hubspot import spool
from connectors.hubspot.around import Around
from connectors.hubspot.files import Ndjson
from connectors.hubspot.known import Known
from connectors.hubspot.objects import DEALS, PAGE_WITH_HISTORY, SEARCH_PAGE
from connectors.hubspot.pulling import Newest, listed_because, reached
from connectors.hubspot.reading import (
    Listing,
    Record,
    associations,
    batch_read,
    batches,
    changed,
    count,
    existing,
    instant,
    read_all,
    vanished,
)
from connectors.hubspot.spool import Spool, Wanted
from connectors.landing import Field, Manifest

T = TypeVar("T")

FEW = 10_000  # deals: up to here contacts and companies of the closed ones are read each time too, at two calls per thousand
UNLABELLED = ("deal_to_contact", "deal_to_contact_unlabeled", None)  # how the listing types a contact that is attached, as nothing special
SUSPICIOUS = 100  # deals that vanish at once, if they are most of all: more likely a permission was taken away
LAG = timedelta(minutes=5)  # by which search's index may be behind, as a rule; the overlap is for the exceptions


class Deals(Around):
    """The part of a pull that reads the deals."""

    def deals(self, fields: list[Field]) -> None:
        """deals, deals.archived, deals.gone, deals.history, deals.associations: one story, because each explains the others."""
        client, known = self.client, self.known or Known()
        before = self.since_of("deals")
        # HubSpot answers standard properties that it does not list; whether a portal has them, the deals themselves show.
        names = list(dict.fromkeys([*(field.name for field in fields), *DEALS.properties]))
        with ExitStack() as stack:
            objects = ("deals", "deals.archived", "deals.gone", "deals.history", "deals.associations")
            live, archive, gone, history, links = (stack.enter_context(Ndjson(self.landing.object_directory(o))) for o in objects)

            client.object = "deals.archived"
            started = client.clock
            told = _Told()
            wanted = Wanted.of(names, client.paths.version, self.since.get("deals"), forced=self.full)
            earlier = spool.claim(self.landing, wanted, started)
            listing = Listing(client, DEALS, names, history=DEALS.history if before is None else ())
            unlisted: str | None = None
            in_bin: set[str] = set()
            try:
                for record in self.counted(listing.read(archived=True), "archived deals"):
                    if record.get("archived") is False:
                        continue  # a server that lists live deals here, whatever it was asked for, must not have them deleted
                    told.losers |= _losers(record)
                    in_bin.add(land(record, archive, history))
            except CrmProtocolError as error:  # then they are missed: by a full listing, or by counting
                unlisted = f"archived deals are not listed: {error.what}"

            client.object = "deals"
            with earlier or self._begun(wanted, before, known, in_bin, started) as reading:
                self._read(reading, names, told, lower=self._doubted(reading))
            live.take_over(reading.deals)
            history.take_over(reading.history)
            asked_since, whole, landed = before is not None, reading.whole, told.landed
            since = None if whole else before

            # What the reading missed: what changed after it began, and what the search index did not know of yet.
            again: set[str] = set()
            newly = started
            if reading.resumed or not whole:
                newly = client.clock
                again = self._changed_since(reading, told)
            if reading.resumed:  # out of the recycle bin since the other run looked into it
                again |= (reading.archived | known.restorable(min(reading.started or newly, newly) if newly else None)) - in_bin - landed
            if again:
                found = list(read_all(client, DEALS, sorted(again), names, DEALS.history))
                known_again = {str(record["id"]) for record in found} & landed
                live.drop(known_again)
                history.drop(known_again)
                for record in found:
                    told.see(record, associated=False)
                    land(record, live, history)

            if both := in_bin & landed:  # archived or restored while we read: what is true now?
                restored = both if not whole and not reading.resumed else existing(client, DEALS, sorted(both))
                archive.drop(restored)
                live.drop(both - restored)
                in_bin -= restored
                landed -= both - restored

            client.object = "deals.gone"
            missing: set[str] = set()
            uncounted: str | None = None
            if reading.resumed:  # a page of another day may hold deals that were merged away since
                live.drop(landed & told.losers)
                landed -= told.losers
            if (not whole and self.known is not None) or reading.resumed:
                believed = (landed if whole else known.live | landed) - in_bin - told.losers
                try:
                    missing = vanished(client, DEALS, believed)
                except CrmProtocolError as error:  # its search cannot count: then a full pull finds them
                    uncounted = f"deals deleted for good were not looked for: {error.what}"
                self._guard(missing, believed)
                for key in sorted(missing, key=int):
                    gone.write({"id": key})
                live.drop(missing & landed)
                landed -= missing
            if whole and asked_since:  # nobody asked for a full pull: then nothing of it may be taken for a deletion that is none
                self._guard(known.live - landed - in_bin - told.losers, known.live)

            client.object = "deals.history"
            if asked_since and self.known is not None:
                fresh = sorted(in_bin - known.deleted.keys())
                for record in read_all(client, DEALS, fresh, ["hs_object_id"], DEALS.history, archived=True):
                    land(record, None, history)

            client.object = "deals.associations"
            if not whole:
                others = known.live if len(known.live) <= FEW else set(known.open)
                asked = (landed | others) - in_bin - missing - told.losers
            else:  # where no deal showed any, none may have one, or the server's listings do not show them
                asked = (told.cut | told.of_before | again) & landed if told.inline else landed
            refused = self._associations(sorted(asked), links)

            mode: Literal["full", "incremental"] = "full" if whole else "incremental"
            reaches = reached(before, newly if reading.resumed else started, told.newest.at)
            deals = Manifest(
                client.source, "hubspot", "deals", "id", mode, complete=whole, cursor=DEALS.cursor, since=since, watermark=reaches,
                fields=fields, notice=reading.notice,
            )
            self.finish(deals, live, keep=True)
            self.finish_whole("deals.archived", archive, partly=unlisted)
            rest = (("deals.gone", gone, uncounted), ("deals.history", history, None), ("deals.associations", links, refused))
            for name, out, said in rest:
                self.finish(Manifest(client.source, "hubspot", name, "id", mode, notice=said), out, keep=True)
            reading.finish(self.landing, client.source)

    def _begun(
        self, wanted: Wanted, since: datetime | None, known: Known, in_bin: set[str], started: datetime | None
    ) -> Spool:
        """A reading that begins now: of what changed, where that takes fewer calls than a listing of all deals; else the listing."""
        ids: list[str] | None = None
        notice, newest = None, Newest()
        if since is not None:
            try:
                ids = self._changed_ids(since, known, in_bin, newest)
            except _Dearer as dearer:
                self.say(f"{self.client.source}: {dearer.changes:,} deals changed; listing all of them takes fewer calls")
            except CrmProtocolError as error:
                notice = listed_because(error.what)
        reading = spool.create(self.landing, wanted, whole=ids is None, started=started)
        reading.notice, reading.archived, reading.ids = notice, set(in_bin), ids or []
        reading.newest = newest.at if ids is not None else None
        reading.begin()
        return reading

    def _changed_ids(self, since: datetime, known: Known, in_bin: set[str], newest: Newest) -> list[str]:
        """Deals that changed and deals that were restored. Search tells which; what they hold is read from where it is kept,
        for the index may be behind with values too, and for history it must be asked anyway: it costs no call more."""

        def weigh(changes: int) -> None:
            cost = changes / SEARCH_PAGE + changes / PAGE_WITH_HISTORY
            if changes > SEARCH_PAGE and cost > len(known.live) / PAGE_WITH_HISTORY:
                there = count(self.client, DEALS)
                if there is not None and cost > there / PAGE_WITH_HISTORY:
                    raise _Dearer(changes)

        ids: list[str] = []
        for page in changed(self.client, DEALS, self.lower(since), [DEALS.cursor], told=weigh if self.known else None):
            for record in page:
                newest.see(record, DEALS.cursor)
                ids.append(str(record["id"]))
        # By the records' own time where that is behind the server's clock: looking up too many is only slower.
        candidates = known.restorable(min(since, self.client.clock or since)) - in_bin - set(ids)
        return ids + sorted(existing(self.client, DEALS, sorted(candidates)))

    def _doubted(self, reading: Spool) -> datetime | None:
        """From which stamp on a deal may be other than what the reading has of it."""
        if reading.started is None:
            return None
        return self.lower(reading.started) if reading.resumed else reading.started - LAG

    def _read(self, reading: Spool, names: list[str], told: _Told, *, lower: datetime | None) -> None:
        """Read what of `reading` is not there yet. told: learns of every deal that was read, by whichever run."""
        told.lower = lower
        told.newest.at = reading.newest
        for record in reading.records() if reading.resumed else ():
            told.see(record, associated=reading.whole)
            if (record.get("properties") or {}).get("hs_is_closed") != "true":
                told.of_before.add(str(record["id"]))
        if reading.resumed:
            self.say(f"{self.client.source}: going on where an earlier run stopped, {len(told.landed):,} deals are there")
        if reading.done:
            return
        if reading.whole:
            self._read_listing(reading, names, told)
        else:
            rest = list(batches(reading.ids[reading.position :], PAGE_WITH_HISTORY))
            found = self.client.each(lambda part: batch_read(self.client, DEALS, part, names, DEALS.history), rest)
            with self.counting("deals") as one_more:
                for part, records in zip(rest, found, strict=True):
                    self._keep(reading, records, told, one_more)
                    reading.position += len(part)
                    reading.boundary()
        reading.done = True
        reading.boundary()

    def _read_listing(self, reading: Spool, names: list[str], told: _Told) -> None:
        """Every live deal with its history and, where the token may read them, its contacts and companies."""

        def listing(kinds: tuple[str, ...]) -> Iterator[tuple[list[Record], str | None]]:
            return _started(Listing(self.client, DEALS, names, history=DEALS.history, associations=kinds).read_pages(after=reading.after))

        unknown = False
        try:
            found = listing(DEALS.associations)
        except CrmPermissionError as error:
            found = listing(())  # refused again: it is the deals that may not be read
            unknown = True
            reading.notice = f"contacts and companies are unknown: {error.what}"
        with self.counting("deals") as one_more:
            for page, after in found:
                records = [{**record, "associations": None} for record in page] if unknown else page  # not the same as having none
                self._keep(reading, records, told, one_more)
                if after:
                    reading.after = after
                    told.keep(reading)
                    reading.boundary()
        told.keep(reading)

    def _keep(self, reading: Spool, records: list[Record], told: _Told, one_more: Callable[[], None]) -> None:
        for record in records:
            one_more()
            if told.see(record, associated=reading.whole):
                land(record, reading.deals, reading.history)

    def _changed_since(self, reading: Spool, told: _Told) -> set[str]:
        """Deals that the reading does not have as they are: those stamped since shortly before it began that are not in it, or are older there."""
        if told.lower is None:
            return set()
        again = set()
        for page in changed(self.client, DEALS, told.lower, [DEALS.cursor]):
            for record in page:
                key, stamp = str(record["id"]), instant((record.get("properties") or {}).get(DEALS.cursor))
                if key not in told.landed or (stamp is not None and stamp > told.stamps.get(key, told.lower)):
                    again.add(key)
        return again

    def _guard(self, missing: Collection[str], believed: Collection[str]) -> None:
        if len(missing) > max(SUSPICIOUS, len(believed) // 2):
            raise CrmPermissionError(
                f"{len(missing):,} of {len(believed):,} deals can no longer be seen, as if they were deleted for good",
                source=self.client.source, obj="deals", code="DEALS_VANISHED",
                fix="Check what the token's user may see. If the deals are really gone, run once with --full.",
            )

    def _associations(self, ids: list[str], out: Ndjson) -> str | None:
        """Land ``{"id", "contacts": [{"id", "labels"}], "companies": [{"id", "primary"}]}`` of each deal. A kind that the token may not
        read is left out of the lines: not knowing is not the same as having none."""
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
                    line["contacts"] = [{"id": one["id"], "labels": one["labels"]} for one in of["contacts"][key]]
                if "companies" in of:
                    line["companies"] = [{"id": one["id"], "primary": one["primary"]} for one in of["companies"][key]]
                out.write(line)
        return "; ".join(notices.values()) or None


@dataclass
class _Told:
    """What is known of the deals that were read: their ids, the losers of merges, those whose associations a listing shows in part.

    inline: a listing shows associations. stamps: of those stamped at `lower` or later. of_before: open ones that another run read.
    """

    landed: set[str] = field(default_factory=set)
    losers: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    of_before: set[str] = field(default_factory=set)
    inline: bool = False
    newest: Newest = field(default_factory=Newest)
    lower: datetime | None = None
    stamps: dict[str, datetime] = field(default_factory=dict)

    def see(self, record: Record, *, associated: bool) -> bool:
        """Take a deal in; False where it is there already. associated: its record shows its associations, if it has any."""
        key = str(record["id"])
        if key in self.landed:
            return False
        self.landed.add(key)
        self.newest.see(record, DEALS.cursor)
        if associated:
            self.inline = self.inline or "associations" in record
            if _is_cut(record) or _is_labelled(record):
                self.cut.add(key)
        self.losers |= _losers(record)
        stamp = instant((record.get("properties") or {}).get(DEALS.cursor))
        if stamp is not None and self.lower is not None and stamp >= self.lower:
            self.stamps[key] = stamp
        return True

    def keep(self, reading: Spool) -> None:
        reading.newest = self.newest.at


class _Dearer(Exception):
    """So many deals changed that listing all of them takes fewer calls."""

    def __init__(self, changes: int) -> None:
        super().__init__(changes)
        self.changes = changes


def _started(found: Iterator[T]) -> Iterator[T]:
    """`found`, its first page asked for already, so that a refusal shows itself here."""
    first = next(found, None)

    def all_of_it() -> Iterator[T]:
        if first is not None:
            yield first
            yield from found

    return all_of_it()


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


def _is_labelled(record: Record) -> bool:
    """Whether a contact has a label. The listing names a label as programs do; what people read tells only v4's batch read."""
    contacts = (record.get("associations") or {}).get("contacts") or {}
    return any(one.get("type") not in UNLABELLED for one in contacts.get("results") or ())
