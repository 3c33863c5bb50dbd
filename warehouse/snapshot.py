"""The pipeline of a day, kept: the one history that no CRM can take back."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

from warehouse.migrate import transaction

SQL = Path(__file__).parent / "sql/core/snapshot.sql"


def snapshot(con: duckdb.DuckDBPyConnection, *, now: datetime, business_date: date) -> dict[str, Any]:
    """Store the open pipeline as it stands, as that of `business_date`; a snapshot taken earlier that day is replaced.

    Returns {snapshot_date, rows, deals}.
    """
    with transaction(con):
        con.execute("set variable now = $1", [now])
        con.execute("set variable business_date = $1", [business_date])
        con.execute(SQL.read_text(encoding="utf-8"))
    rows, deals = con.execute(
        "select count(*), coalesce(sum(deals), 0)::bigint from bi.pipeline_snapshot where snapshot_date = $1", [business_date]
    ).fetchone() or (0, 0)
    return {"snapshot_date": business_date, "rows": rows, "deals": deals}
