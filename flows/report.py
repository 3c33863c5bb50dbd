"""The data-quality report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps import step

if TYPE_CHECKING:
    from flows.run import Run


@step("report")
def report(run: Run, out: Path | None = None) -> Path:
    """Write the report into directory `out` (default: [report] path). Returns the path of its index.html."""
    from expectations.report import write_report

    business = run.business
    return write_report(
        run.con,
        out or run.settings.report.path,
        now=run.now,
        business_date=business.date_of(run.now),
        timezone=business.timezone,
        currency=business.currency,
    )
