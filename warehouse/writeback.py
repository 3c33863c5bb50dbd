"""Write-back: what our fields should hold in the CRMs, planned as differences to what they hold, and what became of it.

A plan is stored whole and applied exactly as stored, by its hash. Its rows say planned, written or failed one by one, so that an
apply that was killed goes on where it stopped, and nothing is sent twice that was acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from warehouse.migrate import transaction

SQL = Path(__file__).parent / "sql/core"
DEALS = {"salesforce": "Opportunity", "hubspot": "deals"}
FIELDS: dict[str, dict[str, str]] = {
    "salesforce": {
        "status": "Plumbline_Status__c", "score": "Plumbline_Score__c", "top_issue": "Plumbline_Top_Issue__c",
        "issues": "Plumbline_Issues__c", "flagged_since": "Plumbline_Flagged_Since__c",
    },
    "hubspot": {
        "status": "plumbline_status", "score": "plumbline_score", "top_issue": "plumbline_top_issue", "issues": "plumbline_issues",
        "flagged_since": "plumbline_flagged_since",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A stored plan. status: planned, held (too large to be sent without a word), applied, superseded. records and changes per
    source are in `sources`: source → (records, changes)."""

    plan_hash: str
    run_id: str
    created_at: datetime
    status: str
    records: int
    changes: int
    open_deals: int
    note: str | None
    sources: dict[str, tuple[int, int]]


class UnknownPlan(ValueError):
    """No plan, or more than one, has such a hash."""


def plan(
    con: duckdb.DuckDBPyConnection,
    *,
    run_id: str,
    now: datetime,
    max_share: float = 0.2,
    appear_after: int = 2,
    leave_out: Collection[str] = (),
    writable: Mapping[str, Collection[str]] | None = None,
) -> Plan:
    """Work out and store what to write: per deal, the fields whose value in the CRM differs from what it should be.

    max_share: a plan that changes more of the deals that are open, or closed and to be cleared, is held. appear_after: checks in a
    row before a flag that is not critical shows. leave_out: sources to write nothing to tonight. writable: the CRM's field names that
    may be written, per source; where not given, those that the last sync saw. Plans made before and not applied are superseded.
    """
    with transaction(con):
        fields, notes = _fields(con, leave_out, writable)
        zone = con.execute("select arg_min(business_timezone, (first_synced_at, source)) from core.source").fetchone()
        for name, value in {
            "now": now, "timezone": (zone and zone[0]) or "UTC", "appear_after": appear_after,
            "sources": sorted({f.split(":")[0] for f in fields}), "fields": sorted(fields),
        }.items():  # fmt: skip
            con.execute(f"set variable {name} = $1{'::varchar[]' if isinstance(value, list) else ''}", [value])
        _run(con, "writeback.sql")
        records, changes = _pair(con, "select count(distinct opportunity_key), count(*) from planned_change")
        open_deals, flaggable = _pair(con, """
            select count(*) filter (not is_closed), count(*) filter (not is_closed or opportunity_key in (select opportunity_key from planned_change))
            from core.opportunity where not is_deleted
        """)
        status = "planned"
        if records > max_share * flaggable:
            status = "held"
            deals = "open deals" if flaggable == open_deals else "open and just closed deals"
            notes.insert(0, f"{records:,} of {flaggable:,} {deals} would change, more than max_share = {max_share:g} allows")
        plan_hash = _hash(con, run_id)
        con.execute("update ops.writeback_plan set status = 'superseded' where status in ('planned', 'held')")
        con.execute("delete from ops.writeback_change where plan_hash = $1", [plan_hash])
        con.execute("delete from ops.writeback_plan where plan_hash = $1", [plan_hash])
        con.execute(
            "insert into ops.writeback_plan (plan_hash, run_id, created_at, status, records, changes, open_deals, note) "
            "values ($1, $2, $3, $4, $5, $6, $7, $8)",
            [plan_hash, run_id, now, status, records, changes, open_deals, "; ".join(notes) or None],
        )
        con.execute(
            "insert into ops.writeback_change (plan_hash, opportunity_key, source, opportunity_id, field, old_value, new_value, status) "
            "select $1, opportunity_key, source, opportunity_id, field, old_value, new_value, 'planned' from planned_change",
            [plan_hash],
        )
    return find_plan(con, plan_hash)


