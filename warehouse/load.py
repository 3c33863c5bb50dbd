"""load(): one landed pull into raw, core and history, in one transaction with its watermarks.

Nothing is half loaded: a process killed at any point leaves the warehouse as it was, and loading a pull twice changes nothing the
second time. Only what the pull touched is derived anew, so a night costs what changed and not what there is. docs/sync.md tells the story.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from warehouse import derive, raw
from warehouse.business import Business, business_of
from warehouse.landed import (
    ASSOCIATIONS,
    CRM_OBJECT,
    DELETIONS,
    FIELDS,
    IDS,
    RECORD,
    SHAPES,
    LandedObject,
    LandedPull,
    associations_of_deals,
    read_pull,
    stage,
)
from warehouse.migrate import transaction

# Read before the others, because what comes later in a pull explains it: an archived deal that is live again, a delete log.
FIRST = ("deals.archived",)
LAST = (DELETIONS, IDS, ASSOCIATIONS)
ABOUT_OTHERS = (DELETIONS, FIELDS, IDS)
SHOWN = 8  # names that a notice lists before it counts


@dataclass
class ObjectCounts:
    """What a pull brought for one object and what that changed, as in ops.sync_object. For the deals it is measured on core.opportunity:
    a deal whose business columns are equal is unchanged, or echoed when its stamp moved (our own writes do that)."""

    object: str
    mode: str
    fetched: int = 0
    inserted: int = 0
    changed: int = 0
    unchanged: int = 0
    echoed: int = 0
    deleted: int = 0
    bytes: int = 0
    calls: int = 0
    notice: str | None = None


@dataclass
class _Loading:
    """One load while it goes on."""

    con: duckdb.DuckDBPyConnection
    pull: LandedPull
    now: datetime
    mend: bool = False
    mapped: tuple[str, ...] = ()
    counts: list[ObjectCounts] = field(default_factory=list)
    seen_fields: dict[str, set[str]] = field(default_factory=dict)


def load(
    con: duckdb.DuckDBPyConnection,
    directory: Path,
    *,
    now: datetime,
    business: Business | Mapping[str, Any] | None = None,
    stages: Mapping[str, Mapping[str, str]] | None = None,
    fields: Mapping[str, str] | None = None,
    integration_users: Iterable[str] = (),
    own_ids: Iterable[str] = (),
    mend: bool = False,
    after_step: Callable[[str], None] | None = None,
) -> list[ObjectCounts]:
    """Load the pull in `directory` (docs/landing.md). Returns the counts per object, as stored in ops.sync_object.

    now: the run's present. business: zone, currency and fiscal year, or those of them that are configured. stages, fields: as in
    [sources.X.stages] and [sources.X.fields]. integration_users: ids whose tasks, deals and changes are
    no person's. own_ids: of them the one that Plumbline signs in with, or its app, where the pull does not say it.
    after_step is called with the name of each step that was done (progress; tests interrupt here).
    Raises LandingError for files that are not what their manifest says; the warehouse is then as before.
    """
    run = _Loading(con, read_pull(directory), now, mend, tuple((fields or {}).values()))
    done = after_step or (lambda _: None)
    with transaction(con):
        if not mend:
            _note_source(run)
        derive.prepare(con, run.pull.crm)
        raw.ensure_tables(con, (obj.shape.table for obj in run.pull.objects))
        for obj in _in_order(run.pull.objects):
            _land(run, obj)
            done(f"raw {obj.name}")
        if not mend:  # else a field that only these deals brought would pass for one that has been read of all deals
            _note_fields(run)
        con.execute("drop table if exists landed; drop table if exists delta")
        settings = derive.Settings(
            source=run.pull.source,
            crm=run.pull.crm,
            business=business if isinstance(business, Business) else business_of(con, **(business or {})),
            fields=dict(fields or {}),
            integration_users=sorted(set(integration_users)),
            **_of_source(run, sorted(set(own_ids))),
        )
        outcome = derive.derive(con, settings, now=now, stage_config=stages or {}, done=done)
        _record(run, outcome)
        derive.forget(con)
        done("record")
    done("commit")
    con.execute("checkpoint")
    return run.counts


def known(con: duckdb.DuckDBPyConnection, source: str, path: Path) -> None:
    """Write the deals that the warehouse holds of `source`: NDJSON lines {"id", "is_deleted", "is_closed", "deleted_at"}."""
    con.execute(
        f"""
        copy (
            select opportunity_id as id, is_deleted, is_closed, strftime(deleted_at, '%Y-%m-%dT%H:%M:%S.%f+00:00') as deleted_at
            from core.opportunity where source = {_literal(source)} order by id
        ) to {_literal(str(path))} (format json)
        """
    )


def known_fields(con: duckdb.DuckDBPyConnection, source: str) -> dict[str, dict[str, str]]:
    """The fields whose values are here of every record of `source`, per object: {"Opportunity": {"Amount": "currency", …}, …}.

    A formula's type is "calculated currency": a plain field of that name would hold other values.
    """
    known: dict[str, dict[str, str]] = {}
    rows = con.execute(
        """
        select object, name, if(is_calculated, 'calculated ', '') || type from core.field
        where source = $1 and type is not null and not coalesce(is_partial, false)
        order by object, name
        """,
        [source],
    )
    for obj, name, kind in rows.fetchall():
        known.setdefault(obj, {})[name] = kind
    return known


# ---- raw ----------------------------------------------------------------------------------------------------------------------


def _in_order(objects: Iterable[LandedObject]) -> list[LandedObject]:
    return sorted(objects, key=lambda o: (o.name not in FIRST, o.shape.reader in LAST))


def _land(run: _Loading, obj: LandedObject) -> None:
    """One object into raw; what it touched is added to the temporary tables that `derive` starts from."""
    con, source = run.con, run.pull.source
    table, reader = obj.shape.table, obj.shape.reader
    run_id, now = run.pull.run_id, run.now
    whole = obj.complete and obj.mode == "full" and not obj.name.endswith(".archived")
    if not obj.files and not whole:
        run.counts.append(ObjectCounts(obj.name, obj.mode, calls=obj.calls, notice=obj.notice))
        return
    seen = stage(con, obj, keep=_not_asked_for(run, obj), source=source)
    if reader == DELETIONS:
        result = raw.mark_deleted(con, table, source=source, run_id=run_id, now=now)
    elif reader == IDS:
        result = raw.mark_absent(con, table, source=source, run_id=run_id, now=now, whole=whole)
    elif reader == FIELDS:
        light = derive.light_fields(con, source, run.mapped, obj.fields)
        result = raw.patch(con, table, seen - {obj.key}, light, source=source, run_id=run_id, now=now)
        con.execute("insert into refreshed select id from delta where outcome = 'echoed'; delete from delta where outcome = 'echoed'")
    else:
        run.seen_fields[obj.name] = seen
        if obj.name == "deals":
            _without_archived(run)
        if reader == ASSOCIATIONS:
            _complete_associations(run, table)
        told = replace(obj, mode="full") if run.mend else obj  # read by id: no index that lags behind, so no stamp is too old
        result = raw.merge(con, told, table, source=source, run_id=run_id, now=now, whole=whole)
        if run.pull.tells_deletions(obj.name) and obj.mode != "full":  # else an earlier run read it, and what went may have gone since
            con.execute("insert into live select $1, id from landed where not is_deleted", [table])
    derive.touch(con, table, delivered=obj.name == derive.DEALS[run.pull.crm], anew=run.mend)
    counts = ObjectCounts(obj.name, obj.mode, obj.rows, bytes=obj.bytes, calls=obj.calls, notice=obj.notice)
    vars(counts).update(asdict(result))
    run.counts.append(counts)
    if obj.name == "deals" and obj.mode == "full":
        associations_of_deals(con)
        _complete_associations(run, "hubspot_deal_association")
        raw.merge(con, obj, "hubspot_deal_association", source=source, run_id=run_id, now=now, whole=False)
        derive.touch(con, "hubspot_deal_association", delivered=False)


def _not_asked_for(run: _Loading, obj: LandedObject) -> list[str]:
    """Fields of an object that were there once and are not any more, or could not be read this time: their last values stay."""
    name = obj.name.removesuffix(".archived")  # the same records, described once
    described = run.pull.object(name) or obj
    if obj.shape.reader not in (RECORD, CRM_OBJECT) or not described.fields:
        return []
    rows = run.con.execute(
        """
        select name from core.field where source = $1 and object = $2 and type is not null
        union
        select name from core.field_lost where source = $1 and object = $2
        """,
        [run.pull.source, name],
    ).fetchall()
    return sorted({row[0] for row in rows} - {f["name"] for f in described.fields})


def _without_archived(run: _Loading) -> None:
    """HubSpot's search may still show a deal that was archived a moment ago. Its archived listing knows better."""
    if archived := run.pull.object("deals.archived"):
        run.con.execute("alter table landed rename to landed_deals")
        stage(run.con, archived)
        run.con.execute("delete from landed_deals using landed where landed_deals.id = landed.id")
        run.con.execute("drop table landed")
        run.con.execute("alter table landed_deals rename to landed")


