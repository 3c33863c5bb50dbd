"""The long part of reading the deals, on disk as it grows, so that another run goes on where this one was stopped or killed.

`deals.reading/` holds what the API delivered, `deals-*.ndjson` and `history-*.ndjson`, and a journal that says how far it is: the cursor of the
next page of a listing, or the place in the list of changed ids, with the sizes that the files had there. Whatever was written after it is
cut off and read again. Both objects have the files by links, so that taking records back there leaves what was read as it is.

A reading is gone on with when it is the one that would begin now: of the same properties, API version and committed watermark; one of
`sync --full`, by another `sync --full`. It is as old as its beginning, so what changed since then is asked for again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from connectors.hubspot.files import Ndjson
from connectors.landing import FORMAT, JOURNAL, Landing, LeftOver, Manifest, reading_of, write_json

OBJECT = reading_of("deals")
KEEP = timedelta(days=7)  # archived deals can be restored for 90 days; nobody should have to think about older files than a week
EVERY = 10  # pages between two journals: so many are read again when the process dies


@dataclass(frozen=True)
class Wanted:
    """What a run would read. base: the watermark that the warehouse has committed; forced: by sync --full."""

    properties: str
    version: str
    base: str | None
    forced: bool

    @classmethod
    def of(cls, names: Sequence[str], version: str, base: datetime | None, *, forced: bool) -> Wanted:
        told = hashlib.sha256("\n".join(names).encode()).hexdigest()
        return cls(told, version, base.isoformat() if base and not forced else None, forced)


class Spool:
    """One reading. whole: a listing of all deals; else those of `ids`. started: the server's clock when it began. archived: ids that
    were in the recycle bin before it. after, position: where to go on. A context manager: what is read is kept, however it ends."""

    def __init__(self, directory: Path, wanted: Wanted, *, whole: bool, started: datetime | None) -> None:
        self.directory, self.wanted, self.whole, self.started = directory, wanted, whole, started
        self.deals, self.history = Ndjson(directory, "deals"), Ndjson(directory, "history")
        self.after: str | None = None
        self.position = 0
        self.done = self.resumed = False
        self.notice: str | None = None
        self.newest: datetime | None = None
        self.archived: set[str] = set()
        self.ids: list[str] = []
        self._boundary: dict[str, Any] = {}
        self._pages = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._boundary:
            self._write()
        self.deals.finish()
        self.history.finish()

    def begin(self) -> None:
        """Write down what is to be read, before the first page."""
        write_json(self.directory / "lists.json", {"archived": sorted(self.archived), "ids": self.ids})
        self.boundary()
        self._write()

    def boundary(self) -> None:
        """Whole pages have been written until here, and `after` and `position` say where to go on."""
        self._boundary = {
            "after": self.after, "position": self.position, "done": self.done, "deals": self.deals.sizes(), "history": self.history.sizes(),
            "newest": self.newest, "notice": self.notice,
        }  # fmt: skip
        self._pages += 1
        if self._pages % EVERY == 0 or self.done:
            self._write()

    def _write(self) -> None:
        self.deals.flush()
        self.history.flush()
        told = {"format": FORMAT, "wanted": asdict(self.wanted), "whole": self.whole, "started": self.started}
        write_json(self.directory / JOURNAL, {**told, **self._boundary})

    def records(self) -> Iterator[dict[str, Any]]:
        """The deals that were read so far."""
        return self.deals.records()

    def finish(self, landing: Landing, source: str) -> None:
        """The deals are landed whole: once they are loaded, nobody goes on with this."""
        landing.finish_object(Manifest(source, "hubspot", OBJECT, "id", "full" if self.whole else "incremental"))


def create(landing: Landing, wanted: Wanted, *, whole: bool, started: datetime | None) -> Spool:
    """A reading that begins now."""
    directory = landing.object_directory(OBJECT)
    shutil.rmtree(directory)
    return Spool(landing.object_directory(OBJECT), wanted, whole=whole, started=started)


def claim(landing: Landing, wanted: Wanted, now: datetime | None) -> Spool | None:
    """The reading of an earlier run that would begin now, moved into this one; None when all of it must be read. What nobody can go on
    with is removed; that of `sync --full` is left for the next one."""
    found: Spool | None = None
    for left in landing.left_behind():
        if left.object != OBJECT:
            continue
        told = _journal(left)
        fits = told is not None and not left.outdated and not (left.loaded and left.finished) and _is_young(told, now)
        if found is None and fits and told is not None and told["wanted"] == asdict(wanted):
            found = _resume(landing.adopt(left), told)
        elif not (fits and told is not None and told["wanted"]["forced"] and not wanted.forced):
            _remove(left)
    landing.tidy()
    return found


def _journal(left: LeftOver) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = orjson.loads((left.directory / JOURNAL).read_bytes())
        return told if told["format"] == FORMAT and isinstance(told["wanted"], dict) else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _resume(directory: Path, told: dict[str, Any]) -> Spool | None:
    started, newest = (datetime.fromisoformat(told[name]) if told[name] else None for name in ("started", "newest"))
    spool = Spool(directory, Wanted(**told["wanted"]), whole=told["whole"], started=started)
    try:
        lists = orjson.loads((directory / "lists.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        lists = None
    if lists is None or not (spool.deals.resume(told["deals"]) and spool.history.resume(told["history"])):
        shutil.rmtree(directory)
        return None
    spool.after, spool.position, spool.done, spool.notice, spool.newest = told["after"], told["position"], told["done"], told["notice"], newest
    spool.archived, spool.ids, spool.resumed = set(lists["archived"]), lists["ids"], True
    spool.boundary()
    return spool


def _is_young(told: dict[str, Any], now: datetime | None) -> bool:
    started = told.get("started")
    return now is None or not started or now - datetime.fromisoformat(started) < KEEP


def _remove(left: LeftOver) -> None:
    if not (left.loaded and left.finished):  # else it is the record of what was loaded
        shutil.rmtree(left.directory, ignore_errors=True)
