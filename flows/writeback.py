"""Write-back: a plan of the fields that differ, shown to whoever asks, sent exactly as it was stored."""

from __future__ import annotations

import csv as csv_file
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.errors import CRM_FAILED, PlumblineError, WriteFailed, exit_code
from flows.steps import step, together

if TYPE_CHECKING:
    from flows.run import Run
    from flows.settings import SourceSettings
    from warehouse.writeback import Plan

OFF = 'Write-back is off: nothing is planned and nothing written.\nSet mode = "plan", "approve" or "apply" in [writeback] first.'


@dataclass
class Applied:
    """What became of a plan. written and failed count records per source; errors are of sources that failed as a whole."""

    plan_hash: str
    written: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    reasons: list[dict[str, Any]] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    held: str | None = None

    def raise_failures(self) -> None:
        """Raises WriteFailed when a CRM could not be written to. Single records that it refused are kept, shown and tried again
        the next night: the dirtiest deals are the ones whose validation rules refuse every edit."""
        if self.errors:
            raise WriteFailed("\n".join(self.errors.values()))

    def document(self) -> dict[str, Any]:
        return vars(self)

    def lines(self) -> list[str]:
        if self.held:
            return [f"Nothing written: {self.held}."]
        said = []
        for source, written in self.written.items():
            failed = self.failed.get(source, 0)
            said.append(f"{source}: wrote {written:,} deals" + (f", {failed:,} were refused" if failed else "") + ".")
        said += [f"  {r['source']}: {r['records']:,} × {r['error_code'] or 'refused'}: {r['error']}" for r in self.reasons]
        said += [f"Failed to write: {error.splitlines()[0]}" for error in self.errors.values()]
        return said


@step("write-back plan")
def plan(run: Run, *, leave_out: Collection[str] = ()) -> Plan:
    """Work out and store what the CRMs should hold and do not. leave_out: sources whose sync failed, because what they hold is unknown.

    Raises PlumblineError when write-back is off.
    """
    from warehouse import writeback

    settings = run.settings.writeback
    if settings.mode == "off":
        raise PlumblineError(OFF)
    elsewhere = set(writeback.sources(run.con)) - set(run.settings.sources)
    return writeback.plan(
        run.con,
        run_id=run.run_id,
        now=run.now,
        max_share=settings.max_share,
        appear_after=settings.appear_after,
        leave_out=sorted(elsewhere | set(leave_out)),
    )


