"""Landed NDJSON files: one record a line, as HubSpot delivered it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from connectors.landing import LandedFile

PART = 256 << 20  # bytes after which a new file begins, so that a reader can take several at once


class Ndjson:
    """The files of one object while they are written: part-00000.ndjson and so on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: list[LandedFile] = []
        self._out: BinaryIO | None = None

    def __enter__(self) -> Ndjson:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self._files)

    def write(self, record: Mapping[str, Any]) -> None:
        if self._out is None or self._files[-1].bytes >= PART:
            self._close()
            name = f"part-{len(self._files):05d}.ndjson"
            self._out = (self._directory / name).open("wb")
            self._files.append(LandedFile(name, "ndjson", 0, 0))
        self._files[-1].rows += 1
        self._files[-1].bytes += self._out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def finish(self) -> list[LandedFile]:
        """The files, on disk for good."""
        self._close()
        return [file for file in self._files if file.rows]

    def clear(self) -> None:
        """Begin anew."""
        self._close()
        for file in self._files:
            (self._directory / file.name).unlink()
        self._files = []

    def drop(self, ids: Collection[str]) -> None:
        """Take records back that turned out to be something else."""
        self._close()
        for file in self._files:
            path = self._directory / file.name
            kept = path.with_suffix(".part")
            file.rows = file.bytes = 0
            with path.open("rb") as lines, kept.open("wb") as out:
                for line in lines:
                    if str(orjson.loads(line)["id"]) not in ids:
                        file.rows += 1
                        file.bytes += out.write(line)
                _sync(out)
            kept.replace(path)

    def _close(self) -> None:
        if self._out is not None:
            _sync(self._out)
            self._out.close()
            self._out = None


def _sync(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())
