"""Reconciliation: a listing of a CRM's live deals beside core.opportunity, deal by deal and total by total.

The listing (`Opportunity.ids`, `deals.ids`: docs/landing.md) is landed by the connectors' sweep(). What differs is kept in ops.reconciliation.
Mending is an ordinary load of the deals that differ, as fetch() landed them; `check_mended` then compares those again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from warehouse import derive, raw
from warehouse.errors import LandingError
from warehouse.landed import LandedObject, read_pull, stage
from warehouse.migrate import transaction

LISTINGS = {"salesforce": "Opportunity.ids", "hubspot": "deals.ids"}
# The CRM's fields by what they are compared as. A field that a listing does not tell is not compared.
TOLD = {
    "salesforce": {
        "SystemModstamp": "stamp", "LastModifiedDate": "stamp", "StageName": "stage", "RecordTypeId": "pipeline", "Amount": "amount",
        "CurrencyIsoCode": "currency", "IsClosed": "closed",
    },
    "hubspot": {
        "hs_lastmodifieddate": "stamp", "dealstage": "stage", "pipeline": "pipeline", "amount": "amount", "deal_currency_code": "currency",
    },
}  # fmt: skip
# More deals than this that go at once are believed only when somebody confirms it: a user who has lost View All sees few deals, and
# a CRM does not tell a deal that was deleted from one that is hidden.
GONE_SHARE, GONE_FEW = 0.2, 20
TEMPORARY = ("landed", "stage_flag", "sweep", "sides", "difference", "total")


@dataclass(frozen=True)
class Comparison:
    """What a comparison of one source found. crm_deals, warehouse_deals: live deals on either side. amounts: per currency both sums,
    {"currency", "crm_amount", "warehouse_amount"}. kinds: how many deals are missing, gone, revived, stale (those that there are).
    whole: whether the listing was; what it lacks is else not taken for gone, and totals are not compared."""

    source: str
    crm_deals: int
    warehouse_deals: int
    amounts: list[dict[str, Any]] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    whole: bool = True
    notice: str | None = None

    @property
    def deals(self) -> int:
        """Deals that differ."""
        return sum(self.kinds.values())

    @property
    def too_many_gone(self) -> bool:
        """Whether so many deals would go at once that a lost permission is the likelier cause."""
        gone = self.kinds.get("gone", 0)
        return gone > GONE_FEW and gone > GONE_SHARE * self.warehouse_deals


def compare(con: duckdb.DuckDBPyConnection, directory: Path, *, run_id: str, now: datetime) -> Comparison:
    """Compare the listing landed in `directory` with the warehouse and keep every difference in ops.reconciliation under `run_id`.

    now: the run's present. Comparing again replaces what this run found before. Raises LandingError for files that are not what
    their manifest says; then nothing is kept.
    """
    pull = read_pull(directory)
    listing = pull.object(LISTINGS[pull.crm])
    if listing is None:
        raise LandingError(f"holds no {LISTINGS[pull.crm]}.", path=directory, fix="Run `plumbline reconcile` again: it lists the deals anew.")
    with transaction(con):
        _bring_together(con, pull.source, listing, whole=listing.complete)
        _run(con, "core/reconcile.sql", "core/reconcile_total.sql")
        con.execute("delete from ops.reconciliation where run_id = $1 and source = $2", [run_id, pull.source])
        con.execute(
            """
            insert into ops.reconciliation by name
            select $run_id as run_id, $source as source, $now as as_of, 'deal' as level, kind, $source || ':' || opportunity_id as opportunity_key,
                   opportunity_id, pipeline, crm_stage, currency, field, crm_value, warehouse_value, in_crm::bigint as crm_deals,
                   is_live::bigint as warehouse_deals, crm_amount, warehouse_amount, pending, false as mended
            from difference
            """,
            {"run_id": run_id, "source": pull.source, "now": now},
        )
        if listing.complete:
            con.execute(
                """
                insert into ops.reconciliation by name
                select $run_id as run_id, $source as source, $now as as_of, 'stage' as level, 'total' as kind, *, false as mended
                from total
                where (crm_deals, crm_amount) is distinct from (warehouse_deals, warehouse_amount)
                """,
                {"run_id": run_id, "source": pull.source, "now": now},
            )
        found = _summary(con, pull.source, listing)
        _forget(con)
    return found


def to_mend(con: duckdb.DuckDBPyConnection, path: Path, *, run_id: str, source: str, gone: bool) -> int:
    """Write the ids of the deals that differ to `path`, one a line, and return how many. gone: those too that are gone in the CRM."""
    where = f"run_id = {_literal(run_id)} and source = {_literal(source)} and level = 'deal'" + ("" if gone else " and kind <> 'gone'")
    con.execute(
        f"copy (select distinct opportunity_id from ops.reconciliation where {where} order by opportunity_id) to {_literal(str(path))} "
        "(format csv, header false)"
    )
    row = con.execute(f"select count(distinct opportunity_id) from ops.reconciliation where {where}").fetchone()
    return int(row[0]) if row else 0


def check_mended(con: duckdb.DuckDBPyConnection, directory: Path, *, run_id: str, gone: bool) -> int:
    """Compare the deals of to_mend() once more, with what was fetched of them and loaded, and note in ops.reconciliation which agree now.
    Totals are mended when every deal is. Returns how many deals agree."""
    pull = read_pull(directory)
    fetched = pull.object(derive.DEALS[pull.crm])
    if fetched is None:
        raise LandingError(f"holds no {derive.DEALS[pull.crm]}.", path=directory, fix="Run `plumbline reconcile` again.")
    with transaction(con):
        _bring_together(con, pull.source, fetched, whole=True, only_of=run_id)
        _run(con, "core/reconcile.sql")
        ours = "run_id = $1 and source = $2"
        con.execute(
            f"""
            update ops.reconciliation set mended = true
            where {ours} and level = 'deal' and ($3 or kind <> 'gone') and opportunity_id not in (select opportunity_id from difference)
            """,
            [run_id, pull.source, gone],
        )
        # A deal that went: the CRM says when, or has nothing left to say, and then the instant here is that of this run.
        con.execute(
            """
            update ops.reconciliation r set pending = o.deleted_at > getvariable('watermark')
            from core.opportunity o
            where r.run_id = $1 and r.source = $2 and r.kind = 'gone' and r.mended
              and o.opportunity_key = r.opportunity_key and o.deleted_at <> r.as_of
            """,
            [run_id, pull.source],
        )
        con.execute(
            f"""
            update ops.reconciliation set mended = true
            where {ours} and level = 'stage' and not exists (from ops.reconciliation where {ours} and level = 'deal' and not mended)
            """,
            [run_id, pull.source],
        )
        _forget(con)
    row = con.execute(f"select count(distinct opportunity_id) from ops.reconciliation where {ours} and mended", [run_id, pull.source]).fetchone()
    return int(row[0]) if row else 0


def deals(con: duckdb.DuckDBPyConnection, *, run_id: str, source: str, limit: int | None = None) -> list[dict[str, Any]]:
    """The deals of `source` that the run found to differ, the largest of each kind first; `limit` of them, all when None.

    Keys: kind, opportunity_key, pipeline, stage (as people read it), currency, crm_amount, warehouse_amount, pending, mended, and fields:
    of stale deals what differs, {"field", "crm_value", "warehouse_value"} each.
    """
    return _dicts(
        con,
        """
        select kind, opportunity_key, pipeline, stage, currency, crm_amount, warehouse_amount, bool_and(pending) as pending,
               bool_and(mended) as mended,
               coalesce(list({'field': field, 'crm_value': crm_value, 'warehouse_value': warehouse_value} order by field)
                            filter (field is not null), []) as fields
        from labelled
        where level = 'deal'
        group by kind, opportunity_key, pipeline, stage, currency, crm_amount, warehouse_amount
        order by kind, greatest(crm_amount, warehouse_amount) desc nulls last, opportunity_key
        limit $limit
        """,
        run_id=run_id,
        source=source,
        limit=limit,
    )


def totals(con: duckdb.DuckDBPyConnection, *, run_id: str, source: str) -> list[dict[str, Any]]:
    """The groups of pipeline, stage (as people read it) and currency whose deals or amounts the run found to differ: both sides."""
    return _dicts(
        con,
        """
        select pipeline, stage, currency, crm_deals, warehouse_deals, crm_amount, warehouse_amount, mended
        from labelled
        where level = 'stage'
        order by all
        """,
        run_id=run_id,
        source=source,
    )


def pending(con: duckdb.DuckDBPyConnection, *, run_id: str, source: str) -> int:
    """How many of the deals that differ the CRM had changed after the last sync had read it."""
    row = con.execute(
        "select count(distinct opportunity_id) from ops.reconciliation where run_id = $1 and source = $2 and pending", [run_id, source]
    ).fetchone()
    return int(row[0]) if row else 0


def _dicts(con: duckdb.DuckDBPyConnection, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """Rows of a query over `labelled`: a run's differences with the stages' labels."""
    found = con.execute(
        f"""
        with label as (
            select pipeline, crm_stage, any_value(label) as label from core.stage_map where source = $source group by all
        ),
        labelled as (
            select r.*, coalesce(l.label, r.crm_stage) as stage
            from ops.reconciliation r
            left join label l using (pipeline, crm_stage)
            where r.run_id = $run_id and r.source = $source
        )
        {sql}
        """,
        parameters,
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def never_synced(con: duckdb.DuckDBPyConnection, sources: Iterable[str]) -> list[str]:
    """Those of `sources` that have never been loaded: there is nothing to compare with."""
    known = {row[0] for row in con.execute("select source from core.source").fetchall()}
    return [source for source in sources if source not in known]


def _bring_together(con: duckdb.DuckDBPyConnection, source: str, obj: LandedObject, *, whole: bool, only_of: str | None = None) -> None:
    """Fill `sides` from a landed object. only_of: with nothing but the deals that this run's comparison found to differ."""
    row = con.execute(
        """
        select coalesce(s.currency, s.home_currency), (select watermark from ops.watermark where source = $1 and object = $2)
        from core.source s where s.source = $1
        """,
        [source, derive.DEALS[obj.crm]],
    ).fetchone() or (None, None)
    told = sorted({TOLD[obj.crm][f["name"]] for f in obj.fields if f["name"] in TOLD[obj.crm]})
    variables = {"source": source, "org_currency": row[0], "watermark": row[1], "told": told, "whole": whole}
    casts = {"org_currency": "::varchar", "watermark": "::timestamptz", "told": "::varchar[]"}
    for name, value in variables.items():
        con.execute(f"set variable {name} = $1{casts.get(name, '')}", [value])
    raw.ensure_tables(con, (f"{obj.crm}_{table}" for table in derive.TABLES[obj.crm]))
    stage(con, obj)
    if obj.crm == "salesforce":
        _run(con, "salesforce/stage_flag.sql")
    _run(con, "core/value.sql", f"{obj.crm}/sweep.sql", "core/sides.sql")
    if only_of:
        con.execute(
            "delete from sides where opportunity_id not in "
            "(select opportunity_id from ops.reconciliation where run_id = $1 and source = $2 and level = 'deal')",
            [only_of, source],
        )


