"""What any warehouse must hold whichever CRM it mirrors: how it is read, what must be true of it, and how deals' pasts are counted."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

ZONE = ZoneInfo("Europe/Berlin")
KEYS = {
    "core.opportunity": "opportunity_key", "core.account": "account_key", "core.owner": "owner_key", "core.activity": "activity_key",
    "core.contact_role": "opportunity_key || contact_id", "core.stage_map": "source || pipeline || '/' || crm_stage",
    "core.exchange_rate": "source || currency || valid_from::varchar", "core.field": "source || object || '/' || name",
    "core.opportunity_version": "opportunity_key || valid_from::varchar",
}  # fmt: skip
VERSIONED = ("crm_stage", "pipeline", "amount", "currency", "amount_home", "close_date", "owner_id", "probability", "forecast_category", "next_step",
             "is_closed", "is_won", "is_deleted", "stage")  # fmt: skip


class Differences(list[str]):
    """Sentences, each naming a table, a record, and what the org and the warehouse say."""

    def note(self, where: str, record: str, theirs: Any, ours: Any) -> None:
        if theirs != ours:
            self.append(f"{where} {record}: the org has {theirs!r}, the warehouse {ours!r}")


def table(con: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    found = con.execute(sql, list(parameters))
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def stage_moves(history: list[tuple[datetime, str | None]]) -> list[tuple[datetime, str | None, str]]:
    """Moves between stages: entries in which the stage differs from that before."""
    moves: list[tuple[datetime, str | None, str]] = []
    before = None
    for at, stage in history:
        if stage and stage != before:
            moves.append((at, before, stage))
            before = stage
    return moves


def pushes(history: list[tuple[datetime, date]], moves: list[tuple[datetime, str | None, str]], closed: dict[str, bool]) -> int | None:
    """Net moves of the close date per business day of an open deal, by a week or into a later month; None where no past is told."""
    if not history:
        return None
    spells = [(at, nxt[0] if nxt else None) for (at, _, stage), nxt in zip(moves, [*moves[1:], None], strict=True) if closed.get(stage)]
    days: dict[date, list[date]] = {}
    for (_, before), (at, after) in pairwise(history):
        if before == after or any(since <= at + timedelta(seconds=1) and (until is None or at <= until) for since, until in spells):
            continue
        days.setdefault(at.astimezone(ZONE).date(), [before, after])[1] = after
    return sum(1 for old, new in days.values() if new > old and ((new - old).days >= 7 or (new.year, new.month) > (old.year, old.month)))


def invariants(con: duckdb.DuckDBPyConnection, found: Differences, crm: str) -> None:
    """One row per key everywhere; versions without gaps, overlaps or empty ones, whose present is the deal;
    what became of the pipeline adds up."""
    keys = dict(KEYS)
    listed = con.execute("select table_name from duckdb_tables() where schema_name = 'raw' and starts_with(table_name, ?)", [crm]).fetchall()
    for (name,) in listed:
        keys[f"raw.{name}"] = "source || id"
    for name, key in keys.items():
        for (double,) in con.execute(f"select {key} as key from {name} group by key having count(*) > 1").fetchall():
            found.append(f"{name} has {double} more than once")
    for key, since, until, following in con.execute("""
        select opportunity_key, valid_from, valid_to, lead(valid_from) over (partition by opportunity_key order by valid_from) as following
        from core.opportunity_version
        qualify valid_to is distinct from following or valid_to <= valid_from
    """).fetchall():  # fmt: skip
        found.append(f"core.opportunity_version {key}: from {since} to {until}, the next from {following}")
    deal, version = (", ".join(f"{alias}.{name}::varchar" for name in VERSIONED) for alias in "ov")
    for key, now, present in con.execute(f"""
        select o.opportunity_key, [{deal}] as deal, [{version}] as version
        from core.opportunity o
        left join core.opportunity_version v on v.opportunity_key = o.opportunity_key and v.valid_to is null
        where v.opportunity_key is null or deal is distinct from version
    """).fetchall():
        found.append(f"core.opportunity_version {key}: the deal is {now}, its present version {present}")
    for group in con.execute("""
        select source, pipeline, owner_id, currency, sum(if(bucket = 'closing', -deals, deals)) as deals,
               sum(if(bucket = 'closing', -amount, amount)) as amount, sum(if(bucket = 'closing', -amount_home, amount_home)) as amount_home
        from bi.pipeline_movement(date '2026-03-09', date '2026-12-31', date '2026-03-01', date '2026-06-30')
        group by all
        having deals <> 0 or amount <> 0 or amount_home <> 0
    """).fetchall():
        found.append(f"bi.pipeline_movement {group[:4]}: the opening and all movements differ from the closing by {group[4:]}")


def unchanging(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """A fingerprint of every table of raw and core, but for when they were last looked at."""
    seen = {"last_seen_at", "last_synced_at"}
    prints = {}
    listed = con.execute("select schema_name, table_name from duckdb_tables() where schema_name in ('raw', 'core') order by all").fetchall()
    for schema, name in listed:
        columns = [c[0] for c in con.execute(f"from {schema}.{name} limit 0").description or ()]
        kept = ", ".join(f'"{c}"' for c in columns if c not in seen)
        prints[f"{schema}.{name}"] = con.execute(f"select count(*), bit_xor(hash({kept})) from {schema}.{name}").fetchone()
    return prints