def _complete_associations(run: _Loading, table: str) -> None:
    """Where contacts, their labels or companies could not be read this time, those known before stay."""
    run.con.execute(
        f"""
        update landed l set payload = json_merge_patch(r.payload, l.payload)
        from raw.{table} r where r.source = $1 and r.id = l.id
        """,
        [run.pull.source],
    )


def _of_source(run: _Loading, own_ids: list[str]) -> dict[str, Any]:
    """Settings that the source itself tells: addresses, its currency, who we are in it, and what could be read, now or the last time it
    was asked."""
    row = run.con.execute("select record_url, currency from core.source where source = $1", [run.pull.source]).fetchone() or (None, None)
    before = derive.derivation_of(run.con, run.pull.source)
    told: dict[str, Any] = {"record_url": row[0], "org_currency": row[1]}
    if before and run.mend:
        then = derive.Settings.from_document(before)
        return told | {"own_ids": then.own_ids, "readable": then.readable}
    # What is about another object (a delete log, partial records) is landed or not as the night needs it: nothing follows from that.
    objects = [obj for obj in run.pull.objects if obj.shape.reader not in ABOUT_OTHERS and obj.name != "RecordType.stages"]
    asked = {obj.name for obj in objects}
    readable = {obj.name for obj in objects if not obj.refused}
    own = own_ids or [str(run.pull.org[key]) for key in ("user_id", "app_id") if run.pull.org.get(key)]
    if before:
        then = derive.Settings.from_document(before)
        readable |= set(then.readable) - asked
        own = own or then.own_ids
    return told | {"own_ids": own, "readable": sorted(readable)}


