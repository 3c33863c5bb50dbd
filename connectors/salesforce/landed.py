"""What the reading of one object has put on disk so far, and the journal by which a later process goes on with it.

The invariant of a journal: what it says was done is done, and is whole on disk; what is not in it may have been begun. It is
written before a job is created, when the job's id is known, and after each page: so a process that is killed at any instant leaves
pages that need not be fetched again, the address of what comes next, and the name of every job it may have made.

A journal holds one or more readings. The first reads what was asked for. A process that goes on with an earlier one's work appends
another, of what changed since then; where both have a record, the later one counts.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from connectors.landing import JOURNAL, MANIFEST, LandedFile, write_json

FORMAT = 1


@dataclass
class Page:
    """A page of a result: a file that is whole. stamp: the greatest cursor in it."""

    number: int
    file: LandedFile
    stamp: datetime | None = None


@dataclass
class Reading:
    """One query, from the intent to its last page.

    serial: counts the readings of an object. run_id: the run that began it. wanted: the query that the describe suggested; operation,
    filtered and dropped say what was left away from it when it was refused. started: the server's clock before it began.
    intent: the server's clock when the creation of a job was about to be asked for, until its id is known and no other can have been
    created. job: its id; complete: it is, or it has ended otherwise. told: records that there are, as the org said. urls: pages of the
    job's result. more: REST's address of the next page, or a job's locator. short: fewer records came than the org had told.
    """

    serial: int = 0
    run_id: str = ""
    wanted: str = ""
    version: int = 0
    since: datetime | None = None
    started: datetime | None = None
    operation: str = ""
    filtered: bool = True
    dropped: list[str] = field(default_factory=list)
    intent: datetime | None = None
    job: str | None = None
    complete: bool = False
    told: int | None = None
    urls: list[str] | None = None
    more: str | None = None
    pages: list[Page] = field(default_factory=list)
    short: bool = False
    done: bool = False

    @property
    def rows(self) -> int:
        return sum(page.file.rows for page in self.pages)

    @property
    def under_way(self) -> bool:
        """Whether there is something to go on with: a job, a next page, or a last page that has come."""
        return not self.done and (self.job is not None or self.more is not None or bool(self.pages))

    def asks(self, operation: str, dropped: Iterable[str], *, filtered: bool) -> None:
        """What is asked for now, after refused parts of `wanted` were left away."""
        self.operation, self.dropped, self.filtered = operation, list(dropped), filtered

    def forget(self) -> None:
        """As if nothing had been asked yet."""
        self.job = self.intent = self.told = self.urls = self.more = None
        self.complete = self.short = self.done = False
        self.pages = []


@dataclass
class Loose:
    """A Bulk job that is of no use any more. id: None where only the intent to create one is known, and when that was. ended: it is
    not at work."""

    id: str | None
    intent: datetime | None = None
    ended: bool = False


class Landed:
    """The files of one object. With `keep` the journal is written, else nothing of it outlives the process.

    base: the committed watermark at the time. whole: everything is read, although there may be a base. loose: jobs to be closed.
    adopted: an earlier process began it.
    """

    def __init__(self, directory: Path, *, keep: bool = False, base: datetime | None = None, whole: bool = True) -> None:
        self.directory, self.keep, self.base, self.whole = directory, keep, base, whole
        self.readings = [Reading()]
        self.loose: list[Loose] = []
        self.notices: list[str] = []
        self.adopted = False
        self._lock = threading.RLock()

    # What is there

    @property
    def reading(self) -> Reading:
        """The reading that is going on, or was the last."""
        return self.readings[-1]

    @property
    def files(self) -> list[LandedFile]:
        """Files with records, of all readings, in the order of their results."""
        pages = [page for reading in self.readings for page in sorted(reading.pages, key=lambda p: p.number)]
        return [page.file for page in pages if page.file.rows]

    @property
    def greatest(self) -> datetime | None:
        """The greatest cursor of all readings."""
        return max((page.stamp for reading in self.readings for page in reading.pages if page.stamp), default=None)

    @property
    def rows(self) -> int:
        """Records of the last reading."""
        return self.reading.rows

    @property
    def short(self) -> bool:
        """Whether less came than the org had told."""
        return any(reading.short for reading in self.readings)

    # Readings

    def begin(self, reading: Reading) -> None:
        """A reading is about to begin: the first, or one after those that are done."""
        if self.reading.wanted:
            reading.serial = self.reading.serial + 1
            self.readings.append(reading)
        else:
            self.readings = [reading]
        self.clear()

    def clear(self) -> None:
        """Forget what the present reading landed and remove it: it is begun anew, or these are left-overs of a killed run."""
        self.let_go()
        self.reading.forget()
        kept = {page.file.name for reading in self.readings for page in reading.pages}
        kept |= {JOURNAL} if self.keep else set()  # it is replaced in one step: it may name jobs to be closed
        kept |= {MANIFEST} if len(self.readings) > 1 else set()  # of the readings before this one
        for path in self.directory.iterdir():
            if path.name not in kept:
                path.unlink()
        self.save()

    def reset(self) -> None:
        """Nothing of this object is landed after all."""
        self.let_all_go()
        self.readings = [Reading()]
        self.clear()

    def let_go(self) -> bool:
        """The job of the present reading, or one that may have been created for it, is of no use any more. Whether there was one."""
        if not self.reading.job and not self.reading.intent:
            return False
        self.loose.append(Loose(self.reading.job, self.reading.intent, self.reading.complete))
        self.reading.job = self.reading.intent = None
        self.save()
        return True

    def let_all_go(self) -> None:
        """Nobody goes on with any of it."""
        for reading in self.readings:
            if reading.job or reading.intent:
                self.loose.append(Loose(reading.job, reading.intent, reading.complete))
                reading.job = reading.intent = None

    def closed(self, job: Loose) -> None:
        """The org has rid itself of it."""
        self.loose.remove(job)
        self.save()

    def drop_last(self) -> None:
        """Give up the present reading; those before it stand."""
        self.clear()
        self.readings.pop()
        self.save()

    def only_last(self) -> None:
        """The last reading read everything, so that those before it say nothing more."""
        names = [page.file.name for reading in self.readings[:-1] for page in reading.pages]
        self.readings = self.readings[-1:]
        self.save()
        for name in names:
            (self.directory / name).unlink(missing_ok=True)

    def finished(self) -> None:
        """The present reading has its last page; its job has done its duty."""
        self.reading.done, self.reading.more = True, None
        if not self.let_go():
            self.save()

    # Pages

    def path(self, number: int, ending: str) -> Path:
        """Where page `number` of the present reading belongs. Readings share a directory and never a name."""
        serial = self.reading.serial
        return self.directory / (f"part-{serial}-{number:05d}.{ending}" if serial else f"part-{number:05d}.{ending}")

    def add(self, page: Page, more: str | None = None) -> None:
        """A page is on disk, whole. Safe under threads: pages of a job come in any order."""
        page.file.reading = self.reading.serial
        with self._lock:
            self.reading.pages.append(page)
            self.reading.more = more
            self.save()

    def write_array(self, records: bytes, rows: int, stamp: datetime | None = None, more: str | None = None) -> None:
        """One JSON array as a file, whole or absent. stamp: the greatest cursor in it; more: the address of the next page."""
        number = len(self.reading.pages)
        path = self.path(number, "json")
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as out:
            out.write(records)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
        self.add(Page(number, LandedFile(path.name, "json_array", rows, len(records)), stamp), more)

    def turned(self, more: str | None) -> None:
        """A page without records was read; `more` is the next."""
        self.reading.more = more
        self.save()

    # The journal

    def save(self) -> None:
        if not self.keep:
            return
        with self._lock:
            readings = [asdict(reading) for reading in self.readings]
            loose = [asdict(job) for job in self.loose]
            document = {"format": FORMAT, "base": self.base, "whole": self.whole, "readings": readings, "loose": loose}
            write_json(self.directory / JOURNAL, document)

    @classmethod
    def resume(cls, directory: Path) -> Landed | None:
        """What an earlier process left in `directory`; None where there is no journal that we understand."""
        try:
            document = orjson.loads((directory / JOURNAL).read_bytes())
            if document["format"] != FORMAT:
                return None
            landed = cls(directory, keep=True, base=_instant(document["base"]), whole=document["whole"])
            landed.readings = [_reading(told) for told in document["readings"]]
            landed.loose = [Loose(told["id"], _instant(told["intent"]), told["ended"]) for told in document["loose"]]
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None
        landed.adopted = True
        return landed if landed.readings else None

    def check(self) -> bool:
        """Compare the files with the journal. A page of a job that is not there as it should be is fetched again; without another
        such page the reading has a hole, and then what is here is good for nothing: False."""
        for reading in self.readings:
            lost = [page for page in reading.pages if not _is_there(self.directory, page)]
            if lost and (reading.done or reading.job is None or reading.urls is None):
                return False
            reading.pages = [page for page in reading.pages if page not in lost]
        return all(reading.done for reading in self.readings[:-1])


def _is_there(directory: Path, page: Page) -> bool:
    try:
        return (directory / page.file.name).stat().st_size == page.file.bytes
    except OSError:
        return False


def _reading(told: Mapping[str, Any]) -> Reading:
    reading = Reading(**{**told, "pages": [_page(page) for page in told["pages"]]})
    reading.since, reading.started, reading.intent = (_instant(at) for at in (reading.since, reading.started, reading.intent))
    return reading


def _page(told: Mapping[str, Any]) -> Page:
    return Page(told["number"], LandedFile(**told["file"]), _instant(told["stamp"]))


def _instant(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
