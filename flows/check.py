"""Judge every deal: Great Expectations runs the suites, findings open, stay or resolve, scores follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.errors import GateFailed
from flows.steps import step

if TYPE_CHECKING:
    from expectations.check import CheckResult
    from flows.run import Run
    from flows.settings import Settings

ORDER = ("critical", "high", "medium", "low", "info")


def ready(settings: Settings) -> None:
    """Raises RuleError when a suite or a setting in [rules] is wrong: told at the start of a night, not at its end."""
    from expectations import loader

    loader.load(settings.rules)


@step("check")
def check(run: Run) -> CheckResult:
    """Run the suites over the canonical tables as of the run's present. Raises RuleError for a rule that cannot be used."""
    from expectations.check import check as run_suites

    result = run_suites(
        run.con,
        run_id=run.run_id,
        now=run.now,
        business_date=run.business_date,
        timezone=run.business.timezone,
        settings=run.settings.rules,
        progress=run.say,
    )
    run.detail = document(result)
    if result.errors:
        run.error = f"rules that could not be run: {', '.join(sorted(result.errors))}"
    return result


def gate(result: CheckResult, fail_on: str | None) -> None:
    """Raises GateFailed when an open finding is at least as severe as `fail_on`, or a rule could not be run."""
    if fail_on is None or not result.fails(fail_on):
        return
    bad = {severity: result.by_severity.get(severity, 0) for severity in ORDER[: ORDER.index(fail_on) + 1]}
    if result.errors:
        raise GateFailed(f"{len(result.errors)} rule(s) could not be run: {', '.join(sorted(result.errors))}.")
    told = ", ".join(f"{count:,} {severity}" for severity, count in bad.items() if count)
    raise GateFailed(f"Open findings at or above {fail_on}: {told}.")


def document(result: CheckResult) -> dict[str, Any]:
    return {
        "opened": result.opened,
        "kept": result.kept,
        "resolved": result.resolved,
        "score": result.score,
        "open_by_severity": dict(result.by_severity),
        "errors": dict(result.errors),
    }


def lines(result: CheckResult) -> list[str]:
    told = ", ".join(f"{result.by_severity[s]:,} {s}" for s in ORDER if result.by_severity.get(s)) or "none"
    said = []
    if result.score is not None:
        trusted = result.open_amount_home - result.at_risk_amount_home
        said.append(f"Open pipeline {result.open_amount_home:,.0f}, of it {trusted:,.0f} can be trusted; hygiene score {result.score:.0f} of 100.")
    said.append(f"Findings: {result.opened:,} opened, {result.kept:,} stay, {result.resolved:,} resolved. Open now: {told}.")
    said += [f"  rule {rule} could not be run: {error}" for rule, error in sorted(result.errors.items())]
    return said