# ---- the record ---------------------------------------------------------------------------------------------------------------


def _note_source(run: _Loading) -> None:
    """core.source: what the CRM says of itself. What it does not say this time stays as it was."""
    org, pull = run.pull.org, run.pull
    run.con.execute(
        """
        create or replace temp table told_source as
        select $source as source, $crm as crm, coalesce($org_id, old.org_id) as org_id, coalesce($timezone, old.timezone) as timezone,
               coalesce($currency, old.currency) as currency,
               coalesce($month, old.fiscal_year_start_month)::integer as fiscal_year_start_month,
               old.business_timezone, old.home_currency, coalesce($url, old.record_url) as record_url, old.derivation,
               coalesce(old.first_synced_at, $now) as first_synced_at,
               $now as last_synced_at
        from (select 1) left join (from core.source where source = $source) old on true
        """,
        {
            "source": pull.source, "crm": pull.crm, "org_id": org.get("org_id"), "timezone": org.get("timezone"),
            "currency": org.get("currency"), "month": org.get("fiscal_year_start_month"), "url": org.get("record_url"), "now": run.now,
        },
    )  # fmt: skip
    run.con.execute("delete from core.source where source = $1", [pull.source])
    run.con.execute("insert into core.source by name from told_source")


def _note_fields(run: _Loading) -> None:
    """core.field: the fields of each object that says what fields it has, and those that came without having been announced.

    What an object no longer announces, it no longer has, or hides: rules must not take it for empty, nor a plan write to it. It is
    remembered in core.field_lost, and said aloud once. So is what went while the object was read, of which a part of the records came.
    A field of which only an increment has brought values is partial until all have been read: what was in it before has stamps of long ago.
    """
    rows: list[dict[str, Any]] = []
    withdrawn: list[dict[str, str]] = []
    for obj in run.pull.objects:
        if obj.shape.reader in ABOUT_OTHERS:
            continue
        beside = [f for o in run.pull.objects if o.is_fields_of(obj.name) for f in o.fields] if obj.fields else []
        declared = {f["name"]: f for f in (*beside, *obj.fields)}
        seen = run.seen_fields.get(obj.name, set()) if declared or obj.name in derive.DEALS.values() else set()
        if declared and obj.shape.reader == RECORD:  # HubSpot answers standard properties that it does not announce
            withdrawn += [{"object": obj.name, "name": name} for name in sorted(seen - set(declared))]
            seen = set()
        read = _read_of_all(run, obj)
        for name in sorted({*declared, *seen}):
            f = declared.get(name, {})
            row = {"object": obj.name, "name": name, "label": f.get("label"), "type": f.get("type"), "is_read": read is None or name in read}
            rows.append(row | {"is_custom": bool(f.get("custom")), "is_calculated": bool(f.get("calculated"))})
    run.con.execute(
        """
        create or replace temp table told_field as
        select $source as source, f.object, f.name, f.label, f.type, f.is_custom, f.is_calculated,
               not f.is_read and exists (from core.field k where k.source = $source and k.object = f.object and k.type is not null)
                   and (coalesce(old.is_partial, false) or (old.type, old.is_calculated) is distinct from (f.type, f.is_calculated)) as is_partial,
               coalesce(old.first_seen_at, $now) as first_seen_at, $now as last_seen_at
        from (
            select unnest(from_json($rows::json, '[{"object": "VARCHAR", "name": "VARCHAR", "label": "VARCHAR", "type": "VARCHAR",
                "is_custom": "BOOLEAN", "is_calculated": "BOOLEAN", "is_read": "BOOLEAN"}]')) as f
        )
        left join core.field old on old.source = $source and old.object = f.object and old.name = f.name
        """,
        {"source": run.pull.source, "rows": json.dumps(rows), "now": run.now},
    )
    _note_lost(run, withdrawn)
    run.con.execute("delete from core.field o using told_field n where o.source = n.source and o.object = n.object and o.name = n.name")
    run.con.execute(
        """
        delete from core.field
        where source = $1 and type is not null and object in (select object from told_field where type is not null)
        """,
        [run.pull.source],
    )
    run.con.execute("insert into core.field by name from told_field")


