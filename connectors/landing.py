"""Landed files: what the connectors hand to the warehouse, as bytes on disk with a manifest.

One pull of one source is one directory::

    <landing>/<source>/<run_id>/
        pull.json                     written last, by rename: a directory without it is an unfinished pull
        loaded                        empty; written when the warehouse has committed it
        <object>/manifest.json        written when the object is complete
        <object>/journal.json         how far the reading of an object has come, where another run may go on with it
        <object>/outdated             empty; the warehouse has been told since what this reading cannot know: nobody goes on with it
        <object>/part-00000.csv       the CRM's bytes: csv, json_array (a file is one JSON array) or ndjson

`docs/landing.md` describes the JSON. Instants are ISO 8601 in UTC, sizes are bytes, names are the CRM's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

FORMAT = 1
PULL, MANIFEST, JOURNAL, LOADED, OUTDATED = "pull.json", "manifest.json", "journal.json", "loaded", "outdated"
FileFormat = Literal["csv", "json_array", "ndjson"]


@dataclass
class LandedFile:
    """One file of an object. `rows` counts records as the CRM told or we counted while streaming."""

    name: str
    format: FileFormat
    rows: int
    bytes: int
    columns: list[str] = field(default_factory=list)  # csv: the header, in order
    reading: int = 0  # where a record was read more than once, the file of the highest number knows it best


@dataclass
class Field:
    """A field of the CRM's schema, as its describe or properties call names it."""

    name: str
    type: str
    label: str | None = None
    custom: bool = False
    calculated: bool = False


@dataclass
class Manifest:
    """What was landed for one object, and what may be concluded from it.

    mode: `full` or `incremental`. complete: the files hold every record that the CRM has (a full listing that ended well),
    so that what is absent is gone. watermark: every record with a cursor up to here has been landed, by the CRM's own clock;
    None where the object has no cursor and is read whole each time.
    """

    source: str
    crm: str
    object: str
    key: str
    mode: Literal["full", "incremental"]
    complete: bool = False
    cursor: str | None = None
    since: datetime | None = None
    watermark: datetime | None = None
    base: datetime | None = None  # the committed watermark that the reading began from
    files: list[LandedFile] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    calls: int = 0
    notice: str | None = None  # why the object is empty or partial (no permission, not in this edition), in words

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files)


@dataclass
class Pull:
    """One finished pull of one source. `org` holds what the CRM says of itself: org_id, timezone, currency,
    fiscal_year_start_month, record_url (a template with {id}), each where known.

    stopped: why the pull ended before everything was read (the quota), in words; it then holds the objects that were finished,
    and `unread` names those that it did not come to.
    """

    source: str
    crm: str
    run_id: str
    full: bool
    objects: list[str] = field(default_factory=list)
    org: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    daily_used: int | None = None
    daily_limit: int | None = None
    server_time: datetime | None = None
    stopped: str | None = None
    unread: list[str] = field(default_factory=list)


def _default(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"cannot write {type(value).__name__} to a manifest")


def write_json(path: Path, document: Any) -> None:
    """Write `document` so that the file is either absent or whole, whenever the process dies."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as out:
        out.write(orjson.dumps(document, default=_default, option=orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME))
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)


def mark_loaded(directory: Path) -> None:
    """Note that the pull in `directory` is in the warehouse, its watermarks committed: nothing of it is adopted any more. What a
    stopped pull did not come to is remembered for the next one."""
    try:
        pull = orjson.loads((directory / PULL).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        pull = {}
    if pull.get("stopped"):
        write_json(directory.parent / _unread_name(pull["full"]), {"format": FORMAT, "at": pull["server_time"], "unread": pull["unread"]})
    else:
        for full in (True, False) if pull.get("full") else (False,):
            (directory.parent / _unread_name(full)).unlink(missing_ok=True)
    (directory / LOADED).touch()


def outdate(root: Path, source: str, objects: Iterable[str]) -> None:
    """Let nobody go on with what runs of `source` have begun to read of `objects`. To be called before records of them are loaded that
    were asked for one by one: such a load moves no watermark, so that an older reading would go for newer."""
    for name in objects:
        for directory in (name, reading_of(name)):
            for journal in (root / source).glob(f"*/{directory}/{JOURNAL}"):
                (journal.parent / OUTDATED).touch()


def reading_of(obj: str) -> str:
    """The directory beside an object's own in which a long reading of it grows, where its files are made from what was read."""
    return f"{obj}.reading"


