"""SOQL's date literals (TODAY, LAST_N_DAYS:n …) as half-open ranges of days."""

from __future__ import annotations

from datetime import date, timedelta


def _month(first: date, by: int) -> date:
    """The first day of the month `by` months away."""
    months = first.year * 12 + first.month - 1 + by
    return date(months // 12, months % 12 + 1, 1)


def day_range(name: str, n: int | None, today: date, fiscal_month: int = 1) -> tuple[date, date] | None:
    """First day and the day after the last one; None when there is no such literal. Weeks start on Sunday, as by US locale."""
    day = timedelta(days=1)
    month = today.replace(day=1)
    quarter = _month(month, -((month.month - 1) % 3))
    year = today.replace(month=1, day=1)
    fiscal_quarter = _month(month, -((month.month - fiscal_month) % 3))
    fiscal_year = _month(month, -((month.month - fiscal_month) % 12))
    week = today - day * ((today.weekday() + 1) % 7)

    if n is None:
        starts = {"WEEK": (week, None), "MONTH": (month, 1), "QUARTER": (quarter, 3), "YEAR": (year, 12)}
        starts |= {"FISCAL_QUARTER": (fiscal_quarter, 3), "FISCAL_YEAR": (fiscal_year, 12)}
        fixed = {
            "TODAY": (today, today + day),
            "YESTERDAY": (today - day, today),
            "TOMORROW": (today + day, today + 2 * day),
            "LAST_90_DAYS": (today - 90 * day, today + day),
            "NEXT_90_DAYS": (today + day, today + 91 * day),
        }
        if name in fixed:
            return fixed[name]
        which, _, unit = name.partition("_")
        if which not in {"THIS", "LAST", "NEXT"} or unit not in starts:
            return None
        start, months = starts[unit]
        by = {"THIS": 0, "LAST": -1, "NEXT": 1}[which]
        if months is None:
            return start + 7 * day * by, start + 7 * day * (by + 1)
        return _month(start, months * by), _month(start, months * (by + 1))

    if name == "LAST_N_DAYS":
        return today - n * day, today + day
    if name == "NEXT_N_DAYS":
        return today + day, today + (n + 1) * day
    if name == "N_DAYS_AGO":
        return today - n * day, today - (n - 1) * day
    spans = {"MONTHS": (month, 1), "QUARTERS": (quarter, 3), "YEARS": (year, 12)}
    spans |= {"FISCAL_QUARTERS": (fiscal_quarter, 3), "FISCAL_YEARS": (fiscal_year, 12)}
    for unit, (start, months) in spans.items():
        if name == f"LAST_N_{unit}":
            return _month(start, -months * n), start
        if name == f"NEXT_N_{unit}":
            return _month(start, months), _month(start, months * (n + 1))
        if name == f"N_{unit}_AGO":
            return _month(start, -months * n), _month(start, -months * (n - 1))
    if name == "LAST_N_WEEKS":
        return week - 7 * n * day, week
    if name == "NEXT_N_WEEKS":
        return week + 7 * day, week + 7 * (n + 1) * day
    if name == "N_WEEKS_AGO":
        return week - 7 * n * day, week - 7 * (n - 1) * day
    return None
