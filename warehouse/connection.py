"""The private DuckDB file: one writer at a time, the same session settings everywhere, damage told apart from a lock.

DuckDB locks its file with POSIX record locks, and any open()+close() of the file inside the writing process drops such a lock
silently: a second process could then write and its commits would be lost. So nothing in this process may open the file but
DuckDB, and a lock of our own, on a file beside it, says who writes.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import duckdb

from warehouse.errors import WarehouseDamaged, WarehouseError, WarehouseLocked, WarehouseMissing, WarehouseNewer, check_name

# What DuckDB raises on a file that it cannot open or read; anything else on opening is a defect of ours and stays visible as one.
DAMAGE = (
    duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException,
    duckdb.InvalidInputException, duckdb.ConnectionException,
)
CLOSE_IT = "Close that program, or wait until it is done. Tools that only read should open the published file."


class Warehouse:
    """An open warehouse. `con` is a DuckDB connection in UTC; use `con.cursor()` in other threads."""

    def __init__(self, path: Path, con: duckdb.DuckDBPyConnection, lock: WriterLock | None) -> None:
        self.path, self.con, self._lock = path, con, lock

    def close(self) -> None:
        """Close the file, then let the next writer in. Safe to call twice."""
        self.con.close()
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class WriterLock:
    """The right to write, held as an flock on `<file>.lock`. The kernel lets go of it when the process dies, however it dies."""

    def __init__(self, path: Path, command: str) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._file: IO[str] | None = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise WarehouseLocked(
                f"is being written by {holder}.", path=path, fix="Wait until that run is done; only one may write at a time."
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} ({command})")
        self._file.flush()

    def release(self) -> None:
        """The file stays: removing it would let two writers lock two different files of one name."""
        if self._file:
            self._file.truncate(0)
            self._file.close()
            self._file = None


def open_warehouse(
    path: Path, *, read_only: bool = False, memory_limit: str = "750MB", threads: int | None = None, command: str | None = None
) -> Warehouse:
    """Open the warehouse at `path`, for writing unless `read_only`; a writer creates it and brings its schema up to date.

    memory_limit bounds DuckDB's buffers; beyond it work spills to `<path>.tmp`. command: what the lock says is running.
    Raises WarehouseLocked, WarehouseNewer, WarehouseDamaged, WarehouseMissing (read_only and no file), WarehouseError.
    """
    from warehouse.migrate import check_version, migrate
    from warehouse.ops import mark_interrupted

    path = Path(path).absolute()
    check_name(path)
    if read_only and not path.exists():
        raise WarehouseMissing("there is no warehouse yet.", path=path, fix="Run `plumbline sync` first.")
    lock = None
    if not read_only:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path, command or Path(sys.argv[0]).name or "python")
        except OSError as error:
            raise _unreachable(path, error.strerror or str(error)) from None
    try:
        con = _connect(path, read_only=read_only, memory_limit=memory_limit, threads=threads)
        try:
            if read_only:
                check_version(con, path)
            else:
                migrate(con, path)
                mark_interrupted(con)
        except BaseException:
            con.close()
            raise
    except DAMAGE as error:
        _release(lock)
        raise _explained(path, error) from error
    except BaseException:
        _release(lock)
        raise
    return Warehouse(path, con, lock)


def _release(lock: WriterLock | None) -> None:
    if lock:
        with suppress(OSError):
            lock.release()


def _connect(path: Path, *, read_only: bool, memory_limit: str, threads: int | None) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "temp_directory": f"{path}.tmp",
        # Offline is normal where Plumbline runs, and every extension that it needs is part of the wheel.
        "autoinstall_known_extensions": False,
        # Loads of a million records stay within the limit; where order matters, SQL says so. And it must stay off: with it DuckDB
        # 1.5.5 silently loses the rows of a large insert that follows an insert of no rows into the same table and transaction.
        "preserve_insertion_order": False,
    }
    if threads:
        config["threads"] = threads
    con = duckdb.connect(str(path), read_only=read_only, config=config)
    con.execute("set timezone = 'UTC'")
    # DuckDB draws on stdout where it takes Python for interactive (python -c, notebooks); stdout belongs to what a command answers.
    con.execute("set enable_progress_bar = false")
    return con


def _unreachable(path: Path, why: str) -> WarehouseError:
    return WarehouseError(f"cannot be opened: {why}.", path=path, fix="Check [warehouse] path and the rights of its directory.")


def _explained(path: Path, error: duckdb.Error) -> WarehouseError:
    """DuckDB's words on opening a file, as one of our errors."""
    said = str(error)
    if "lock on file" in said or "different configuration than existing" in said:
        holder = re.search(r"held in (\S+) \(PID (\d+)\)", said)
        who = f"process {holder[2]} ({Path(holder[1]).name})" if holder else "another program"
        return WarehouseLocked(f"is held open by {who}.", path=path, fix=CLOSE_IT)
    if "newer version of DuckDB" in said or "but we can only read versions" in said:
        fix = "Run the Plumbline that wrote it, or install its version of DuckDB."
        return WarehouseNewer("was written by a newer version of DuckDB.", path=path, fix=fix)
    if re.search(r"Permission denied|No such file|Is a directory|Read-only file|No space left", said):
        return _unreachable(path, said.splitlines()[0].rstrip("."))
    return WarehouseDamaged(
        "is not a whole DuckDB database.",
        path=path,
        fix="Put a backup in its place, or move it away and run `plumbline sync --full`: the CRMs still hold their records.",
    )
