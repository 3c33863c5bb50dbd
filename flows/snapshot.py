"""The pipeline of the day, kept: the only history that no CRM can take back; and that of days when nobody took it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from flows.errors import ConfigError
from flows.steps import step

if TYPE_CHECKING:
    from flows.run import Run


@step("snapshot")
def snapshot(run: Run) -> dict[str, Any]:
    """Store the snapshot of the business day, replacing one taken earlier that day, and rebuild the days that were missed since the first.

    Returns snapshot_date, rows, deals and `missed`: the days that were rebuilt.
    """
    from warehouse.snapshot import fill
    from warehouse.snapshot import snapshot as take

    taken = take(run.con, now=run.now, business_date=run.business_date)
    return {**taken, "missed": fill(run.con, business_date=run.business_date)}


@step("snapshot")
def rebuild(run: Run, first: date, last: date | None = None) -> dict[str, Any]:
    """Rebuild the snapshots of the business days from `first` to `last` (default: today) from history; today's is taken as it stands.

    Returns snapshot_date, rows, deals of the last day, and `rebuilt`: how many past days. Raises ConfigError for days to come.
    """
    from datetime import timedelta

    from warehouse import snapshot as store

    today = run.business_date
    last = today if last is None else last
    for day in (first, last):
        if day > today:
            raise ConfigError(f"{day} is not over yet: today is {today}.\nThe pipeline of a day to come is not known.")
    past = min(last, today - timedelta(days=1))
    result: dict[str, Any] = {"rebuilt": 0}
    if first <= past:
        result = store.rebuild(run.con, first, past)
    if last == today:
        result |= store.snapshot(run.con, now=run.now, business_date=today)
    return result
