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

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Literal

from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.hubspot.around import Around
from connectors.hubspot.files import Ndjson
from connectors.hubspot.known import Known
from connectors.hubspot.objects import DEALS
from connectors.hubspot.pulling import Newest, listed_because, reached
from connectors.hubspot.reading import Listing, Record, associations, batches, changed, existing, read_all, vanished
from connectors.landing import Field, Manifest

FEW = 10_000  # deals: up to here contacts and companies of the closed ones are read each time too, at two calls per thousand
UNLABELLED = ("deal_to_contact", "deal_to_contact_unlabeled", None)  # how the listing types a contact that is attached, as nothing special
SUSPICIOUS = 100  # deals that vanish at once, if they are most of all: more likely a permission was taken away


class Deals(Around):
    """The part of a pull that reads the deals."""

    def deals(self, fields: list[Field]) -> None:
        """deals, deals.archived, deals.gone, deals.history, deals.associations: one story, because each explains the others."""
        client, known = self.client, self.known or Known()
        before = since = None if self.full else self.since.get("deals")
        # HubSpot answers standard properties that it does not list; whether a portal has them, the deals themselves show.
        names = list(dict.fromkeys([*(field.name for field in fields), *DEALS.properties]))
        newest = Newest()
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
                for record in self.counted(listing.read(archived=True), "archived deals"):
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
                    notice, since = listed_because(error.what), None
            if since is None:
                found, unknown = self._all_deals(names)
                notice = unknown or notice
            for record in self.counted(found, "deals"):
                key = str(record["id"])
                if key in landed:
                    continue
                landed.add(key)
                if since is None:
                    newest.see(record, DEALS.cursor)
                    inline = inline or "associations" in record
                    if _is_cut(record) or _is_labelled(record):
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
                watermark=reached(before, started, newest.at), fields=fields, notice=notice,
            )
            self.finish(deals, live, keep=True)
            self.finish_whole("deals.archived", archive, partly=unlisted)
            rest = (("deals.gone", gone, uncounted), ("deals.history", history, None), ("deals.associations", links, refused))
            for name, out, said in rest:
                self.finish(Manifest(client.source, "hubspot", name, "id", mode, notice=said), out, keep=True)

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
        self, since: datetime, names: list[str], known: Known, in_bin: set[str], newest: Newest
    ) -> Iterator[Record]:
        """Deals that changed and deals that were restored. Search tells which; what they hold is read from where it is kept,
        for the index may be behind with values too, and for history it must be asked anyway: it costs no call more."""
        ids: list[str] = []
        for page in changed(self.client, DEALS, self.lower(since), [DEALS.cursor]):
            for record in page:
                newest.see(record, DEALS.cursor)
                ids.append(str(record["id"]))
        # By the records' own time where that is behind the server's clock: looking up too many is only slower.
        candidates = known.restorable(min(since, self.client.clock or since)) - in_bin - set(ids)
        ids += sorted(existing(self.client, DEALS, sorted(candidates)))
        return read_all(self.client, DEALS, ids, names, DEALS.history)

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


def _begun(found: Iterator[Record]) -> Iterator[Record]:
    """`found`, its first page asked for already, so that a refusal shows itself here."""
    first = next(found, None)

    def all_of_it() -> Iterator[Record]:
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
