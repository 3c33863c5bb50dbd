"""The copy for BI tools: the same schemas but raw, compact, with every comment, put in place in one step.

The private file is never opened a second time: the copy is written by attaching it to the connection that is open. Readers of
the file before keep what they have until they open it again, because a rename leaves their file alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from warehouse.errors import SCHEMAS, WarehouseError, check_name
from warehouse.migrate import create_others, definitions, describe

# A storage version that drivers of several years can read.
STORAGE = "v1.0.0"
# Rows that are read together lie together: history by time, the rest by what people filter on.
ORDER = {
    "core.opportunity": "source, opportunity_id",
    "core.opportunity_version": "valid_from, opportunity_key",
    "core.stage_event": '"at", opportunity_key',
    "bi.pipeline_snapshot": "snapshot_date, source, pipeline, stage",
}


def publish(con: duckdb.DuckDBPyConnection, target: Path, *, now: datetime) -> Path:
    """Replace `target` by a fresh copy of core, quality, ops and bi. Returns `target`.

    A publish that fails, or is killed, leaves the old file in place; what a killed one left beside it goes with the next. Who publishes to the same
    directory at the same time waits. Raises WarehouseError when `target` cannot be written.
    """
    target = Path(target).absolute()
    check_name(target)
    part = target.with_name(target.name + ".part")
    con.execute("insert into ops.publication (as_of, published_at) values ($1, $2)", [now, datetime.now(UTC)])
    try:
        with suppress(FileExistsError):  # a file in the directory's place: said by the next line, in better words
            target.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(target.parent):
            _remove(part)
            try:
                _write(con, part)
                _sync(part)
                part.replace(target)
            except BaseException:
                _remove(part)
                raise
            _sync(target.parent)
    except (OSError, duckdb.IOException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
        raise WarehouseError(
            f"cannot be written: {why}.", path=target, fix="Check [warehouse] published, its directory's rights and the room on the disk."
        ) from error
    return target


def _write(con: duckdb.DuckDBPyConnection, part: Path) -> None:
    own = con.execute("select current_database()").fetchone()
    private = own[0] if own else "plumbline"
    # A connection of its own to the same open database: `use` below must not move the caller's.
    copy = con.cursor()
    try:
        copy.execute("set timezone = 'UTC'")
        copy.execute(f"attach {_literal(str(part))} as published (storage_version {_literal(STORAGE)})")
        try:
            copy.execute("use published")
            for schema in SCHEMAS:
                if schema != "raw":
                    copy.execute(f"create schema if not exists {schema}")
            for table in definitions("table"):
                if table.name.startswith("raw."):
                    continue
                copy.execute(table.sql)
                order = f" order by {ORDER[table.name]}" if table.name in ORDER else ""
                copy.execute(f'insert into published.{table.name} by name from "{private}".{table.name}{order}')
                _check_whole(copy, private, table.name)
                describe(copy, table)
            # The run that publishes has not ended, and never will in this file. One that was interrupted has no end either, but is over.
            copy.execute("delete from published.ops.sync_run where status = 'running'")
            # SQLAlchemy's dialect duckdb-engine asks for keys as of PostgreSQL, in a cast to a type that DuckDB lacks: without it no table reflects.
            copy.execute("create type published.main.regclass as varchar")
            create_others(copy)
            copy.execute(f'use "{private}"')
        finally:
            with suppress(duckdb.Error):
                copy.execute(f'use "{private}"')
            copy.execute("detach published")
    finally:
        copy.close()


def _check_whole(copy: duckdb.DuckDBPyConnection, private: str, table: str) -> None:
    """DuckDB 1.5 has lost rows of ordered inserts in silence (see connection.py); BI must never read from such a file."""
    counts = copy.execute(f'select (select count(*) from published.{table}), (select count(*) from "{private}".{table})').fetchone()
    if not counts or counts[0] != counts[1]:
        raise duckdb.IOException(f"{table} was not copied whole")


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the directory against other publishers; the lock goes with the process, whichever way that ends, and leaves no file.

    Network file systems lock no directories: there the writer's lock on the warehouse is all that keeps publishers apart.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    for path in (part, part.with_name(part.name + ".wal")):
        with suppress(FileNotFoundError):
            path.unlink()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
