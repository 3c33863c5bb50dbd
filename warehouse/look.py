"""A look at the warehouse from outside: whether it can be used, who holds it, and what its last syncs left. Nothing is written.

The file is opened for reading for a moment, and only when nobody writes: a reader would keep the next writer out.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from warehouse import connection, migrate, stages
from warehouse.errors import WarehouseError, WarehouseLocked, WarehouseNewer, check_name

RESERVE = 1 << 30  # bytes that should be free beside room for the file once more: a load writes before it removes


@dataclass
class Look:
    """path: absolute. present: whether there is a file. error: why it cannot be used. busy: a run of ours is writing it, and all is well.
    outdated: its schema is of an earlier Plumbline; the next run brings it up to date. size, free: bytes.

    sources: per source its last_sync, last_good_sync (instants), status and error. unmapped: rows of stages.list_stages.
    unreadable, unparsed: rows of core.unreadable and core.unparsed, with the source. All empty where it could not be opened.
    """

    path: Path
    present: bool = False
    error: WarehouseError | None = None
    busy: str | None = None
    outdated: bool = False
    version: int = 0
    size: int = 0
    free: int = 0
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    unmapped: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    unparsed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cramped(self) -> bool:
        """Whether there is too little room for the next load."""
        return self.free < self.size + RESERVE


def look(path: Path) -> Look:
    """Never raises for the state of the warehouse: see Look.error."""
    path = Path(path).absolute()
    found = Look(path, present=path.exists())
    try:
        check_name(path)
    except WarehouseError as misnamed:
        found.error = misnamed
        return found
    why = unwritable(path)
    if why:
        found.error = WarehouseError(f"cannot be written: {why}.", path=path, fix="Check [warehouse] path and the rights of its directory.")
        return found
    found.free = shutil.disk_usage(_standing(path)).free
    if not found.present:
        return found
    found.size = path.stat().st_size
    writer = holder(path)
    try:
        con = connection._connect(path, read_only=True, memory_limit="250MB", threads=1)
    except connection.DAMAGE as problem:
        error = connection._explained(path, problem)
        if isinstance(error, WarehouseLocked) and writer and _pid(writer) == _pid(error.what):
            found.busy = writer
        else:
            found.error = error
        return found
    with con:
        _read(con, found)
    return found


def unwritable(path: Path) -> str | None:
    """Why a file at `path` could not be made or replaced, in words; None when it could, as far as rights tell."""
    standing = _standing(path)
    if not standing.is_dir():
        return f"{standing} is not a directory"
    if not os.access(standing, os.W_OK | os.X_OK):
        return f"no right to write in {standing}"
    if path.is_dir():
        return "it is a directory"
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return "no right to read and write it"
    return None


def holder(path: Path) -> str | None:
    """Who says that it writes the warehouse: "process 4711 (sync)". A killed run leaves its words behind: only DuckDB's lock counts."""
    try:
        return path.with_name(path.name + ".lock").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _pid(words: str) -> str | None:
    match = re.search(r"process (\d+)", words)
    return match[1] if match else None


def _standing(path: Path) -> Path:
    """The nearest thing above `path` that exists."""
    return next(parent for parent in path.parents if parent.exists())


def _read(con: duckdb.DuckDBPyConnection, found: Look) -> None:
    found.version = migrate._found_version(con)
    try:
        migrate.check_version(con, found.path)
    except WarehouseNewer as error:
        found.error = error
        return
    except WarehouseError:
        found.outdated = True
        return
    try:
        found.sources = {row.pop("source"): row for row in _rows(con, LAST_SYNC)}
        found.unmapped = [row for row in stages.list_stages(con) if row["stage"] == "unmapped" and row["deals"]]
        found.unreadable = _rows(con, "from core.unreadable order by source, object, field, column_name")
        found.unparsed = _rows(con, "from core.unparsed order by source, records desc, object, property, column_name")
    except duckdb.CatalogException:  # tables or views that this Plumbline adds without a new version of the schema
        found.outdated = True


LAST_SYNC = """
    with synced as (
        select source, as_of, status, error, started_at, run_id
        from ops.sync_run
        where source is not null and status <> 'running' and command <> 'reconcile'
    )
    select source, arg_max(as_of, (started_at, run_id)) as last_sync, arg_max(status, (started_at, run_id)) as status,
           arg_max(coalesce(error, ''), (started_at, run_id)) as error, max(as_of) filter (status = 'done') as last_good_sync
    from synced
    group by source
"""


def _rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    found = con.execute(sql)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
