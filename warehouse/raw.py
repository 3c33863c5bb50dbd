"""`raw`: the newest state of every record as its CRM delivered it, one table per object, all of one shape.

Only what differs is written: DELETE USING and INSERT are far quicker here than MERGE, and no primary key is needed (nor possible
on DuckLake).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import duckdb

from warehouse.landed import HISTORY, LandedObject

COLUMNS = {
    "source": ("varchar not null", "name of the source"),
    "id": ("varchar not null", "the record's key in the CRM"),
    "parent_id": ("varchar", "id of the deal it belongs to"),
    "payload": ("json", "the record's fields by the CRM's names, as text; empty ones are left out"),
    "modified_at": ("timestamptz", "the CRM's stamp"),
    "is_deleted": ("boolean not null", "deleted, archived or gone from a complete listing"),
    "deleted_at": ("timestamptz", "when, as the CRM says; else --now of the first run that missed it"),
    "run_id": ("varchar not null", "run that last changed this row"),
    "landed_at": ("timestamptz not null", "--now of that run"),
}
# Keys of payloads that move with every write, ours too: a record that differs in nothing else is an echo.
STAMPS = ("SystemModstamp", "LastModifiedDate", "LastModifiedById", "hs_lastmodifieddate", "hs_updated_by_user_id", "updatedAt")
NONE = "NULL::varchar as old_parent_id"
NO_STAMPS = "'{" + ", ".join(f'"{key}": null' for key in STAMPS) + "}'"


@dataclass
class Counts:
    """What landing one object changed: records new, different, equal, equal but for their stamp, and gone."""

    inserted: int = 0
    changed: int = 0
    unchanged: int = 0
    echoed: int = 0
    deleted: int = 0


def ensure_tables(con: duckdb.DuckDBPyConnection, tables: Iterable[str]) -> None:
    """Create the tables of schema raw that are not there. Names come from objects', in small letters and underscores."""
    found = con.execute("select table_name from duckdb_tables() where database_name = current_database() and schema_name = 'raw'")
    there = {row[0] for row in found.fetchall()}
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    for table in sorted(set(tables) - there):
        con.execute(f"create table raw.{table} ({columns})")
        con.execute(f"comment on table raw.{table} is 'Records as delivered: {table.replace('_', ' ')}'")
        for name, (_, comment) in COLUMNS.items():
            con.execute(f"comment on column raw.{table}.{name} is '{comment.replace(chr(39), chr(39) * 2)}'")


def merge(con: duckdb.DuckDBPyConnection, obj: LandedObject, table: str, *, source: str, run_id: str, now: datetime, whole: bool) -> Counts:
    """Bring `landed` into raw.`table` and leave `delta` (id, parent_id, old_parent_id, outcome) behind, one row per record that is not
    unchanged. old_parent_id: the deal that it belonged to before, NULL where that is not another one.

    whole: `landed` is everything that the CRM has, so that what is absent is gone. A record older than the one here is left
    alone, unless the whole was read: searches of HubSpot are behind its writes at times.
    """
    con.execute("set variable raw_source = $1", [source])
    if _is_empty(con, table):
        return _fill(con, table, run_id=run_id, now=now)
    con.execute(f"""
        create or replace temp table delta as
        select l.id, l.parent_id, if(r.parent_id is distinct from l.parent_id, r.parent_id, NULL) as old_parent_id,
               case when r.id is null then 'inserted'
                    when l.is_deleted and not r.is_deleted then 'deleted'
                    when l.is_deleted is distinct from r.is_deleted then 'changed'
                    when l.payload::varchar is not distinct from r.payload::varchar and l.modified_at is not distinct from r.modified_at
                        then 'unchanged'
                    when json_merge_patch(l.payload, {NO_STAMPS})::varchar = json_merge_patch(r.payload, {NO_STAMPS})::varchar then 'echoed'
                    else 'changed' end as outcome,
               if(l.is_deleted, coalesce(l.deleted_at, if(r.is_deleted, r.deleted_at, NULL)), NULL) as deleted_at
        from landed l
        left join raw.{table} r on r.source = getvariable('raw_source') and r.id = l.id
        where {"true" if whole or obj.mode == "full" else "r.id is null or not coalesce(l.modified_at < r.modified_at, false)"}
    """)
    counts = Counts(**dict(con.execute("select outcome, count(*) from delta group by outcome").fetchall()))
    con.execute("delete from delta where outcome = 'unchanged'")
    if counts.inserted + counts.changed + counts.echoed + counts.deleted:
        con.execute(
            f"delete from raw.{table} r using delta d "
            "where r.source = getvariable('raw_source') and r.id = d.id and d.outcome <> 'inserted'"
        )
        con.execute(
            f"""
            insert into raw.{table} by name
            select getvariable('raw_source') as source, l.id, l.parent_id, l.payload, l.modified_at, l.is_deleted,
                   if(l.is_deleted, coalesce(d.deleted_at, $now), NULL) as deleted_at, $run_id as run_id, $now as landed_at
            from landed l join delta d using (id)
            """,
            {"now": now, "run_id": run_id},
        )
    if whole and obj.shape.reader != HISTORY:
        counts.deleted += _mark_absent(con, table, run_id=run_id, now=now)
    return counts


