"""Bring a table to the rows that it should have, writing only those that differ."""

from __future__ import annotations

import duckdb


def apply_rows(con: duckdb.DuckDBPyConnection, table: str, new: str, *, key: str, scope: str) -> int:
    """Make the rows of `table` within `scope` those of `new`. Returns how many rows were written or removed.

    key: SQL expression, unique in both. scope: condition on `table` for the rows that `new` speaks for completely (what is not in
    `new` goes); rows of `new` outside of it are brought in all the same. Columns of `new` that the table lacks are left aside.
    Leaves the temporary table `applied` (key) behind.
    """
    columns = ", ".join(f'"{name}"' for name in columns_of(con, table))
    con.execute(f"""
        create or replace temp table differing as
        select {columns} from {new}
        except
        select {columns} from {table} where {key} in (select {key} from {new})
    """)
    con.execute(f"""
        create or replace temp table applied as
        select {key} as key from differing
        union
        select {key} from {table} where {scope} and {key} not in (select {key} from {new})
    """)
    written = con.execute("select count(*) from applied").fetchone()
    if not written or not written[0]:
        return 0
    con.execute(f"delete from {table} using applied where {key} = applied.key")
    con.execute(f"insert into {table} by name from differing")
    return int(written[0])


def apply_groups(con: duckdb.DuckDBPyConnection, table: str, new: str, *, group: str, key: tuple[str, ...], within: str) -> int:
    """As `apply_rows`, for a large table whose rows belong to groups that `new` speaks for completely. Returns how many rows were
    written or removed.

    group: column that names the group; key: columns that with it are unique. within: table with the groups in question, in `group`.
    Only rows of these groups are looked at. `new` holds no others.
    """
    columns = ", ".join(f'"{name}"' for name in columns_of(con, table))
    old = f"select {columns} from {table} semi join {within} using ({group})"
    row = con.execute(f"select count(*) from ({old} limit 1)").fetchone()
    if not row or not row[0]:
        written = con.execute(f"insert into {table} by name select {columns} from {new}").fetchone()
        return int(written[0]) if written else 0
    con.execute(f"create or replace temp table differing as select {columns} from {new} except {old}")
    con.execute(f"create or replace temp table applied as {old} except select {columns} from {new}")
    same = " and ".join(f'o."{name}" = a."{name}"' for name in (group, *key))
    removed = con.execute(f"delete from {table} o using applied a where {same}").fetchone()
    written = con.execute(f"insert into {table} by name from differing").fetchone()
    return int(removed[0] if removed else 0) + int(written[0] if written else 0)


def columns_of(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """Columns of schema.table, in order."""
    return [column[0] for column in con.execute(f"from {table} limit 0").description]
