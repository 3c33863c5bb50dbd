"""The data-quality report: one HTML file that needs nothing else, made from what the warehouse holds after a check."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

__all__ = ["write_report"]


def write_report(
    con: duckdb.DuckDBPyConnection, out: Path, *, now: datetime, business_date: date, title: str | None = None,
    timezone: str | None = None, currency: str | None = None,
) -> Path:  # fmt: skip
    """Write `out`/index.html and return its path. The file is replaced in one step: a reader never meets half of it.

    Reads the schemas core, quality, bi and ops; leaves nothing in the warehouse (a read-only connection will do).
    now: aware instant; what happened after it is not shown. business_date: the day that the page calls today.
    timezone: IANA name in which instants are shown; default what the CRMs say, else that of `now` if it has a name, else UTC.
    currency: code of the home currency; default that of the deals that are not converted, else what the CRMs say.
    """
    from expectations.report.data import collect
    from expectations.report.page import render

    if now.tzinfo is None:
        raise ValueError("now has no time zone: pass an aware datetime")
    html = render(collect(con, now=now, business_date=business_date, zone=timezone, currency=currency), title=title)
    out.mkdir(parents=True, exist_ok=True)
    page = out / "index.html"
    part = out / "index.html.part"
    part.write_text(html, encoding="utf-8")
    part.replace(page)
    return page
