"""The portal's state: one DuckDB database behind one lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb

SCHEMA = """
create table if not exists setting (name varchar, value varchar);
create table if not exists object_type (position integer, name varchar, definition json, next_id bigint);
create table if not exists property (object_type varchar, name varchar, position integer, definition json);
create table if not exists property_group (object_type varchar, name varchar, label varchar, display_order integer);
create table if not exists pipeline (
    id varchar, label varchar, display_order integer, archived_at timestamptz, created_at timestamptz, updated_at timestamptz);
create table if not exists stage (
    pipeline varchar, id varchar, label varchar, display_order integer, probability double, is_closed boolean,
    archived_at timestamptz, created_at timestamptz, updated_at timestamptz);
create table if not exists owner (
    id bigint, user_id bigint, email varchar, first_name varchar, last_name varchar, type varchar,
    team_id varchar, team_name varchar, archived_at timestamptz, created_at timestamptz, updated_at timestamptz);
create table if not exists currency (  -- rate: worth of one unit in the company currency, from an instant on
    id bigint, code varchar, rate double, effective_at timestamptz, created_at timestamptz);
create table if not exists association (  -- both directions of each; hidden: one of the two is archived
    from_type varchar, from_id bigint, to_type varchar, to_id bigint, category varchar, type_id integer, hidden boolean);
create table if not exists association_type (
    from_type varchar, to_type varchar, category varchar, type_id integer, name varchar, label varchar, inverse_type_id integer);
create table if not exists engagement (
    id bigint, deal_id bigint, kind varchar, subject varchar, owner_id bigint,
    happens_at timestamptz, is_open boolean, created_at timestamptz);
create table if not exists loaded (kind varchar, company_id bigint, object_id bigint);  -- which record a company row became
create or replace macro iso(t) as replace(strftime(t, '%Y-%m-%dT%H:%M:%S.%gZ'), '.000Z', 'Z');
create or replace macro plain(n) as rtrim(rtrim(printf('%.6f', n::double), '0'), '.');
"""


class Store:
    """DuckDB, in memory or in a file, for many threads: every use goes through one re-entrant lock."""

    def __init__(self, path: Path | None) -> None:
        self.lock = RLock()
        self.con = duckdb.connect(str(path) if path else ":memory:")
        self.con.execute("set timezone = 'UTC'")
        self.con.execute("set threads = 1")  # a page is small: a second thread costs it more than it gives
        if path:
            self.con.execute("set memory_limit = '1GB'")  # a large portal lives on disk, beside what is being tested with it
        self.con.execute("set preserve_insertion_order = true")  # pages are found by zone maps over rising ids
        self.con.execute(SCHEMA)
        self._depth = 0

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.lock:
            return self.con.execute(sql, list(params)).fetchall()

    def value(self, sql: str, params: Sequence[Any] = ()) -> Any:
        with self.lock:
            row = self.con.execute(sql, list(params)).fetchone()
            return row[0] if row else None

    def run(self, sql: str, params: Sequence[Any] = ()) -> None:
        with self.lock:
            self.con.execute(sql, list(params))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, alone: nested ones join the outermost."""
        with self.lock:
            if self._depth:
                yield
                return
            self._depth = 1
            self.con.execute("begin")
            try:
                yield
            except BaseException:
                self.con.execute("rollback")
                raise
            else:
                self.con.execute("commit")
            finally:
                self._depth = 0

    def close(self) -> None:
        with self.lock:
            self.con.close()


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"
