"""The record of every run: who started what, how it ended, how far each object has been read, what it cost."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb


def new_run_id() -> str:
    """A name that sorts by the wall clock at which the run started: two runs of one `--now` stay apart and in order."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def start_run(con: duckdb.DuckDBPyConnection, *, command: str, now: datetime, run_id: str | None = None) -> str:
    """Record that a run of `command` began. now: the run's present (as_of). Returns the run's id."""
    run_id = run_id or new_run_id()
    con.execute(
        "insert into ops.sync_run (run_id, command, as_of, started_at, status) values (?, ?, ?, ?, 'running')",
        [run_id, command, now, datetime.now(UTC)],
    )
    return run_id


def finish_run(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    *,
    status: str = "done",
    error: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Record how a run ended. status: done, failed or interrupted; detail: what the command reports, JSON-able."""
    con.execute(
        "update ops.sync_run set ended_at = ?, status = ?, error = ?, detail = ? where run_id = ? and source is null",
        [datetime.now(UTC), status, _one_line(error), json.dumps(detail, default=str) if detail else None, run_id],
    )


def record_source(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    *,
    command: str,
    source: str,
    now: datetime,
    error: str | None = None,
    calls: int = 0,
    calls_by_object: Mapping[str, int] | None = None,
    daily_used: int | None = None,
    daily_limit: int | None = None,
) -> None:
    """Record how the sync of one source ended within a run, and its API calls. Recording it again replaces the record."""
    started = con.execute("select started_at from ops.sync_run where run_id = ? and source is null", [run_id]).fetchone()
    ended = datetime.now(UTC)
    con.execute("delete from ops.sync_run where run_id = ? and source = ?", [run_id, source])
    con.execute(
        "insert into ops.sync_run (run_id, command, source, as_of, started_at, ended_at, status, error) "
        "values (?, ?, ?, ?, ?, ?, ?, ?)",
        [run_id, command, source, now, started[0] if started else ended, ended, "failed" if error else "done", _one_line(error)],
    )
    record_usage(con, run_id, source=source, calls=calls, calls_by_object=calls_by_object, daily_used=daily_used, daily_limit=daily_limit)


def record_usage(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    *,
    source: str,
    calls: int,
    calls_by_object: Mapping[str, int] | None = None,
    daily_used: int | None = None,
    daily_limit: int | None = None,
) -> None:
    """Record the API calls of a run to one source so far, whatever it did there. Recording it again replaces the record."""
    by_object = {obj: calls_by_object[obj] for obj in sorted(calls_by_object)} if calls_by_object else None
    con.execute("delete from ops.api_usage where run_id = ? and source = ?", [run_id, source])
    con.execute(
        "insert into ops.api_usage (run_id, source, calls, calls_by_object, daily_used, daily_limit) values (?, ?, ?, ?, ?, ?)",
        [run_id, source, calls, json.dumps(by_object) if by_object else None, daily_used, daily_limit],
    )


def mark_interrupted(con: duckdb.DuckDBPyConnection) -> int:
    """Close the records of runs whose process is gone. Returns how many.

    Call it on opening for writing only: whoever holds the writer's lock knows that no other run is alive.
    """
    found = con.execute("select count(*) from ops.sync_run where status = 'running'").fetchone()
    if not found or not found[0]:
        return 0
    why = "the process ended before the run did"
    con.execute("update ops.sync_run set status = 'interrupted', error = ? where status = 'running'", [why])
    return int(found[0])


def watermarks(con: duckdb.DuckDBPyConnection, source: str) -> dict[str, datetime]:
    """How far each object of `source` has been read, by the CRM's clock. Empty before the first load."""
    return dict(con.execute("select object, watermark from ops.watermark where source = ?", [source]).fetchall())


def _one_line(text: str | None) -> str | None:
    return " ".join(text.split()) if text else None
