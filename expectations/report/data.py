"""What the page shows, read from the warehouse: one query file per block, only sums and short lists ever leave SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb

QUERIES = Path(__file__).parent / "queries"
TOP_DEALS = 25
FINDINGS = 500
OWNERS = 200
LIST = 40  # rows of the short lists: the page says how many more there are

Row = dict[str, Any]

# A name may hold anything a CRM lets people type. Control characters are invalid in HTML, and no name needs them.
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\ufffd")


@dataclass
class Report:
    """The blocks of the page, each as rows of its query, and the frame they were read in."""

    now: datetime
    business_date: date
    zone: str
    currency: str | None
    run: Row | None = None  # the present check
    previous: Row | None = None
    week: Row | None = None
    totals: Row = field(default_factory=dict)
    changes: list[Row] = field(default_factory=list)
    rules: list[Row] = field(default_factory=list)
    owners: list[Row] = field(default_factory=list)
    deals: list[Row] = field(default_factory=list)
    stages: list[Row] = field(default_factory=list)
    pipelines: list[Row] = field(default_factory=list)
    trend: list[Row] = field(default_factory=list)
    calendar: list[Row] = field(default_factory=list)
    unmapped: list[Row] = field(default_factory=list)
    unknown: list[Row] = field(default_factory=list)
    unreadable: list[Row] = field(default_factory=list)
    rateless: list[Row] = field(default_factory=list)
    unparsed: list[Row] = field(default_factory=list)
    new_fields: list[Row] = field(default_factory=list)
    waivers: list[Row] = field(default_factory=list)
    sources: list[Row] = field(default_factory=list)
    objects: list[Row] = field(default_factory=list)
    plan: Row | None = None
    plan_status: list[Row] = field(default_factory=list)
    plan_errors: list[Row] = field(default_factory=list)
    findings: list[Row] = field(default_factory=list)


class _Reader:
    """Runs query files with the parameters that each of them names."""

    def __init__(self, con: duckdb.DuckDBPyConnection, **parameters: Any) -> None:
        self.con, self.parameters = con, parameters

    def run(self, name: str, **more: Any) -> duckdb.DuckDBPyConnection:
        sql = (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
        known = self.parameters | more
        return self.con.execute(sql, {key: known[key] for key in set(re.findall(r"\$([a-z_]+)", sql))})

    def rows(self, name: str, **more: Any) -> list[Row]:
        result = self.run(name, **more)
        columns = [column[0] for column in result.description or []]
        return [
            {key: value.translate(_CONTROL) if isinstance(value, str) else value for key, value in zip(columns, row, strict=True)}
            for row in result.fetchall()
        ]


@contextmanager
def _basis(read: _Reader) -> Iterator[None]:
    """The two temporary tables that the blocks stand on; they go with the report."""
    try:
        read.run("basis_finding")
        read.run("basis_deal")
        yield
    finally:
        for table in ("report_deal", "report_finding"):
            read.con.execute(f"drop table if exists temp.{table}")


def collect(
    con: duckdb.DuckDBPyConnection, *, now: datetime, business_date: date, zone: str | None = None, currency: str | None = None
) -> Report:
    """Read every block as of `now`. Raises duckdb.Error where a table of the warehouse is missing."""
    read = _Reader(con, now=now, today=business_date)
    home = read.rows("home")[0]
    zone = zone or home["zone"] or getattr(now.tzinfo, "key", None) or "UTC"
    currency = currency or home["currency"]
    read.parameters["zone"] = zone
    runs = {row["which"]: row for row in read.rows("runs")}
    run = runs.get("present")
    read.parameters |= {"run": run and run["run_id"], "run_at": run and run["as_of"]}
    report = Report(now, business_date, zone, currency, run, runs.get("previous"), runs.get("week"))
    with _basis(read):
        report.totals = read.rows("totals")[0]
        if run:
            for block in ("changes", "rules", "trend"):
                setattr(report, block, read.rows(block))
            report.owners = read.rows("owners", limit=OWNERS)
            report.unknown = read.rows("unknown", limit=LIST)
            report.unreadable = read.rows("unreadable", limit=LIST)
        for block in ("stages", "calendar", "sources", "objects"):
            setattr(report, block, read.rows(block))
        for block in ("pipelines", "unmapped", "rateless", "unparsed", "new_fields", "waivers"):
            setattr(report, block, read.rows(block, limit=LIST))
        report.deals = _with_issues(read, read.rows("deals", limit=TOP_DEALS))
        report.findings = read.rows("findings", limit=FINDINGS)
    report.plan = next(iter(read.rows("writeback_plan")), None)
    if report.plan:
        report.plan_status = read.rows("writeback_status", plan=report.plan["plan_hash"])
        report.plan_errors = read.rows("writeback_errors", plan=report.plan["plan_hash"], limit=LIST)
    return report


def _with_issues(read: _Reader, deals: list[Row]) -> list[Row]:
    issues: dict[str, list[Row]] = {deal["opportunity_key"]: [] for deal in deals}
    for issue in read.rows("deal_issues", keys=list(issues)) if deals else []:
        issues[issue["opportunity_key"]].append(issue)
    return [deal | {"list": issues[deal["opportunity_key"]]} for deal in deals]
