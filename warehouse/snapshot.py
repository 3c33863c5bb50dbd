"""The pipeline of a day, kept. What was taken on the day is what people saw then; a day that nobody took is rebuilt from history."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from warehouse.migrate import transaction

SQL = Path(__file__).parent / "sql/core"


def snapshot(con: duckdb.DuckDBPyConnection, *, now: datetime, business_date: date) -> dict[str, Any]:
    """Store the open pipeline as it stands, as that of `business_date`; a snapshot taken earlier that day is replaced.

    Returns {snapshot_date, rows, deals}.
    """
    with transaction(con):
        con.execute("set variable now = $1", [now])
        con.execute("set variable business_date = $1", [business_date])
        con.execute((SQL / "snapshot.sql").read_text(encoding="utf-8"))
    return _stored(con, business_date)


def rebuild(con: duckdb.DuckDBPyConnection, first: date, last: date) -> dict[str, Any]:
    """Store the open pipeline of each business day from `first` to `last` as it was when the day ended, in place of what is stored.

    The days must be over. From core.opportunity_version, so it is as good as the history of the CRM and of the syncs: a day before the
    first deal has no rows. Returns {snapshot_date: last, rows, deals} of the last day, and `rebuilt`, the number of days.
    """
    _rebuild(con, [first + timedelta(days=n) for n in range((last - first).days + 1)])
    return {**_stored(con, last), "rebuilt": (last - first).days + 1}


def fill(con: duckdb.DuckDBPyConnection, *, business_date: date) -> list[date]:
    """Rebuild the days between the first stored snapshot and `business_date` that no run took. Returns them."""
    rows = con.execute(
        """
        select d::date
        from (select unnest(generate_series(min(snapshot_date)::timestamp, $1::timestamp - interval 1 day, interval 1 day)) as d
              from bi.pipeline_snapshot)
        where d::date not in (select snapshot_date from bi.pipeline_snapshot)
          and bi.end_of_day(d::date) > (select min(valid_from) from core.opportunity_version)
        order by 1
        """,
        [business_date],
    ).fetchall()
    missed = [row[0] for row in rows]
    _rebuild(con, missed)
    return missed


def _rebuild(con: duckdb.DuckDBPyConnection, days: list[date]) -> None:
    if not days:
        return
    with transaction(con):
        con.execute("create or replace temp table past_day as select unnest($1::date[]) as day", [days])
        con.execute((SQL / "snapshot_past.sql").read_text(encoding="utf-8"))
    con.execute("drop table temp.past; drop table temp.past_day")


def _stored(con: duckdb.DuckDBPyConnection, day: date) -> dict[str, Any]:
    rows, deals = con.execute(
        "select count(*), coalesce(sum(deals), 0)::bigint from bi.pipeline_snapshot where snapshot_date = $1", [day]
    ).fetchone() or (0, 0)
    return {"snapshot_date": day, "rows": rows, "deals": deals}
