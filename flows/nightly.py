"""The night: from what changed in the CRMs to the flags on their deals, step by step, in the order of the story."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import check as checks
from flows import publish, report, snapshot, stages, sync, writeback

if TYPE_CHECKING:
    from expectations.check import CheckResult
    from flows.run import Run
    from flows.settings import Settings


@dataclass
class Night:
    """What a night did. plan and applied are None where write-back is off or nothing was sent."""

    synced: sync.SyncReport
    unmapped: list[dict[str, Any]]
    checked: CheckResult
    snapshot: dict[str, Any]
    report: Path
    published: Path
    plan: Any | None
    applied: Any | None

    def raise_failures(self) -> None:
        """Raises SourcesFailed, WriteFailed or RulesNotRun: a night in which a CRM or a rule failed never ends green."""
        self.synced.raise_failures()
        if self.applied:
            self.applied.raise_failures()
        self.checked.raise_failures()

    def document(self) -> dict[str, Any]:
        return {
            **self.synced.document(),
            "unmapped_stages": len(self.unmapped),
            "findings": checks.document(self.checked),
            "snapshot": self.snapshot,
            "report": str(self.report),
            "published": str(self.published),
            "writeback": writeback.document(self.plan) if self.plan else None,
            "written": self.applied.document() if self.applied else None,
        }

    def lines(self, *, objects: bool = False) -> list[str]:
        """What the night did, for people; objects: with the counts of every object of the CRMs."""
        said = [*self.synced.lines(objects=objects), *checks.lines(self.checked)]
        said.append(f"Snapshot of {self.snapshot['snapshot_date']}: {self.snapshot['deals']:,} open deals.")
        said += writeback.lines(self.plan) if self.plan else ["Write-back is off."]
        said += self.applied.lines() if self.applied else []
        return [*said, f"Report:    {self.report}", f"Published: {self.published}"]


def ready(settings: Settings) -> None:
    """Raises ConfigError or RuleError when a night with these settings could not come to its end."""
    settings.chosen(None)
    checks.ready(settings)


def nightly(run: Run) -> Night:
    """sync → stages → check → snapshot → report → publish → write-back plan, applied where the configuration allows.

    A source that fails does not stop the others, and nothing is written to it; call `raise_failures` of the result to end red.
    """
    synced = sync.sync(run)
    unmapped = stages.refresh(run)
    checked = checks.check(run)
    taken = snapshot.snapshot(run)
    page = report.report(run)
    published = publish.publish(run)
    plan = applied = None
    if run.settings.writeback.mode != "off":
        plan = writeback.plan(run, leave_out=list(synced.errors))
        if run.settings.writeback.mode == "apply":
            applied = writeback.apply_planned(run, plan)
    night = Night(synced, unmapped, checked, taken, page, published, plan, applied)
    run.detail = {key: value for key, value in night.document().items() if key != "sources"}  # those are in ops.sync_object
    return night
