"""The two files of a write-back: changes in, results out, one JSON document a line.

changes: ``{"id": "006…", "fields": {"Plumbline_Status__c": "red", "Plumbline_Issues__c": null}}``; null clears a field.
results: ``{"id": "006…", "ok": true, "code": null, "message": null}``; each id of the changes once, as answers arrive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson


@dataclass(frozen=True)
class WriteResult:
    """Records written and refused, and the API calls it took."""

    written: int
    failed: int
    calls: int


@dataclass(frozen=True)
class Outcome:
    """What became of one record. `code` and `message` are the CRM's own words when it refused."""

    id: str
    ok: bool
    code: str | None = None
    message: str | None = None


def read_changes(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield orjson.loads(line)


class Results:
    """The results file while it grows. add() returns when its outcomes are on disk, so that a process killed later still
    knows what the CRM acknowledged."""

    def __init__(self, path: Path) -> None:
        self.written = self.failed = 0
        self._out = path.open("ab")

    def __enter__(self) -> Results:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._out.close()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            line = {"id": outcome.id, "ok": outcome.ok, "code": outcome.code, "message": outcome.message}
            self._out.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            if outcome.ok:
                self.written += 1
            else:
                self.failed += 1
        self._out.flush()
        os.fsync(self._out.fileno())
