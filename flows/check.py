"""Judge every deal: Great Expectations runs the suites, findings open, stay or resolve, scores follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.errors import GateFailed
from flows.steps import step

if TYPE_CHECKING:
    from expectations.check import CheckResult
    from flows.run import Run

ORDER = ("critical", "high", "medium", "low", "info")


@step("check")
def check(run: Run) -> CheckResult:
    """Run the suites over the canonical tables as of the run's present. Raises RuleError for a rule that cannot be used."""
    from expectations.check import check as run_suites

    run.say("Judging every deal …")
    return run_suites(
        run.con,
        run_id=run.run_id,
        now=run.now,
        business_date=run.business_date,
        timezone=run.business.timezone,
        settings=run.settings.rules,
        progress=run.say,
    )


def gate(result: CheckResult, fail_on: str | None) -> None:
    """Raises GateFailed when an open finding is at least as severe as `fail_on`, or a rule could not be run."""
    if fail_on is None:
        return
    bad = {severity: result.by_severity.get(severity, 0) for severity in ORDER[: ORDER.index(fail_on) + 1]}
    if result.errors:
        raise GateFailed(f"{len(result.errors)} rule(s) could not be run: {', '.join(sorted(result.errors))}.")
    if any(bad.values()):
        told = ", ".join(f"{count:,} {severity}" for severity, count in bad.items() if count)
        raise GateFailed(f"Open findings at or above {fail_on}: {told}.")


def document(result: CheckResult) -> dict[str, Any]:
    return {
        "opened": result.opened,
        "kept": result.kept,
        "resolved": result.resolved,
        "open_by_severity": result.by_severity,
        "errors": result.errors,
    }


def lines(result: CheckResult) -> list[str]:
    told = ", ".join(f"{result.by_severity[s]:,} {s}" for s in ORDER if result.by_severity.get(s)) or "none"
    said = [f"Findings: {result.opened:,} opened, {result.kept:,} stay, {result.resolved:,} resolved. Open now: {told}."]
    said += [f"  rule {rule} could not be run: {error}" for rule, error in sorted(result.errors.items())]
    return said
