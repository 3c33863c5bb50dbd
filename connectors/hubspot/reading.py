"""The ways in which HubSpot's records are read: listing, batch read, search, associations. Each yields records as delivered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any

from connectors.errors import CrmProtocolError
from connectors.hubspot.client import Client, Refusal, encode
from connectors.hubspot.objects import (
    ASSOCIATION_BATCH,
    PAGE,
    PAGE_WITH_HISTORY,
    PRIMARY_COMPANY,
    SEARCH_PAGE,
    URL_ROOM,
    CrmObject,
)

Record = dict[str, Any]


def batches(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(islice(rest, size)):
        yield batch


def records(answer: Mapping[str, Any], client: Client) -> list[Record]:
    """`results` of an answer."""
    results = answer.get("results")
    if not isinstance(results, list):
        raise CrmProtocolError(
            "the answer holds no results", source=client.source, obj=client.object, fix="Check base_url: it must be HubSpot's API."
        )
    return results


# Listing: consistent, in the order of ids, without a cap ---------------------------------------------------------------------


def pages(client: Client, path: str, query: Mapping[str, Any]) -> Iterator[list[Record]]:
    """The pages of a listing, as `paging.next.after` leads. Everything asked for is asked again with each page: HubSpot forgets it."""
    return (page for page, _ in paged(client, path, query))


def paged(client: Client, path: str, query: Mapping[str, Any], after: str | None = None) -> Iterator[tuple[list[Record], str | None]]:
    """The pages of a listing from the cursor `after` on, each with the cursor of the next one, None where it was the last."""
    while True:
        try:
            answer = client.get(path, {**query, "after": after} if after else query)
        except Refusal as refusal:
            raise client.protocol_error(refusal) from None
        following = ((answer.get("paging") or {}).get("next") or {}).get("after")
        yield records(answer, client), str(following) if following else None
        if not following:
            return
        if str(following) == after:
            raise CrmProtocolError(
                "the listing leads from a page to the same page", source=client.source, obj=client.object, fix="Report it if it stays."
            )
        after = str(following)


@dataclass(frozen=True)
class Listing:
    """The cheapest way to list every record of an object with what we want to know of it.

    Fewest calls, for n records: with history in the listing n/50, without history n/100. When the names of the properties make the
    URL too long, a listing of ids and associations (n/100) and batch reads, whose names travel in the body (n/50 or n/100).
    """

    client: Client
    obj: CrmObject
    properties: Sequence[str]
    history: Sequence[str] = ()
    associations: Sequence[str] = ()

    @property
    def page(self) -> int:
        return PAGE_WITH_HISTORY if self.history else PAGE

    @property
    def fits(self) -> bool:
        """Whether one URL can name all properties."""
        path = self.client.settings.base_url + self.client.paths.objects(self.obj.name)
        return len(path) + len(encode(self._query(self.properties, archived=False))) + 100 <= URL_ROOM  # 100: the cursor

    def _query(self, properties: Sequence[str], *, archived: bool) -> dict[str, Any]:
        query: dict[str, Any] = {"limit": self.page, "archived": archived, "properties": properties}
        if self.history:
            query["propertiesWithHistory"] = self.history
        if self.associations:
            query["associations"] = self.associations
        return query

    def read(self, *, archived: bool = False) -> Iterator[Record]:
        for page, _ in self.read_pages(archived=archived):
            yield from page

    def read_pages(self, *, archived: bool = False, after: str | None = None) -> Iterator[tuple[list[Record], str | None]]:
        """The pages from the cursor `after` on, each with the cursor to go on from when its records are kept: None where it was the last,
        "" where the page is not whole and the cursor is the one before."""
        client, path = self.client, self.client.paths.objects(self.obj.name)
        if self.fits:
            begun = False
            try:
                for page in paged(client, path, self._query(self.properties, archived=archived), after):
                    begun = True
                    yield page
            except CrmProtocolError:
                if begun or after or not self.history:
                    raise
                yield from replace(self, history=()).read_pages(archived=archived)  # a server without past values
            return
        bare = {"limit": PAGE, "archived": archived, "properties": ["hs_object_id"]}
        if self.associations:
            bare["associations"] = self.associations

        def halves() -> Iterator[tuple[list[Record], str | None]]:
            for page, following in paged(client, path, bare, after):
                for start in range(0, max(len(page), 1), self.page):
                    yield page[start : start + self.page], following if start + self.page >= len(page) else ""

        def complete(half: tuple[list[Record], str | None]) -> tuple[list[Record], str | None]:
            listed, following = half
            if not listed:
                return half
            associations = {str(record["id"]): record["associations"] for record in listed if "associations" in record}
            found = batch_read(
                client, self.obj, [str(record["id"]) for record in listed], self.properties, self.history, archived=archived
            )
            for record in found:
                if (key := str(record["id"])) in associations:
                    record["associations"] = associations[key]
            return found, following

        yield from client.each(complete, halves())


# Batch read: consistent, for ids that are known ---------------------------------------------------------------------------------


def batch_read(
    client: Client, obj: CrmObject, ids: Sequence[str], properties: Sequence[str], history: Sequence[str] = (), *, archived: bool = False
) -> list[Record]:
    """The records of `ids` (100, or 50 with history) that exist. HubSpot leaves the others out, or names them in a 207, and may
    answer the survivor for an id that was merged away: only what was asked for is returned, and an archived one is no live one."""
    body: dict[str, Any] = {"inputs": [{"id": key} for key in ids], "properties": list(properties)}
    if history:
        body["propertiesWithHistory"] = list(history)
    path = client.paths.objects(obj.name) + "/batch/read" + ("?archived=true" if archived else "")
    try:
        answer = client.post(path, body)
    except Refusal as refusal:
        if refusal.category == "OBJECT_NOT_FOUND":  # none of them exists
            return []
        if refusal.status == 400 and history:  # a server without past values
            return batch_read(client, obj, ids, properties, archived=archived)
        raise client.protocol_error(refusal) from None
    asked = set(ids)
    found = [record for record in records(answer, client) if str(record.get("id")) in asked]
    return found if archived else [record for record in found if not record.get("archived")]


def read_all(
    client: Client, obj: CrmObject, ids: Iterable[str], properties: Sequence[str], history: Sequence[str] = (), *, archived: bool = False
) -> Iterator[Record]:
    """batch_read of any number of ids, some calls at a time."""
    size = PAGE_WITH_HISTORY if history else PAGE
    for found in client.each(lambda part: batch_read(client, obj, part, properties, history, archived=archived), batches(ids, size)):
        yield from found


def existing(client: Client, obj: CrmObject, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are live records."""
    return {str(record["id"]) for record in read_all(client, obj, ids, ["hs_object_id"])}


