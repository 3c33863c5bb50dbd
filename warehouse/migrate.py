"""Schema of the warehouse: the files under tables/ and views/ say what it is, those under migrations/ how older ones get there.

`tables/<schema>/<table>.sql` is one CREATE TABLE each; its header is the COMMENT of the table, the comment after a column the
COMMENT of the column. `views/<schema>/<view>.sql` likewise, with the columns described in the header as `--   column: text`;
`macros/<schema>/<macro>.sql` are macros, whose COMMENT is the header with its columns, because a macro's have none.
A new column needs no migration: a column that a table file has and the warehouse lacks is added. Everything else that changes a
table (rename, type, backfill) is `migrations/NNNN_what.sql`, applied once, in one transaction with its ops.schema_migration row.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import duckdb

from warehouse.business import state_timezone
from warehouse.errors import SCHEMAS, WarehouseError, WarehouseNewer

HERE = Path(__file__).parent
COLUMN = re.compile(
    r'^\s+(?P<name>"?\w+"?)\s+(?P<type>\w+(?:\s*\([^)]*\))?(?:\[\])?)(?P<null>\s+not null)?\s*,?\s*--\s*(?P<comment>.+?)\s*$'
)
VIEW_COLUMN = re.compile(r"^--\s{3,}(?P<name>\w+):\s*(?P<comment>.+?)\s*$")
MACRO = re.compile(r"^create or replace macro (?P<name>\w+\.\w+)\((?P<arguments>[^)]*)\) as", re.MULTILINE)
# What the arguments of macros stand for: the same word means the same in all of them, but for those named with their macro.
ARGUMENTS = {
    "day": "business day, as it ended",
    "days": "number of days",
    "instant": "TIMESTAMP WITH TIME ZONE; a date is its first moment in the session's time zone",
    "lock_day": "business day at whose end the forecast was made",
    "from_date": "first business day of the span",
    "to_date": "last business day of the span",
    "period_start": "first business day of the period",
    "period_end": "last business day of the period",
    "window_start": "first close date that is in scope",
    "window_end": "last close date that is in scope",
    "bi.pipeline_movement.from_date": "business day at whose end the opening is taken: the last one before the span",
    "bi.pipeline_movement.to_date": "business day at whose end the closing is taken: the last one of the span",
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class Definition:
    """One file under tables/, views/ or macros/. kind: table, view, macro (a value) or macro table (rows)."""

    kind: str
    name: str  # schema.table
    comment: str
    columns: tuple[Column, ...]
    sql: str
    arguments: tuple[Column, ...] = ()  # of a macro


@cache
def definitions(kind: str) -> tuple[Definition, ...]:
    """Every table, view or macro (`kind`), in the order in which they are created: by schema, then by name, what others speak of first."""
    files = sorted((HERE / f"{kind}s").glob("*/*.sql"), key=lambda f: (SCHEMAS.index(f.parent.name), f.name))
    found = {d.name: d for d in (read_definition(file, kind) for file in files)}
    spoken = {name: [other for other in re.findall(r"\w+\.\w+", d.sql) if other in found and other != name] for name, d in found.items()}
    return tuple(found[name] for name in TopologicalSorter(spoken).static_order())


def read_definition(file: Path, kind: str) -> Definition:
    """A definition from its file. Raises ValueError where a table, a view, a column or a macro's argument has no comment: readers hold on to them."""
    sql = file.read_text(encoding="utf-8")
    lines = sql.splitlines()
    header, columns = [], []
    body = next(i for i, line in enumerate(lines) if not line.startswith("--"))
    for line in lines[:body]:
        if kind != "table" and (match := VIEW_COLUMN.match(line)):
            columns.append(Column(match["name"], "", match["comment"]))
        else:
            header.append(line.removeprefix("--").strip())
    if kind == "table":
        for line in lines[body + 1 :]:
            if match := COLUMN.match(line):
                columns.append(Column(match["name"].strip('"'), match["type"], match["comment"]))
            elif line.strip() and not line.startswith(");"):
                raise ValueError(f"{file.name}: cannot read the column in: {line.strip()}")
    comment = " ".join(header).strip()
    if kind == "macro":
        name = f"{file.parent.name}.{file.stem}"
        arguments = _arguments(name, sql)
        told = [f"{argument.name} (argument): {argument.comment}" for argument in arguments]
        told += [f"{column.name}: {column.comment}" for column in columns]
        kind = "macro table" if re.search(r"\) as table$", sql, re.MULTILINE) else "macro"
        return Definition(kind, name, "\n".join([comment, *told]), (), sql, arguments)
    if not comment or not columns:
        raise ValueError(f"{file.name} has no comment or no columns")
    return Definition(kind, f"{file.parent.name}.{file.stem}", comment, tuple(columns), sql)


def _arguments(name: str, sql: str) -> tuple[Column, ...]:
    match = MACRO.search(sql)
    if not match or match["name"] != name:
        raise ValueError(f"{name} is not created on one line, with its arguments")
    found = []
    for argument in match["arguments"].split(", ") if match["arguments"] else ():
        comment = ARGUMENTS.get(f"{name}.{argument}") or ARGUMENTS.get(argument)
        if not comment:
            raise ValueError(f"{name} has an argument {argument} that ARGUMENTS does not explain")
        found.append(Column(argument, "", comment))
    return tuple(found)


