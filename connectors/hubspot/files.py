"""Landed NDJSON files: one record a line, as HubSpot delivered it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from connectors.landing import LandedFile

PART = 256 << 20  # bytes after which a new file begins, so that a reader can take several at once


class Ndjson:
    """The files of one object while they are written: part-00000.ndjson and so on."""

    def __init__(self, directory: Path, prefix: str = "part") -> None:
        self._directory, self._prefix = directory, prefix
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
            name = self._next()
            self._out = (self._directory / name).open("wb")
            self._files.append(LandedFile(name, "ndjson", 0, 0))
        self._files[-1].rows += 1
        self._files[-1].bytes += self._out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def _next(self) -> str:
        return f"{self._prefix}-{len(self._files):05d}.ndjson"

    def sizes(self) -> list[dict[str, Any]]:
        """``{"name", "rows", "bytes"}`` of each file, as written so far."""
        return [{"name": file.name, "rows": file.rows, "bytes": file.bytes} for file in self._files]

    def flush(self) -> None:
        """What was written until now is on disk for good."""
        if self._out is not None:
            _sync(self._out)

    def resume(self, sizes: list[dict[str, Any]]) -> bool:
        """Take over the files that another process wrote, cut to `sizes`; False, and nothing is changed, where they are not all there."""
        paths = [self._directory / size["name"] for size in sizes]
        if any(not path.is_file() or path.stat().st_size < size["bytes"] for path, size in zip(paths, sizes, strict=True)):
            return False
        for path, size in zip(paths, sizes, strict=True):
            os.truncate(path, size["bytes"])
        for path in self._directory.glob(f"{self._prefix}-*.ndjson"):
            if path not in paths:
                path.unlink()
        self._files = [LandedFile(size["name"], "ndjson", size["rows"], size["bytes"]) for size in sizes]
        if self._files:
            self._out = paths[-1].open("ab")
        return True

    def records(self) -> Iterator[dict[str, Any]]:
        """What is in the files."""
        self.flush()
        for file in self._files:
            with (self._directory / file.name).open("rb") as lines:
                yield from map(orjson.loads, lines)

    def take_over(self, other: Ndjson) -> None:
        """Have the files of another object, too, by links where there are such. What is written or dropped later changes none of them there."""
        other._close()
        self._close()
        for file in other._files:
            name = self._next()
            (self._directory / name).unlink(missing_ok=True)
            try:
                os.link(other._directory / file.name, self._directory / name)
            except OSError:  # a file system without links
                shutil.copyfile(other._directory / file.name, self._directory / name)
            self._files.append(replace(file, name=name))

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
        if not ids:
            return
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