def find_plan(con: duckdb.DuckDBPyConnection, prefix: str | None = None) -> Plan:
    """The plan whose hash begins with `prefix`; the newest one when None. Raises UnknownPlan, in words for the user."""
    found = con.execute(
        "select plan_hash, run_id, created_at, status, records, changes, open_deals, note from ops.writeback_plan "
        "where $1::varchar is null or starts_with(plan_hash, $1) order by created_at desc, status = 'superseded' limit 2",
        [prefix],
    )
    names = [column[0] for column in found.description]
    rows = found.fetchall()
    if not rows:
        none_yet = "There is no plan yet: run `plumbline writeback plan`."
        raise UnknownPlan(none_yet if prefix is None else f"No plan has a hash like {prefix!r}.")
    if prefix is not None and len(rows) > 1:
        raise UnknownPlan(f"More than one plan has a hash like {prefix!r}: give more of it.")
    counted = con.execute(
        "select source, count(distinct opportunity_key), count(*) from ops.writeback_change where plan_hash = $1 "
        "group by source order by source",
        [rows[0][0]],
    ).fetchall()
    told: dict[str, Any] = dict(zip(names, rows[0], strict=True))
    return Plan(**told, sources={source: (deals, fields) for source, deals, fields in counted})


def changes_file(con: duckdb.DuckDBPyConnection, plan_hash: str, source: str, path: Path) -> int:
    """Write what is still to be sent of a plan to one source: NDJSON lines {"id", "fields": {CRM field: value or null}}.

    Clears come first, then deals of one account together (their locks do not meet). Returns the number of records.
    """
    crm = con.execute("select crm from core.source where source = $1", [source]).fetchone()
    names = FIELDS[crm[0]] if crm else {}
    case = " ".join(f"when '{field}' then '{name}'" for field, name in names.items())
    # A number is one to Salesforce; to HubSpot every value is text.
    value = "if(c.field = 'score', c.new_value::json, to_json(c.new_value))" if crm and crm[0] == "salesforce" else "to_json(c.new_value)"
    con.execute(
        f"""
        create or replace temp table to_send as
        select c.opportunity_id as id, json_group_object(case c.field {case} end, coalesce({value}, 'null'::json)) as fields,
               bool_or(c.new_value is not null) as sets, any_value(o.account_id) as account_id
        from ops.writeback_change c
        left join core.opportunity o using (opportunity_key)
        where c.plan_hash = $1 and c.source = $2 and c.status = 'planned'
        group by c.opportunity_id
        """,
        [plan_hash, source],
    )
    target = str(path).replace("'", "''")
    con.execute(f"copy (select id, fields from to_send order by sets, account_id nulls first, id) to '{target}' (format json)")
    return _pair(con, "select count(*), 0 from to_send")[0]


def record_results(
    con: duckdb.DuckDBPyConnection, plan_hash: str, source: str, results: Path, *, run_id: str, now: datetime
) -> tuple[int, int]:
    """Record what the CRM answered: NDJSON lines {"id", "ok", "code", "message"}. Returns records (written, failed), as answered now.

    What was written is in core.crm_flag at once, so that the next plan does not write it again. Lines for what is no longer
    planned change nothing; a file that is not there counts as empty. The plan is applied when nothing of it is left to be sent.
    """
    if not results.exists() or results.stat().st_size == 0:
        return 0, 0
    path = str(results).replace("'", "''")
    with transaction(con):
        # A last line may be torn when the apply was killed: what it says was not acknowledged.
        con.execute(f"""
            create or replace temp table result as
            select distinct on (id) id, coalesce(ok, false) as ok, code, message
            from read_json('{path}', format = 'newline_delimited', ignore_errors = true,
                           columns = {{id: 'VARCHAR', ok: 'BOOLEAN', code: 'VARCHAR', message: 'VARCHAR'}})
            where id is not null
        """)
        for name, value in {"plan_hash": plan_hash, "source": source, "run_id": run_id, "now": now}.items():
            con.execute(f"set variable {name} = $1", [value])
        _run(con, "writeback_result.sql")
        con.execute(
            """
            update ops.writeback_plan set status = 'applied'
            where plan_hash = $1 and not exists (from ops.writeback_change c where c.plan_hash = $1 and c.status = 'planned')
            """,
            [plan_hash],
        )
        return _pair(
            con, "select count(distinct opportunity_key) filter (ok), count(distinct opportunity_key) filter (not ok) from answered"
        )