def migrations(directory: Path | None = None) -> list[tuple[int, str, str]]:
    """Numbered migrations as (version, name, sql), in order. Version 1 is the base."""
    files = sorted((directory or HERE / "migrations").glob("[0-9]*.sql"))
    return [(int(f.stem[:4]), f.stem[5:].replace("_", " "), f.read_text(encoding="utf-8")) for f in files]


def schema_version(directory: Path | None = None) -> int:
    """The version that this code knows."""
    return max([1, *(version for version, _, _ in migrations(directory))])


def check_version(con: duckdb.DuckDBPyConnection, path: Path, directory: Path | None = None) -> None:
    """Raises WarehouseNewer for a warehouse of a later Plumbline, WarehouseError for one that a writer must update first."""
    found, known = _found_version(con), schema_version(directory)
    if found > known:
        what = f"has schema version {found}, this Plumbline knows up to {known}."
        raise WarehouseNewer(what, path=path, fix="Install the Plumbline that wrote it, or a later one.")
    if found < known:
        what = f"has schema version {found}, this Plumbline needs {known}."
        raise WarehouseError(what, path=path, fix="Run `plumbline sync`: it brings the warehouse up to date.")


def migrate(con: duckdb.DuckDBPyConnection, path: Path, directory: Path | None = None) -> None:
    """Bring the warehouse to this code's schema; nothing happens where it is there already.

    Raises WarehouseNewer before touching anything. Each migration is one transaction: a killed one leaves the version before it.
    """
    found, known = _found_version(con), schema_version(directory)
    if found > known:
        check_version(con, path, directory)
    fingerprint = "definitions " + _fingerprint()
    if found == known and _applied(con, known, fingerprint):
        return
    for version, name, sql in migrations(directory) if found else ():
        if version > found:
            with transaction(con):
                con.execute(sql)
                _record(con, version, name)
    with transaction(con):
        _create(con)
        if not found:
            _record(con, 1, "base")
            for version, name, _ in migrations(directory):
                _record(con, version, name)
        con.execute("delete from ops.schema_migration where starts_with(name, 'definitions ')")
        _record(con, known, fingerprint)


class transaction:
    """BEGIN … COMMIT, ROLLBACK on any error."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self.con = con

    def __enter__(self) -> None:
        self.con.execute("begin transaction")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.con.execute("commit")
            return
        try:
            self.con.execute("rollback")
        except duckdb.Error:  # the transaction is gone already, with the connection or by DuckDB's own decision
            return


def describe(con: duckdb.DuckDBPyConnection, definition: Definition, catalog: str | None = None) -> None:
    """Put the comments of a definition on its table or view, in `catalog` where given."""
    name = f"{catalog}.{definition.name}" if catalog else definition.name
    con.execute(f"comment on {definition.kind} {name} is {_literal(definition.comment)}")
    for column in definition.columns:
        con.execute(f'comment on column {name}."{column.name}" is {_literal(column.comment)}')


def _found_version(con: duckdb.DuckDBPyConnection) -> int:
    if not _columns(con, "ops.schema_migration"):
        return 0
    found = con.execute("select max(version) from ops.schema_migration").fetchone()
    return int(found[0]) if found and found[0] is not None else 0


def _applied(con: duckdb.DuckDBPyConnection, version: int, name: str) -> bool:
    row = con.execute("select count(*) from ops.schema_migration where version = ? and name = ?", [version, name]).fetchone()
    return bool(row and row[0])


def _record(con: duckdb.DuckDBPyConnection, version: int, name: str) -> None:
    con.execute("insert into ops.schema_migration (version, name, applied_at) values (?, ?, now())", [version, name])


def _create(con: duckdb.DuckDBPyConnection) -> None:
    for schema in SCHEMAS:
        con.execute(f"create schema if not exists {schema}")
    for table in definitions("table"):
        con.execute(table.sql)
        present = _columns(con, table.name)
        for column in table.columns:
            if column.name not in present:
                con.execute(f'alter table {table.name} add column "{column.name}" {column.type}')
        describe(con, table)
    create_others(con)


def create_others(con: duckdb.DuckDBPyConnection) -> None:
    """The views and macros of a warehouse whose tables are there, with their comments."""
    state_timezone(con)
    for kind in ("view", "macro"):
        for definition in definitions(kind):
            con.execute(definition.sql)
            describe(con, definition)


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    """Names of the columns of schema.table; empty where it does not exist."""
    rows = con.execute(
        "select column_name from duckdb_columns() "
        "where database_name = current_database() and schema_name || '.' || table_name = ?",
        [table],
    )
    return {row[0] for row in rows.fetchall()}


def _fingerprint() -> str:
    text = "".join(d.name + d.sql + d.comment for kind in ("table", "view", "macro") for d in definitions(kind))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