# Search: finds what changed; lags some seconds or minutes behind; ends at 10,000 results --------------------------------------------


def changed(
    client: Client, obj: CrmObject, since: datetime, properties: Sequence[str], *, told: Callable[[int], None] | None = None
) -> Iterator[list[Record]]:
    """Records whose cursor is at `since` or later, page by page in the order of ids. told: learns with the first page how many there are.

    Every page is a search of its own for ids above the last one. So the cap of 10,000 results is never met, any number of records
    may share one stamp, and records that change or go while we read cannot push others over a page's edge.
    """
    stamp = str(int(since.timestamp() * 1000))
    last = 0
    while True:
        filters = [_filter(obj.cursor, "GTE", stamp), _filter("hs_object_id", "GT", str(last))]
        body = {
            "limit": SEARCH_PAGE, "properties": list(properties), "filterGroups": [{"filters": filters}],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
        }
        answer = _search(client, obj, body)
        page = records(answer, client)
        if not page:
            return
        total = answer.get("total")
        if isinstance(total, int) and told and not last:
            told(total)
        yield page
        if isinstance(total, int) and len(page) >= total:
            return
        ids = [last, *(int(record["id"]) for record in page)]  # more are to come: only in this order is none of them left out
        if any(following <= before for before, following in pairwise(ids)):
            raise CrmProtocolError(
                "search does not sort by id", source=client.source, obj=client.object, fix="Run with --full, which lists instead of searching."
            )
        last = ids[-1]


def count(client: Client, obj: CrmObject, between: tuple[str, str] | None = None) -> int | None:
    """How many live records there are, in all or with ids from the first to the second; None when HubSpot does not tell."""
    filters = [_filter("hs_object_id", "GTE", between[0]), _filter("hs_object_id", "LTE", between[1])] if between else []
    body = {"limit": 1, "properties": ["hs_object_id"], "filterGroups": [{"filters": filters}] if filters else []}
    total = _search(client, obj, body).get("total")
    return total if isinstance(total, int) else None