def changes(con: duckdb.DuckDBPyConnection, plan_hash: str, *, limit: int | None = None) -> list[dict[str, Any]]:
    """The changes of a plan for people: source, opportunity_id, name, url, owner_name, field, old_value, new_value, status, error."""
    found = con.execute(
        f"""
        select c.source, c.opportunity_id, o.name, o.url, o.owner_name, c.field, c.old_value, c.new_value, c.status, c.error_code, c.error
        from ops.writeback_change c
        left join core.opportunity o using (opportunity_key)
        where c.plan_hash = $1
        order by c.source, o.name, c.opportunity_id, c.field {f"limit {int(limit)}" if limit is not None else ""}
        """,
        [plan_hash],
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def failures(con: duckdb.DuckDBPyConnection, plan_hash: str) -> list[dict[str, Any]]:
    """Why the CRMs refused records of a plan: source, error_code, error, records, the most frequent first."""
    found = con.execute(
        """
        select source, error_code, any_value(error) as error, count(distinct opportunity_key) as records
        from ops.writeback_change
        where plan_hash = $1 and status = 'failed'
        group by source, error_code
        order by records desc, source, error_code
        """,
        [plan_hash],
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def sources(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The sources that the warehouse knows, those too that are configured no longer."""
    return [row[0] for row in con.execute("select source from core.source order by source").fetchall()]


def _fields(
    con: duckdb.DuckDBPyConnection, leave_out: Collection[str], writable: Mapping[str, Collection[str]] | None
) -> tuple[set[str], list[str]]:
    """source:field of what can be written, and what cannot be, in words."""
    fields: set[str] = set()
    notes = [f"{source} is left out" for source in sorted(leave_out)]
    for source, crm in con.execute("select source, crm from core.source order by source").fetchall():
        if source in leave_out:
            continue
        if writable is not None and source in writable:
            there = set(writable[source])
        else:
            seen = con.execute("select name from core.field where source = $1 and object = $2", [source, DEALS[crm]])
            there = {row[0] for row in seen.fetchall()}
        missing = [name for name in FIELDS[crm].values() if name not in there]
        if len(missing) == len(FIELDS[crm]):
            notes.append(f"{source} has none of Plumbline's fields: docs/configuration.md lists what an admin has to make")
        elif missing:
            notes.append(f"{source} has no {', '.join(missing)}")
        fields |= {f"{source}:{field}" for field, name in FIELDS[crm].items() if name in there}
    return fields, notes


def _hash(con: duckdb.DuckDBPyConnection, run_id: str) -> str:
    """Of every change of planned_change: the same changes have the same hash, unless they were sent before and came up again."""
    rows = con.execute(
        "select md5(to_json({'k': opportunity_key, 'f': field, 'o': old_value, 'n': new_value})::varchar) from planned_change order by 1"
    )
    digest = hashlib.sha256()
    while part := rows.fetchmany(10_000):
        digest.update("".join(row[0] for row in part).encode())
    found = digest.hexdigest()[:16]
    sent = _pair(con, "select count(*), 0 from ops.writeback_change where plan_hash = $1 and status <> 'planned'", [found])[0]
    return hashlib.sha256(f"{found} {run_id}".encode()).hexdigest()[:16] if sent else found


def _run(con: duckdb.DuckDBPyConnection, name: str) -> None:
    con.execute((SQL / name).read_text(encoding="utf-8"))


def _pair(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> tuple[int, int]:
    row = con.execute(sql, parameters).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
