"""Salesforce as a source of opportunities and a target of write-backs: pull(), write() and diagnose(). The client loads when they work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.diagnosis import Diagnosis
    from connectors.landing import Pull
    from connectors.limits import Budget
    from connectors.salesforce.settings import SalesforceSettings
    from connectors.writing import WriteResult

Say = Callable[[str], None]


def pull(
    settings: SalesforceSettings,
    *,
    run_id: str,
    landing: Path,
    since: Mapping[str, datetime],
    full: bool = False,
    known: Path | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    budget: Budget | None = None,
    progress: Say | None = None,
) -> Pull:
    """Land what changed in the org since the given watermarks, or everything.

    since: committed watermark per object; an object without one is read whole. full: read everything whole.
    known: accepted for symmetry with HubSpot; Salesforce tells deletions and restorations itself.
    fields: the fields that the warehouse knew of before, {object: {name: type}}, of a formula "calculated currency"; a first sync has none.
    budget: what this run may still spend of the org's calls, shared with whatever else it does there; None: one of its own.
    Raises a CrmError; then the directory has no pull.json and nothing in it counts.
    """
    from connectors.salesforce.extract import pull as work

    return work(settings, run_id=run_id, landing=landing, since=since, full=full, fields=fields, budget=budget, progress=progress)


def sweep(
    settings: SalesforceSettings, *, run_id: str, landing: Path, budget: Budget | None = None, progress: Say | None = None
) -> Pull:
    """Land a listing of the live deals, few columns each. See `connectors.salesforce.lookup.sweep`."""
    from connectors.salesforce import lookup

    return lookup.sweep(settings, run_id=run_id, landing=landing, budget=budget, progress=progress)


def fetch(
    settings: SalesforceSettings, *, run_id: str, landing: Path, ids: Path, budget: Budget | None = None, progress: Say | None = None
) -> Pull:
    """Land single deals with what belongs to them. See `connectors.salesforce.lookup.fetch`."""
    from connectors.salesforce import lookup

    return lookup.fetch(settings, run_id=run_id, landing=landing, ids=ids, budget=budget, progress=progress)


def write(
    settings: SalesforceSettings, *, changes: Path, results: Path, budget: Budget | None = None, progress: Say | None = None
) -> WriteResult:
    """Send `changes` (connectors/writing.py) to Opportunity and append what became of each record to `results`.

    Raises a CrmError when the CRM stops answering half-way: what was acknowledged until then is in `results`.
    """
    from connectors.salesforce.writeback import write as work

    return work(settings, changes=changes, results=results, budget=budget, progress=progress)


def diagnose(settings: SalesforceSettings, *, writes: bool, progress: Say | None = None) -> list[Diagnosis]:
    """Look at the org as this user: sign-in, what can be read, tracked and written, and the API budget; a line each.

    writes: whether write-back is planned, so that a user who may not edit is a problem and not a note. Takes a dozen calls and
    changes nothing. Never raises a CrmError: what fails is among the lines.
    """
    from connectors.salesforce.access import diagnose as work

    return work(settings, writes=writes, progress=progress)