def _read_of_all(run: _Loading, obj: LandedObject) -> set[str] | None:
    """The fields whose values an increment brought of every record, by partial records; None where nothing is missing: the object was
    read whole, or its CRM stamps records whose fields are filled."""
    if obj.mode == "full" or f"{obj.name}.fields" not in SHAPES.get(run.pull.crm, {}):
        return None
    parts = [o for o in run.pull.objects if o.is_fields_of(obj.name) and o.mode == "full" and o.complete]
    return {f["name"] for o in parts for f in o.fields}


def _note_lost(run: _Loading, withdrawn: list[dict[str, str]]) -> None:
    """core.field_lost, and the notices of the objects that lost fields with this pull. withdrawn: what came and is not announced."""
    run.con.execute(
        """
        create or replace temp table field_gone as
        select o.source, o.object, o.name, o.label, o.type, o.is_custom, o.is_calculated, $2::timestamptz as lost_at
        from core.field o
        where o.source = $1 and o.type is not null and o.object in (select object from told_field where type is not null)
          and not exists (from told_field n where n.object = o.object and n.name = o.name)
        union all by name
        select $1 as source, w.object, w.name, $2::timestamptz as lost_at
        from (select unnest(from_json($3::json, '[{"object": "VARCHAR", "name": "VARCHAR"}]')) as w)
        where not exists (from core.field o where o.source = $1 and o.object = w.object and o.name = w.name)
          and not exists (from core.field_lost l where l.source = $1 and l.object = w.object and l.name = w.name)
        """,
        [run.pull.source, run.now, json.dumps(withdrawn)],
    )
    run.con.execute(
        """
        delete from core.field_lost l
        where l.source = $1 and exists (from (from told_field union all by name from field_gone) n where n.object = l.object and n.name = l.name)
        """,
        [run.pull.source],
    )
    run.con.execute("insert into core.field_lost by name from field_gone")
    for obj, names in run.con.execute("select object, list(name order by name) from field_gone group by object").fetchall():
        shown, more = ", ".join(names[:SHOWN]), len(names) - SHOWN
        said = shown + (f" and {more} more" if more > 0 else "")
        verb, their = ("are", "their") if len(names) > 1 else ("is", "its")
        for counts in run.counts:
            if counts.object == obj:
                loss = f"{said} {verb} no longer visible (removed, or hidden from the user): {their} last values are kept, rules that need "
                counts.notice = "; ".join(filter(None, (counts.notice, loss + ("them" if len(names) > 1 else "it") + " say unknown")))


def _record(run: _Loading, outcome: derive.Outcome) -> None:
    """ops.sync_object and ops.watermark. The deals' counts are those of core.opportunity."""
    con, pull = run.con, run.pull
    for counts in run.counts:
        if counts.object == derive.DEALS[pull.crm]:
            vars(counts).update(asdict(outcome.counts))
        bad = ", ".join(f"{n:,} of {name}" for name, n in outcome.unparsed.get(counts.object, {}).items())
        if bad and counts.fetched:  # a notice without records would mean that the CRM refused them
            counts.notice = "; ".join(filter(None, (counts.notice, f"values that cannot be read and were left empty: {bad}")))
    con.execute("delete from ops.sync_object where run_id = $1 and source = $2", [pull.run_id, pull.source])
    con.executemany(
        """
        insert into ops.sync_object
            (run_id, source, object, mode, fetched, inserted, changed, unchanged, echoed, deleted, bytes, calls, notice)
        values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [(pull.run_id, pull.source, *vars(c).values()) for c in run.counts],
    )
    for obj in pull.objects:
        if obj.watermark is not None:  # a stamp from the future, as a CRM with a wrong clock gives, must not hide what comes before it
            con.execute("delete from ops.watermark where source = $1 and object = $2", [pull.source, obj.name])
            con.execute(
                "insert into ops.watermark (source, object, watermark, run_id) values ($1, $2, $3, $4)",
                [pull.source, obj.name, min(obj.watermark, run.now), pull.run_id],
            )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
