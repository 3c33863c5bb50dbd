"""Great Expectations on DuckDB: a data source and execution engine under a type name of our own.

GX 1.24 has none, and its SQL engine cannot read a DuckDB connection: it fetches a result after it has handed the connection
back, which rolls back and discards the result. The engine here keeps one SQLAlchemy connection open for its lifetime. A
connection kept open would in turn read from the snapshot of its first query for ever, so the DuckDB cursor underneath runs
in autocommit, begin, commit and rollback being no-ops (`_AutocommitConnection`). Should GX gain a DuckDB engine, this module
is what it replaces.

Importing this module imports Great Expectations, which takes seconds: import it inside the function that judges.
"""

from __future__ import annotations

import builtins
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import duckdb
import sqlalchemy as sa
from duckdb_engine import ConnectionWrapper
from great_expectations.datasource.fluent.sql_datasource import SQLDatasource
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from sqlalchemy.pool import StaticPool

# Open DuckDB connections by handle: a GX data source is a serialisable model and cannot hold the connection itself.
_LIVE: dict[str, duckdb.DuckDBPyConnection] = {}


class _AutocommitConnection(ConnectionWrapper):
    """Every statement sees what is committed when it starts, and no open transaction holds up a CHECKPOINT."""

    def begin(self) -> None:
        pass

    def commit(self) -> None:
        pass

    def rollback(self) -> None:
        pass


class _Inspector:
    """Reflection by DESCRIBE: the PostgreSQL catalogue queries of duckdb-engine differ from version to version."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self.dialect = engine.dialect

    def get_columns(self, table_name: str, schema: str | None = None, **_: Any) -> list[dict[str, Any]]:
        quote = self.dialect.identifier_preparer.quote_identifier
        name = f"{quote(schema)}.{quote(table_name)}" if schema else quote(table_name)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text(f"describe {name}")).fetchall()
        types_by_name: dict[str, Any] = getattr(self.dialect, "ischema_names", {})
        return [
            {"name": r[0], "type": types_by_name.get(str(r[1]).split("(")[0].lower(), sa.types.NullType)(), "nullable": r[2] == "YES"}
            for r in rows
        ]

    def get_pk_constraint(self, table_name: str, schema: str | None = None, **_: Any) -> dict[str, Any]:
        return {"constrained_columns": [], "name": None}

    def get_table_names(self, schema: str | None = None, **_: Any) -> list[str]:
        with self._engine.connect() as connection:
            return [r[0] for r in connection.execute(sa.text("show tables")).fetchall()]

    def get_view_names(self, schema: str | None = None, **_: Any) -> list[str]:
        return []

    def get_schema_names(self, **_: Any) -> list[str]:
        with self._engine.connect() as connection:
            return [r[0] for r in connection.execute(sa.text("select distinct schema_name from duckdb_schemas()")).fetchall()]

    def has_table(self, table_name: str, schema: str | None = None, **_: Any) -> bool:
        return table_name in self.get_table_names()


class PlumblineDuckDBExecutionEngine(SqlAlchemyExecutionEngine):
    """GX's SQL engine on a live DuckDB connection. Metrics are found through the parent class."""

    _connection: sa.Connection | None
    _inspector: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # GX picks a dialect's regex operator by the attributes of this module; Dremio's is REGEXP_MATCHES(column, pattern),
        # DuckDB's partial match. (PostgreSQL's `~` is a full match on DuckDB 1.x.)
        self.dialect_module = types.SimpleNamespace(DremioDialect=True, __name__="duckdb")

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        if self._connection is None or self._connection.closed:
            self._connection = self.engine.connect()
        yield self._connection

    def get_inspector(self) -> Any:
        if self._inspector is None:
            self._inspector = _Inspector(self.engine)
        return self._inspector


class PlumblineDuckDBDatasource(SQLDatasource):
    """`context.data_sources.add_plumbline_duckdb(name, live=handle)`, the handle being that of `live_connection`."""

    type: Literal["plumbline_duckdb"] = "plumbline_duckdb"
    connection_string: str = "duckdb://"
    live: str = ""

    @property
    def execution_engine_type(self) -> builtins.type[SqlAlchemyExecutionEngine]:
        return PlumblineDuckDBExecutionEngine

    def _create_engine(self) -> sa.Engine:
        cursor = _LIVE[self.live]
        return sa.create_engine("duckdb://", creator=lambda: _AutocommitConnection(cursor), poolclass=StaticPool)

    def get_execution_engine(self) -> SqlAlchemyExecutionEngine:
        engine: SqlAlchemyExecutionEngine | None = self._execution_engine  # type: ignore[has-type]
        if engine is None:
            engine = self._execution_engine = PlumblineDuckDBExecutionEngine(engine=self.get_engine(), create_temp_table=False)
        return engine


@contextmanager
def live_connection(con: duckdb.DuckDBPyConnection, *, catalog: str | None = None) -> Iterator[str]:
    """Hands a cursor of `con` to GX under a handle, for as long as the block lasts.

    The cursor is a connection of its own to the same database: it sees what is committed, not the caller's open transaction
    nor its temporary tables. `catalog` is the attached database that GX finds bare table names in. It runs in UTC.
    """
    cursor = con.cursor()
    cursor.execute("set timezone = 'UTC'")
    if catalog is not None:
        cursor.execute(f'use "{catalog}"')
    handle = uuid.uuid4().hex
    _LIVE[handle] = cursor
    try:
        yield handle
    finally:
        _LIVE.pop(handle).close()
