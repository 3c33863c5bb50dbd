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
from warehouse.landed import ASSOCIATIONS, DELETIONS, LandedObject, LandedPull, associations_of_deals, read_pull, stage
from warehouse.migrate import transaction

# Read before the others, because what comes later in a pull explains it: an archived deal that is live again, a delete log.
FIRST = ("deals.archived",)
LAST = ("Opportunity.deleted", "Opportunity.gone", "deals.gone", "deals.associations")


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
    mend: bool = False,
    after_step: Callable[[str], None] | None = None,
) -> list[ObjectCounts]:
    """Load the pull in `directory` (docs/landing.md). Returns the counts per object, as stored in ops.sync_object.

    now: the run's present. business: zone, currency and fiscal year, or those of them that are configured. stages, fields: as in
    [sources.X.stages] and [sources.X.fields]. integration_users: ids whose tasks and deals are no person's.
    after_step is called with the name of each step that was done (progress; tests interrupt here).
    Raises LandingError for files that are not what their manifest says; the warehouse is then as before.
    """
    run = _Loading(con, read_pull(directory), now, mend)
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
            **_of_source(run),
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
    """The fields that the CRM described when `source` was last read, per object: {"Opportunity": {"Amount": "currency", …}, …}."""
    known: dict[str, dict[str, str]] = {}
    rows = con.execute("select object, name, type from core.field where source = $1 and type is not null order by object, name", [source])
    for obj, name, kind in rows.fetchall():
        known.setdefault(obj, {})[name] = kind
    return known


# ---- raw ----------------------------------------------------------------------------------------------------------------------


def _in_order(objects: Iterable[LandedObject]) -> list[LandedObject]:
    return sorted(objects, key=lambda o: (o.name not in FIRST, o.name in LAST))


def _land(run: _Loading, obj: LandedObject) -> None:
    """One object into raw; what it touched is added to the temporary tables that `derive` starts from."""
    con, source = run.con, run.pull.source
    table, reader = obj.shape.table, obj.shape.reader
    run_id, now = run.pull.run_id, run.now
    whole = obj.complete and obj.mode == "full" and not obj.name.endswith(".archived")
    if not obj.files and not whole:
        run.counts.append(ObjectCounts(obj.name, obj.mode, calls=obj.calls, notice=obj.notice))
        return
    run.seen_fields[obj.name] = stage(con, obj)
    if reader == DELETIONS:
        result = raw.mark_deleted(con, table, source=source, run_id=run_id, now=now)
    else:
        if obj.name == "deals":
            _without_archived(run)
        if reader == ASSOCIATIONS:
            _complete_associations(run, table)
        told = replace(obj, mode="full") if run.mend else obj  # read by id: no index that lags behind, so no stamp is too old
        result = raw.merge(con, told, table, source=source, run_id=run_id, now=now, whole=whole)
    derive.touch(con, table, delivered=obj.name == derive.DEALS[run.pull.crm], anew=run.mend)
    counts = ObjectCounts(obj.name, obj.mode, obj.rows, bytes=obj.bytes, calls=obj.calls, notice=obj.notice)
    vars(counts).update(asdict(result))
    run.counts.append(counts)
    if obj.name == "deals" and obj.mode == "full":
        associations_of_deals(con)
        raw.merge(con, obj, "hubspot_deal_association", source=source, run_id=run_id, now=now, whole=False)
        derive.touch(con, "hubspot_deal_association", delivered=False)


def _without_archived(run: _Loading) -> None:
    """HubSpot's search may still show a deal that was archived a moment ago. Its archived listing knows better."""
    if archived := run.pull.object("deals.archived"):
        run.con.execute("alter table landed rename to landed_deals")
        stage(run.con, archived)
        run.con.execute("delete from landed_deals using landed where landed_deals.id = landed.id")
        run.con.execute("drop table landed")
        run.con.execute("alter table landed_deals rename to landed")


def _complete_associations(run: _Loading, table: str) -> None:
    """Where contacts or companies could not be read this time, those known before stay."""
    run.con.execute(
        f"""
        update landed l set payload = json_merge_patch(r.payload, l.payload)
        from raw.{table} r where r.source = $1 and r.id = l.id
        """,
        [run.pull.source],
    )


def _of_source(run: _Loading) -> dict[str, Any]:
    """Settings that the source itself tells: addresses, its currency, and what could be read, now or the last time it was asked."""
    row = run.con.execute("select record_url, currency from core.source where source = $1", [run.pull.source]).fetchone() or (None, None)
    before = derive.derivation_of(run.con, run.pull.source)
    if before and run.mend:
        return {"record_url": row[0], "org_currency": row[1], "readable": derive.Settings.from_document(before).readable}
    asked = {obj.name for obj in run.pull.objects}
    readable = {obj.name for obj in run.pull.objects if not obj.refused}
    if before:
        readable |= set(derive.Settings.from_document(before).readable) - asked
    return {"record_url": row[0], "org_currency": row[1], "readable": sorted(readable)}


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

    What an object no longer announces, it no longer has, or hides: rules must not take it for empty, nor a plan write to it."""
    rows: list[tuple[Any, ...]] = []
    for obj in run.pull.objects:
        declared = {f["name"]: f for f in obj.fields}
        seen = run.seen_fields.get(obj.name, set()) if declared or obj.name in derive.DEALS.values() else set()
        for name in sorted({*declared, *seen}):
            f = declared.get(name, {})
            rows.append((obj.name, name, f.get("label"), f.get("type"), bool(f.get("custom")), bool(f.get("calculated"))))
    text = json.dumps([dict(zip(("object", "name", "label", "type", "is_custom", "is_calculated"), row, strict=True)) for row in rows])
    run.con.execute(
        """
        create or replace temp table told_field as
        select $source as source, f.object, f.name, f.label, f.type, f.is_custom, f.is_calculated,
               coalesce(old.first_seen_at, $now) as first_seen_at, $now as last_seen_at
        from (
            select unnest(from_json($rows::json, '[{"object": "VARCHAR", "name": "VARCHAR", "label": "VARCHAR", "type": "VARCHAR",
                "is_custom": "BOOLEAN", "is_calculated": "BOOLEAN"}]')) as f
        )
        left join core.field old on old.source = $source and old.object = f.object and old.name = f.name
        """,
        {"source": run.pull.source, "rows": text, "now": run.now},
    )
    run.con.execute("delete from core.field o using told_field n where o.source = n.source and o.object = n.object and o.name = n.name")
    run.con.execute(
        """
        delete from core.field
        where source = $1 and type is not null and object in (select object from told_field where type is not null)
        """,
        [run.pull.source],
    )
    run.con.execute("insert into core.field by name from told_field")


def _record(run: _Loading, outcome: derive.Outcome) -> None:
    """ops.sync_object and ops.watermark. The deals' counts are those of core.opportunity."""
    con, pull = run.con, run.pull
    for counts in run.counts:
        if counts.object == derive.DEALS[pull.crm]:
            vars(counts).update(asdict(outcome.counts))
            bad = ", ".join(f"{n:,} of {name}" for name, n in outcome.cast_failures.items())
            if bad:
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
