"""Pull what changed in the CRMs, land it, load it. A source that fails is told at the end; the others are loaded all the same."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import SourcesFailed, exit_code
from flows.steps import step, together

if TYPE_CHECKING:
    from connectors.landing import Pull
    from flows.run import Run
    from flows.settings import SourceSettings


@dataclass
class SourceOutcome:
    """What one source delivered. objects: per CRM object its fetched, inserted, changed, unchanged, echoed, deleted, bytes and calls.
    A source that had to stop half-way has both an error and the objects that were finished."""

    source: str
    objects: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0
    error: str | None = None

    @property
    def deals(self) -> dict[str, Any]:
        """Counts of the opportunities (HubSpot: deals), or nothing where the source failed."""
        return next((o for o in self.objects if o["object"] in {"Opportunity", "deals"}), {})


@dataclass
class SyncReport:
    sources: list[SourceOutcome]

    @property
    def errors(self) -> dict[str, str]:
        return {outcome.source: outcome.error for outcome in self.sources if outcome.error}

    def raise_failures(self) -> None:
        """Raises SourcesFailed when a source failed."""
        if self.errors:
            raise SourcesFailed(self.errors, [outcome.source for outcome in self.sources if not outcome.error])

    def document(self) -> dict[str, Any]:
        status = "failed" if self.errors else "done"
        return {"status": status, "sources": [vars(outcome) for outcome in self.sources]}

    def lines(self, *, objects: bool = False) -> list[str]:
        """A line per source, with what was not available; objects: and one for every object of the CRM."""
        said = []
        for outcome in self.sources:
            if outcome.error:
                said.append(f"Failed: {outcome.error.splitlines()[0]}")
            if outcome.error and not outcome.objects:
                continue
            deals = outcome.deals
            archived = next((o["fetched"] for o in outcome.objects if o["object"] == "deals.archived"), 0)  # HubSpot lists them apart
            fetched = f"{deals.get('fetched', 0):,} deals" + (f" and {archived:,} archived ones" if archived else "")
            said.append(
                f"{outcome.source}: {fetched} fetched: {deals.get('inserted', 0):,} new, "
                f"{deals.get('changed', 0):,} changed, {deals.get('deleted', 0):,} gone, {deals.get('echoed', 0):,} echoes, "
                f"{deals.get('unchanged', 0):,} the same; {outcome.calls:,} API calls"
            )
            said += [_object_line(o) for o in outcome.objects if objects]
            said += [f"  {o['object']}: {o['notice']}" for o in outcome.objects if o.get("notice")]
        return said


def _object_line(o: dict[str, Any]) -> str:
    counts = ", ".join(f"{o[key]:,} {key}" for key in ("fetched", "inserted", "changed", "unchanged", "echoed", "deleted"))
    return f"  {o['object']} ({o['mode']}): {counts}; {o['bytes']:,} bytes, {o['calls']:,} calls"


def sync(run: Run, sources: list[str] | None = None, *, full: bool = False) -> SyncReport:
    """Bring the warehouse up to date with the CRMs.

    sources: names, all when None. full: read everything again; what a complete listing no longer holds is marked as deleted.
    Sources are pulled at once and loaded one after the other, each in one transaction with its watermarks.
    Never raises for a source: see SyncReport.errors.
    """
    chosen = run.settings.chosen(sources)
    pulls = together([partial(pull, run, source, full=full, known=_known(run, source)) for source in chosen])
    outcomes = []
    for source, pulled in zip(chosen, pulls, strict=True):
        outcome = SourceOutcome(source.name)
        try:
            if isinstance(pulled, BaseException):
                raise pulled
            outcome.objects = load(run, source, pulled)
            if pulled.stopped:
                outcome.error = run.error = pulled.stopped
        except Exception as error:
            if exit_code(error) != SourcesFailed.exit_code:
                raise  # not the CRM's fault: the warehouse or a defect of ours, and no source can go on
            outcome.error = run.error = str(error)  # said in full at the run's end, where nobody overlooks it
        outcome.calls = run.budget(source).total
        _record(run, source, outcome)
        outcomes.append(outcome)
    return SyncReport(outcomes)


@step("pull")
def pull(run: Run, source: SourceSettings, *, full: bool, known: Path) -> Pull:
    """Fetch what changed since the committed watermarks into landed files. Where the CRM's calls do not suffice, the pull says so
    (`stopped`) and holds what was finished."""
    from importlib import import_module

    from flows.settings import CRM_NAMES
    from warehouse import ops
    from warehouse.load import known_fields

    con = run.con.cursor()
    since = ops.watermarks(con, source.name)
    run.say(f"{source.name}: pulling {'everything' if full or not since else 'what changed'} from {CRM_NAMES[source.crm]} …")
    connector = import_module(f"connectors.{source.crm}")
    pulled: Pull = connector.pull(
        source,
        run_id=run.run_id,
        landing=run.settings.warehouse.landing,
        since=since,
        full=full,
        known=known,
        fields=known_fields(con, source.name),
        budget=run.budget(source),
        progress=run.say,
    )
    return pulled


@step("load")
def load(run: Run, source: SourceSettings, pulled: Pull) -> list[dict[str, Any]]:
    """Load one pull: raw, canonical tables, history, counts and watermarks, in one transaction."""
    from connectors.landing import mark_loaded
    from warehouse.load import load as load_pull

    landing = run.settings.warehouse.landing / source.name
    counts = load_pull(
        run.con,
        landing / run.run_id,
        now=run.now,
        business=run.settings.business.model_dump(),
        stages=source.stages,
        fields=source.fields,
        integration_users=getattr(source, "integration_user_ids", ()),
        own_ids=filter(None, [getattr(source, "app_id", None)]),
    )
    mark_loaded(landing / run.run_id)
    _forget_old(landing, keep=run.settings.warehouse.keep_landings)
    return [vars(count) for count in counts]


def _known(run: Run, source: SourceSettings) -> Path:
    """The deals that the warehouse holds, for connectors that must look again at some of them."""
    from warehouse.load import known

    path = run.settings.warehouse.landing / source.name / "known.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    known(run.con, source.name, path)
    return path


def _record(run: Run, source: SourceSettings, outcome: SourceOutcome) -> None:
    """How the source's sync ended and what it cost, also when it failed: calls that were made are used up."""
    from warehouse import ops

    ops.record_source(
        run.con, run.run_id, command=run.command, source=source.name, now=run.now, error=outcome.error, **run.budget(source).usage()
    )


def _forget_old(landing: Path, keep: int) -> None:
    """Remove landed pulls but the newest, which stay as the record of what the CRM said. Unfinished ones go too, unless a later pull
    may go on with what is in them."""
    from connectors.landing import is_of_use

    finished = sorted((d for d in landing.iterdir() if d.is_dir()), key=lambda d: d.name, reverse=True)
    for directory in finished[keep:]:
        if not is_of_use(directory):
            shutil.rmtree(directory, ignore_errors=True)