def show(run: Run, plan_hash: str | None = None, *, csv: Path | None = None, most: int = 50) -> dict[str, Any]:
    """A plan with its first changes; every change goes to the file `csv` when one is given. Raises PlumblineError for an unknown plan."""
    from warehouse import writeback

    found = _find(run, plan_hash)
    if csv:
        _write_csv(csv, writeback.changes(run.con, found.plan_hash))
    return {**document(found), "changes_shown": writeback.changes(run.con, found.plan_hash, limit=most), "csv": str(csv) if csv else None}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv_file.DictWriter(out, list(rows[0]) if rows else ["source"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise PlumblineError(f"{path} cannot be written: {error.strerror}.\nGive another place with --csv.") from None


def apply(run: Run, plan_hash: str, *, confirm_large: bool = False) -> Applied:
    """Send the plan with that hash, all that is still to be sent of it.

    Raises PlumblineError when write-back is off, or the plan is unknown, no longer current, or too large and not confirmed.
    """
    if run.settings.writeback.mode == "off":
        raise PlumblineError(OFF)
    found = _find(run, plan_hash)
    if found.status == "superseded":
        raise PlumblineError(f"Plan {found.plan_hash} was superseded by a newer one.\nRun `plumbline writeback show` to see that.")
    if found.status == "held" and not confirm_large:
        raise PlumblineError(f"Plan {found.plan_hash} is held: {found.note}.\nLook at it, then apply it with --confirm-large.")
    return _send(run, found)


def apply_planned(run: Run, planned: Plan) -> Applied:
    """What the night does with its own plan: send it, unless it is held."""
    if planned.status == "held":
        run.warn(f"The write-back plan {planned.plan_hash} is held: {planned.note}. See `plumbline writeback show`.")
        return Applied(planned.plan_hash, held=planned.note)
    return _send(run, planned)


def _send(run: Run, found: Plan) -> Applied:
    from warehouse import ops, writeback

    applied = Applied(found.plan_hash)
    sources = [run.settings.sources[name] for name in found.sources if name in run.settings.sources]
    work = [_prepare(run, found.plan_hash, source) for source in sources]
    outcomes = together([partial(write, run, source, *files) for source, files in zip(sources, work, strict=True)])
    for source, (changes, results), outcome in zip(sources, work, outcomes, strict=True):
        # What was acknowledged is recorded first, also of a source that failed half-way.
        written, failed = writeback.record_results(run.con, found.plan_hash, source.name, results, run_id=run.run_id, now=run.now)
        applied.written[source.name], applied.failed[source.name] = written, failed
        if run.budget(source).total:
            ops.record_usage(run.con, run.run_id, source=source.name, **run.budget(source).usage())
        changes.unlink(missing_ok=True)
        results.unlink(missing_ok=True)
        if isinstance(outcome, BaseException):
            if exit_code(outcome) != CRM_FAILED:
                raise outcome
            applied.errors[source.name] = run.error = str(outcome)
    applied.reasons = writeback.failures(run.con, found.plan_hash)
    run.detail = applied.document()
    return applied


def _prepare(run: Run, plan_hash: str, source: SourceSettings) -> tuple[Path, Path]:
    """The files of changes to send and of results. Results that a killed apply left behind are recorded first, so that nothing
    acknowledged is sent again."""
    from warehouse import writeback

    directory = run.settings.warehouse.landing / source.name
    directory.mkdir(parents=True, exist_ok=True)
    changes, results = (directory / f"writeback-{plan_hash}.{kind}.ndjson" for kind in ("changes", "results"))
    if results.exists():
        writeback.record_results(run.con, plan_hash, source.name, results, run_id=run.run_id, now=run.now)
        results.unlink()
    writeback.changes_file(run.con, plan_hash, source.name, changes)
    return changes, results


@step("write")
def write(run: Run, source: SourceSettings, changes: Path, results: Path) -> None:
    """Send one source's changes; the CRM's answers go to `results` as they arrive. Nothing to send costs no call."""
    from importlib import import_module

    from flows.settings import CRM_NAMES

    if not changes.stat().st_size:
        return
    run.say(f"{source.name}: writing flags to {CRM_NAMES[source.crm]} …")
    import_module(f"connectors.{source.crm}").write(source, changes=changes, results=results, budget=run.budget(source), progress=run.say)


def _find(run: Run, plan_hash: str | None) -> Plan:
    from warehouse import writeback

    try:
        return writeback.find_plan(run.con, plan_hash)
    except writeback.UnknownPlan as error:
        raise PlumblineError(str(error)) from None


def document(found: Plan) -> dict[str, Any]:
    return {**vars(found), "sources": {source: {"records": n, "changes": m} for source, (n, m) in found.sources.items()}}


def lines(found: Plan) -> list[str]:
    if not found.records:
        why = found.note or "the CRMs hold what they should"
        return [f"Write-back: nothing to write; {why}."]
    said = [
        f"Write-back plan {found.plan_hash}: {found.changes:,} fields of {found.records:,} deals" + (", held." if found.status == "held" else ".")
    ]
    said += [f"  {source}: {changes:,} fields of {records:,} deals" for source, (records, changes) in found.sources.items()]
    return said + ([f"  {found.note}"] if found.note else [])


def table(shown: dict[str, Any]) -> list[str]:
    """A plan as `show` prints it: a line per change."""
    size = f"{shown['changes']:,} fields of {shown['records']:,} deals"
    said = [f"Plan {shown['plan_hash']} of {shown['created_at']:%Y-%m-%d %H:%M} UTC, {shown['status']}: {size}."]
    if shown["note"]:
        said.append(shown["note"])
    for c in shown["changes_shown"]:
        state = "" if c["status"] == "planned" else f"   [{c['status']}{': ' + c['error_code'] if c['error_code'] else ''}]"
        deal = (c["name"] or c["opportunity_id"])[:40]
        said.append(f"{c['source']:<10} {deal:<40} {c['field']:<14} {c['old_value'] or '-'} → {c['new_value'] or '-'}{state}")
    hidden = shown["changes"] - len(shown["changes_shown"])
    if hidden > 0:
        said.append(f"… and {hidden:,} more: --most N prints more, --csv FILE writes all.")
    return said + ([f"All changes: {shown['csv']}"] if shown["csv"] else [])
