"""HubSpot: deals and what surrounds them, read into landed files and written back in batches.

The client library is imported when a pull or a write begins, not with this package: every command imports the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.diagnosis import Diagnosis
    from connectors.hubspot.settings import HubSpotSettings
    from connectors.landing import Pull
    from connectors.limits import Budget
    from connectors.writing import WriteResult

__all__ = ["diagnose", "fetch", "pull", "sweep", "write"]


def pull(
    settings: HubSpotSettings,
    *,
    run_id: str,
    landing: Path,
    since: Mapping[str, datetime],
    full: bool = False,
    known: Path | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Pull:
    """Land what changed in the portal since the watermarks, or everything. See `connectors.hubspot.extract.pull`.

    fields: accepted for symmetry with Salesforce; HubSpot moves a deal's stamp when a property of it is computed anew.
    """
    from connectors.hubspot import extract

    return extract.pull(settings, run_id=run_id, landing=landing, since=since, full=full, known=known, budget=budget, progress=progress)


def sweep(
    settings: HubSpotSettings,
    *,
    run_id: str,
    landing: Path,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Pull:
    """Land a listing of the live deals, few properties each. See `connectors.hubspot.lookup.sweep`."""
    from connectors.hubspot import lookup

    return lookup.sweep(settings, run_id=run_id, landing=landing, budget=budget, progress=progress)


def fetch(
    settings: HubSpotSettings,
    *,
    run_id: str,
    landing: Path,
    ids: Path,
    budget: Budget | None = None,
    progress: Callable[[str], None] | None = None,
) -> Pull:
    """Land single deals with what belongs to them. See `connectors.hubspot.lookup.fetch`."""
    from connectors.hubspot import lookup

    return lookup.fetch(settings, run_id=run_id, landing=landing, ids=ids, budget=budget, progress=progress)


def write(
    settings: HubSpotSettings, *, changes: Path, results: Path, budget: Budget | None = None, progress: Callable[[str], None] | None = None
) -> WriteResult:
    """Write deal properties, one outcome per deal. See `connectors.hubspot.writeback.write`."""
    from connectors.hubspot import writeback

    return writeback.write(settings, changes=changes, results=results, budget=budget, progress=progress)


def diagnose(settings: HubSpotSettings, *, writes: bool, progress: Callable[[str], None] | None = None) -> list[Diagnosis]:
    """Look at the portal with this token. See `connectors.hubspot.access.diagnose`."""
    from connectors.hubspot.access import diagnose as work

    return work(settings, writes=writes, progress=progress)