def _summary(con: duckdb.DuckDBPyConnection, source: str, listing: LandedObject) -> Comparison:
    sizes = con.execute("select count(*) filter (in_crm), count(*) filter (is_live) from sides").fetchone() or (0, 0)
    amounts = con.execute("""
        select currency, sum(crm_amount), sum(warehouse_amount) from total where currency is not null group by currency
        order by greatest(sum(crm_amount), sum(warehouse_amount)) desc nulls last, currency
    """).fetchall()
    kinds = con.execute("select kind, count(distinct opportunity_id) from difference group by kind order by kind").fetchall()
    zero = Decimal(0)
    return Comparison(
        source=source,
        crm_deals=sizes[0],
        warehouse_deals=sizes[1],
        amounts=[{"currency": c, "crm_amount": theirs or zero, "warehouse_amount": ours or zero} for c, theirs, ours in amounts],
        kinds=dict(kinds),
        whole=listing.complete,
        notice=listing.notice,
    )


def _run(con: duckdb.DuckDBPyConnection, *names: str) -> None:
    for name in names:
        con.execute((derive.HERE / name).read_text(encoding="utf-8"))


def _forget(con: duckdb.DuckDBPyConnection) -> None:
    for name in TEMPORARY:
        con.execute(f"drop table if exists temp.{name}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