def _filter(name: str, operator: str, value: str) -> dict[str, str]:
    return {"propertyName": name, "operator": operator, "value": value}


def _search(client: Client, obj: CrmObject, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return client.post(client.paths.objects(obj.name) + "/search", body, search=True)
    except Refusal as refusal:
        raise client.protocol_error(refusal) from None


def vanished(client: Client, obj: CrmObject, believed: Collection[str]) -> set[str]:
    """Those of `believed` that are no live records any more, found by counting.

    A deal that was deleted for good leaves no trace: no stamp moves and no listing shows it. Reading every id costs n/100 calls; a
    count costs one, and where it differs from what we believe, ranges of ids are halved until reading them is cheaper. Ends at
    the price of reading everything, whatever the counts say. Counts come from the search index: what it has not noticed yet is
    found by a later run.
    """
    ids = sorted((key for key in believed if key.isdigit()), key=int)
    if not ids:
        return set()
    try:
        total = count(client, obj)
    except CrmProtocolError:
        total = None
    if total is None:  # a search that does not count
        return set(ids) - existing(client, obj, ids)
    if total == len(ids):
        return set()
    counts_left = max(20, len(ids) // PAGE)
    gone: set[str] = set()
    doubtful = [(ids, total)]
    while doubtful:
        part, counted = doubtful.pop()
        if len(part) <= PAGE or counts_left == 0:
            gone |= set(part) - existing(client, obj, part)
            continue
        low, high = part[: len(part) // 2], part[len(part) // 2 :]
        counts_left -= 1
        below = count(client, obj, (low[0], low[-1])) or 0
        doubtful += [(side, number) for side, number in ((low, below), (high, counted - below)) if number != len(side)]
    return gone


# Associations ------------------------------------------------------------------------------------------------------------------


@dataclass
class Associations:
    """What deals are associated with at this moment; `unread` are ids that HubSpot could not answer for."""

    of: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)


def associations(client: Client, obj: CrmObject, to: str, ids: Iterable[str]) -> Associations:
    """Per id, the records of kind `to`: ``{"id", "primary", "labels"}``, labels in the order of their texts. An id without any is there
    with an empty list."""
    found = Associations()
    path = client.paths.associations(obj.name, to)

    def ask(inputs: list[dict[str, str]]) -> dict[str, Any]:
        try:
            return client.post(path, {"inputs": inputs})
        except Refusal as refusal:
            raise client.protocol_error(refusal) from None

    cursors: set[tuple[str, str]] = set()
    waiting: list[dict[str, str]] = []
    for key in ids:
        found.of[key] = []
        waiting.append({"id": key})
    while waiting:
        parts = [waiting[start : start + ASSOCIATION_BATCH] for start in range(0, len(waiting), ASSOCIATION_BATCH)]
        waiting = []
        for answer in client.each(ask, parts):
            for result in records(answer, client):
                key = str(result["from"]["id"])
                have = {one["id"]: one for one in found.of.setdefault(key, [])}
                for target in result.get("to") or []:
                    other = str(target["toObjectId"])
                    kinds = target.get("associationTypes") or []
                    if other not in have:
                        have[other] = {"id": other, "primary": False, "labels": []}
                        found.of[key].append(have[other])
                    one = have[other]
                    one["primary"] |= any(kind.get("typeId") == PRIMARY_COMPANY for kind in kinds)
                    one["labels"] = sorted({*one["labels"], *(str(kind["label"]) for kind in kinds if kind.get("label"))})
                after = str(((result.get("paging") or {}).get("next") or {}).get("after") or "")
                if after and (key, after) not in cursors:
                    cursors.add((key, after))
                    waiting.append({"id": key, "after": after})
            for error in answer.get("errors") or []:
                if error.get("category") != "OBJECT_NOT_FOUND":  # which is how HubSpot says that there are none
                    context = error.get("context") or {}
                    found.unread |= {str(key) for name in ("fromObjectId", "ids") for key in context.get(name) or []}
    for key in found.unread:
        found.of.pop(key, None)
    return found


# Values ------------------------------------------------------------------------------------------------------------------------


def instant(value: Any) -> datetime | None:
    """A stamp as HubSpot writes it, ISO 8601 or milliseconds since 1970; None for anything else."""
    if not isinstance(value, str) or not value:
        return None
    try:
        if value.isdigit():
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        parsed = datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
