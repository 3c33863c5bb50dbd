"""Reading by REST query and queryAll: pages of up to 2,000 records, each record array cut out of its page and landed as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from connectors.errors import CrmProtocolError
from connectors.salesforce.client import Client, Refused
from connectors.salesforce.landed import Landed
from connectors.salesforce.schema import Selection
from connectors.salesforce.stamps import scan_json

PAGE = 2000
RESTARTS = 2  # a query cursor lives for two days and may be thrown out by others of the same user
LOST_CURSOR = frozenset({"INVALID_QUERY_LOCATOR", "NOT_FOUND", "QUERY_CURSOR_NOT_FOUND"})


@dataclass(frozen=True)
class Page:
    """records: bytes of a JSON array. total: records of the whole query, as the server counts them. more: URL of the next page."""

    records: bytes
    total: int | None
    more: str | None


class TooMany(Exception):
    """The first page says that another way is cheaper."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


def query(
    client: Client, selection: Selection, since: datetime | None, landed: Landed, accept: Callable[[int, int], bool] | None = None
) -> None:
    """Land all pages, or those that are still to come where an earlier process read the others.

    accept: asked once with the records of the first page and those of the whole query; False raises TooMany, nothing landed.
    The count is that of the first page: an answer of its own would be one more call on each quiet night.

    Fewer records than the server counted: some were deleted for good meanwhile, or it lost some. So all is read once more; if they
    are missing again, what came is landed as `short`: nothing is taken for deleted, and the watermark stays where it was.
    """
    for last in (False, True):
        _pages(client, selection, since, landed, accept)
        told, came = landed.reading.told, landed.rows
        if told is None or came >= told:
            break
        if last:
            landed.reading.short = True
            landed.notices.append(f"{came} of {told} records came; what is absent is not taken for deleted, and the next run asks for them again")
        else:
            landed.clear()
    landed.finished()


def _pages(
    client: Client, selection: Selection, since: datetime | None, landed: Landed, accept: Callable[[int, int], bool] | None
) -> None:
    name, key, reading = selection.spec.name, selection.spec.key, landed.reading
    for restart in range(RESTARTS + 1):
        url = reading.more
        resumed = url is not None
        if url is None and reading.pages:
            return  # pages without a next one: the last has come
        if url is None:
            landed.clear()
            url = selection.url(client, since)
        try:
            while url:
                body, _ = client.fetch(name, url, headers={"Sforce-Query-Options": f"batchSize={PAGE}"})
                page = cut(client, name, body)
                rows, stamp = scan_json(page.records, key, selection.cursor)
                if reading.told is None and page.total is not None:
                    if accept and not accept(rows, page.total):
                        raise TooMany(page.total)
                    reading.told = page.total
                if rows:
                    landed.write_array(page.records, rows, stamp, page.more)
                else:
                    landed.turned(page.more)
                url = page.more
            return
        except Refused as refused:
            lost = refused.code in LOST_CURSOR and bool(reading.pages)
            if restart == RESTARTS or not (resumed or lost):
                raise
            landed.clear()


def cut(client: Client, obj: str, body: bytes) -> Page:
    """Separate the array `records` from the envelope around it without parsing the records."""
    try:
        start = body.index(b"[", body.index(b'"records"'))
        end = body.rindex(b"]") + 1
        envelope = orjson.loads(body[:start] + b"[]" + body[end:])
        records = body[start:end]
    except (ValueError, orjson.JSONDecodeError):
        envelope, records = _parsed(client, obj, body)
    if not isinstance(envelope, dict):
        envelope, records = _parsed(client, obj, body)
    total = envelope.get("totalSize")
    more = envelope.get("nextRecordsUrl") if not envelope.get("done") else None
    return Page(records, total if isinstance(total, int) else None, own_path(client, obj, more) if more else None)


def _parsed(client: Client, obj: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """The same for an answer whose keys stand in another order, or for what is no answer at all."""
    try:
        document = orjson.loads(body)
        return document, orjson.dumps(document["records"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise client.not_json(obj) from None


def own_path(client: Client, obj: str, url: str) -> str:
    """Path and query of a URL that the server gave us. They are asked of instance_url whichever host the URL names (an org
    behind a gateway names its My Domain): so our token travels nowhere else."""
    parts = urlsplit(url)
    if not parts.path.startswith("/services/"):
        raise CrmProtocolError(
            "the server points to an address outside its API for the next page",
            source=client.settings.name,
            obj=obj,
            fix="Check instance_url: it must be the org's My Domain address.",
        )
    return parts.path + (f"?{parts.query}" if parts.query else "")
