"""What a day, a year and money mean to the company. Every rule, metric and conversion asks here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import duckdb


@dataclass(frozen=True)
class Business:
    """timezone: IANA name; currency: ISO 4217, what amounts are converted to; fiscal_year_start_month: 1 to 12."""

    timezone: str = "UTC"
    currency: str = "USD"
    fiscal_year_start_month: int = 1

    def date_of(self, now: datetime) -> date:
        """The business day of an instant. Never the UTC day: at 23:00 in Denver today's close dates are not past."""
        return now.astimezone(ZoneInfo(self.timezone)).date()

    def start_of(self, day: date) -> datetime:
        """The instant at which a business day begins, in UTC."""
        return datetime.combine(day, time(), ZoneInfo(self.timezone)).astimezone(UTC)


def business_of(
    con: duckdb.DuckDBPyConnection,
    *,
    timezone: str | None = None,
    currency: str | None = None,
    fiscal_year_start_month: int | None = None,
) -> Business:
    """The business as configured (the arguments), else as the CRMs' organisations say (core.source), else UTC, USD, January.

    Where CRMs disagree the one that was synced first decides, so that adding a source later moves no day and converts no amount.
    """
    told = con.execute(
        """
        select arg_min(timezone, (first_synced_at, source)) filter (timezone is not null),
               arg_min(currency, (first_synced_at, source)) filter (currency is not null),
               arg_min(fiscal_year_start_month, (first_synced_at, source)) filter (fiscal_year_start_month is not null)
        from core.source
        """
    ).fetchone() or (None, None, None)
    default = Business()
    return Business(
        timezone or told[0] or default.timezone,
        currency or told[1] or default.currency,
        fiscal_year_start_month or told[2] or default.fiscal_year_start_month,
    )


def state_timezone(con: duckdb.DuckDBPyConnection) -> None:
    """Let the macro bi.business_timezone() say the zone of the last load, as a constant: a subquery in its place would have every question
    about a day read all versions. Nothing is written where it says so already."""
    row = con.execute("select coalesce(max_by(business_timezone, (last_synced_at, source)), 'UTC') from core.source").fetchone()
    body = "'" + str(row[0] if row else "UTC").replace("'", "''") + "'"
    stated = con.execute(
        "select macro_definition from duckdb_functions() "
        "where database_name = current_database() and schema_name = 'bi' and function_name = 'business_timezone'"
    ).fetchall()
    if stated != [(body,)]:
        con.execute(f"create or replace macro bi.business_timezone() as {body}")
        con.execute("comment on macro bi.business_timezone is 'The time zone in which days were counted at the last load.'")
