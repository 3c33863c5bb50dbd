"""The pipeline of the day, kept: the only history that no CRM can take back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.steps import step

if TYPE_CHECKING:
    from flows.run import Run


@step("snapshot")
def snapshot(run: Run) -> dict[str, Any]:
    """Store the snapshot of the business day, replacing one taken earlier that day. Returns snapshot_date, rows and deals."""
    from warehouse.snapshot import snapshot as take

    return take(run.con, now=run.now, business_date=run.business_date)
