"""The copy for BI tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.steps import step

if TYPE_CHECKING:
    from flows.run import Run


@step("publish")
def publish(run: Run) -> Path:
    """Replace the published file by a fresh copy, in one step. Readers of the old one are not disturbed."""
    from warehouse.publish import publish as replace

    target = run.settings.warehouse.published
    replace(run.con, target, now=run.now)
    return target