def patch(
    con: duckdb.DuckDBPyConnection, table: str, names: Iterable[str], light: Iterable[str], *, source: str, run_id: str, now: datetime
) -> Counts:
    """Bring the fields `names` of partial records in `landed` (payloads with nulls) into raw.`table`, and nothing else of it.

    Leaves `delta` behind, one row per record that differs: `echoed` where only fields of `light` do, else `changed`. Records that are
    not in raw are left aside: they come whole with a later pull.
    """
    con.execute("set variable raw_source = $1", [source])
    names = sorted(names)
    grave = [_name(name) for name in names if name not in set(light)]
    differs = f"row({', '.join(f'told.{n}' for n in grave)}) is distinct from row({', '.join(f'held.{n}' for n in grave)})" if grave else "false"
    if not names:
        con.execute("create or replace temp table delta (id varchar, parent_id varchar, old_parent_id varchar, outcome varchar)")
        return Counts()
    con.execute(
        f"""
        create or replace temp table delta as
        with pair as materialized (
            select r.id, r.parent_id, json_transform(l.payload, $structure) as told, json_transform(r.payload, $structure) as held
            from landed l join raw.{table} r on r.source = getvariable('raw_source') and r.id = l.id
        )
        select id, parent_id, {NONE}, told, case when told is not distinct from held then 'unchanged' when {differs} then 'changed' else 'echoed' end
            as outcome
        from pair
        """,
        {"structure": _structure(names)},
    )
    counts = Counts(**dict(con.execute("select outcome, count(*) from delta group by outcome").fetchall()))
    con.execute("delete from delta where outcome = 'unchanged'")
    if not counts.changed + counts.echoed:
        return counts
    # A payload is sorted by name, so it is made anew: a patch would leave its fields at the end.
    held = {
        row[0] for row in con.execute(
            f"select distinct unnest(json_keys(r.payload)) from raw.{table} r join delta using (id) where r.source = getvariable('raw_source')"
        ).fetchall()
    }  # fmt: skip
    values = {name: f"held.{_name(name)}" for name in held} | {name: f"told.{_name(name)}" for name in names}
    fields = ", ".join(f"{_literal(name)}: {values[name]}" for name in sorted(values))
    con.execute(
        f"""
        update raw.{table} r set payload = p.payload, run_id = $run_id, landed_at = $now
        from (
            select id, json_merge_patch('{{}}', to_json({{{fields}}})) as payload
            from (
                select d.id, d.told, json_transform(r.payload, $structure) as held
                from delta d join raw.{table} r on r.source = getvariable('raw_source') and r.id = d.id
            )
        ) p
        where r.source = getvariable('raw_source') and r.id = p.id
        """,
        {"run_id": run_id, "now": now, "structure": _structure(sorted(held))},
    )
    return counts