def is_of_use(directory: Path) -> bool:
    """Whether a later pull may go on with something in the directory of a pull: it must not be removed."""
    loaded = (directory / LOADED).exists()
    return any(not (loaded and (journal.parent / MANIFEST).exists()) for journal in directory.glob(f"*/{JOURNAL}"))


def _unread_name(full: bool) -> str:
    return "unread-full.json" if full else "unread.json"


@dataclass(frozen=True)
class LeftOver:
    """The directory of an object in an earlier run of the source, with a journal. finished: it has a manifest; loaded: the
    warehouse holds that run's pull; outdated: the warehouse knows better by now."""

    object: str
    run_id: str
    directory: Path
    finished: bool
    loaded: bool
    outdated: bool

    def give_up(self) -> None:
        """Let nobody go on with it; what it may have begun elsewhere can still be looked up."""
        (self.directory / OUTDATED).touch()


class Landing:
    """The directory of one pull while it is being filled."""

    def __init__(self, root: Path, source: str, run_id: str) -> None:
        self.run_id, self.directory = run_id, root / source / run_id
        self.directory.mkdir(parents=True, exist_ok=True)

    def object_directory(self, obj: str) -> Path:
        directory = self.directory / obj
        directory.mkdir(exist_ok=True)
        return directory

    def finish_object(self, manifest: Manifest) -> None:
        write_json(self.object_directory(manifest.object) / MANIFEST, {"format": FORMAT, **asdict(manifest)})

    def withdraw(self, obj: str) -> None:
        """Let a finished object be work in progress again: it is not loaded with this pull."""
        (self.object_directory(obj) / MANIFEST).unlink(missing_ok=True)

    def finish(self, pull: Pull) -> Path:
        write_json(self.directory / PULL, {"format": FORMAT, **asdict(pull)})
        return self.directory

    # What earlier runs of the source left behind

    def left_behind(self) -> list[LeftOver]:
        """Objects that have a journal, of the newest run first."""
        runs = sorted((d for d in self.directory.parent.iterdir() if d.is_dir() and d != self.directory), key=lambda d: d.name, reverse=True)
        return [
            LeftOver(d.name, run.name, d, (d / MANIFEST).exists(), (run / LOADED).exists(), (d / OUTDATED).exists())
            for run in runs
            for d in sorted(journal.parent for journal in run.glob(f"*/{JOURNAL}"))
        ]

    def adopt(self, left: LeftOver) -> Path:
        """Make what was left behind this run's own. Moved in one step: killed before or after it, one of the two runs has it whole."""
        target = self.directory / left.object
        if target.exists():
            shutil.rmtree(target)
        left.directory.rename(target)
        return target

    def tidy(self) -> None:
        """Remove the directories of earlier runs that were not loaded and hold nothing to go on with."""
        for run in self.directory.parent.iterdir():
            if run.is_dir() and run != self.directory and not (run / LOADED).exists() and not is_of_use(run):
                shutil.rmtree(run, ignore_errors=True)

    def unread(self, *, full: bool) -> tuple[list[str], datetime | None] | None:
        """What the last pull, or the last full one, did not come to because it was stopped, and its server's clock; None when it
        was not stopped."""
        try:
            told = orjson.loads((self.directory.parent / _unread_name(full)).read_bytes())
            return list(told["unread"]), datetime.fromisoformat(told["at"]) if told["at"] else None
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None