def _structure(names: Iterable[str]) -> str:
    return json.dumps(dict.fromkeys(names, "VARCHAR"))


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_empty(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    row = con.execute(f"select count(*) from (from raw.{table} where source = getvariable('raw_source') limit 1)").fetchone()
    return not (row and row[0])


def _fill(con: duckdb.DuckDBPyConnection, table: str, *, run_id: str, now: datetime) -> Counts:
    """The first load of a source: nothing to compare with, so nothing is joined."""
    con.execute(f"create or replace temp table delta as select id, parent_id, {NONE}, 'inserted' as outcome, deleted_at from landed")
    inserted = con.execute("select count(*) from delta").fetchone()
    if not inserted or not inserted[0]:
        return Counts()
    con.execute(
        f"""
        insert into raw.{table} by name
        select getvariable('raw_source') as source, id, parent_id, payload, modified_at, is_deleted,
               if(is_deleted, coalesce(deleted_at, $now), NULL) as deleted_at, $run_id as run_id, $now as landed_at
        from landed
        """,
        {"now": now, "run_id": run_id},
    )
    return Counts(inserted=int(inserted[0]))


def _mark_absent(con: duckdb.DuckDBPyConnection, table: str, *, run_id: str, now: datetime) -> int:
    gone = con.execute(f"""
        insert into delta (id, parent_id, outcome)
        select r.id, r.parent_id, 'deleted'
        from raw.{table} r
        where r.source = getvariable('raw_source') and not r.is_deleted and not exists (from landed l where l.id = r.id)
          and not exists (from live where live.table_name = '{table}' and live.id = r.id)
    """).fetchone()
    if not gone or not gone[0]:
        return 0
    con.execute(
        f"""
        update raw.{table} r set is_deleted = true, deleted_at = $now, run_id = $run_id, landed_at = $now
        from delta d
        where r.source = getvariable('raw_source') and r.id = d.id and not r.is_deleted and d.outcome = 'deleted'
        """,
        {"now": now, "run_id": run_id},
    )
    return int(gone[0])


def mark_absent(con: duckdb.DuckDBPyConnection, table: str, *, source: str, run_id: str, now: datetime, whole: bool) -> Counts:
    """Apply a listing: `landed` names every record that the CRM has. Leaves `delta` behind, as `merge` does. Where it is not `whole`,
    nothing follows from what is absent.

    What the same pull delivered as a record (the temporary table `live`) stays: it may have been made after the listing began.
    """
    con.execute("set variable raw_source = $1", [source])
    con.execute("create or replace temp table delta (id varchar, parent_id varchar, old_parent_id varchar, outcome varchar)")
    return Counts(deleted=_mark_absent(con, table, run_id=run_id, now=now) if whole else 0)


def mark_deleted(con: duckdb.DuckDBPyConnection, table: str, *, source: str, run_id: str, now: datetime) -> Counts:
    """Apply a delete log: `landed` names ids and instants. Leaves `delta` behind, as `merge` does.

    A record that was changed after the instant has been restored since, and stays; so does one that this very pull delivered as live
    (the temporary table `live`) with the instant's own stamp: stamps are whole seconds, and its reading came after the second.
    """
    con.execute("set variable raw_source = $1", [source])
    con.execute(f"""
        create or replace temp table delta as
        select r.id, r.parent_id, {NONE}, 'deleted' as outcome, l.deleted_at
        from raw.{table} r join landed l on l.id = r.id
        where r.source = getvariable('raw_source') and not r.is_deleted and not coalesce(r.modified_at > l.deleted_at, false)
          and not (coalesce(r.modified_at = l.deleted_at, false)
                   and exists (from live where live.table_name = '{table}' and live.id = r.id))
    """)
    con.execute(
        f"""
        update raw.{table} r set is_deleted = true, deleted_at = coalesce(d.deleted_at, $now), run_id = $run_id, landed_at = $now
        from delta d
        where r.source = getvariable('raw_source') and r.id = d.id
        """,
        {"now": now, "run_id": run_id},
    )
    count = con.execute("select count(*) from delta").fetchone()
    return Counts(deleted=int(count[0]) if count else 0)
