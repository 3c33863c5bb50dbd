"""The canonical stage map: what each CRM stage stands for, what is unmapped, and who said so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.errors import PlumblineError
from flows.steps import step

if TYPE_CHECKING:
    from flows.run import Run


@step("stages")
def refresh(run: Run) -> list[dict[str, Any]]:
    """Bring the map up to date with the CRMs' stages and the configuration, restate what it changes.

    Returns the unmapped stages that have deals, as `list_stages` does.
    """
    from warehouse import stages

    for source in run.settings.sources.values():
        stages.refresh_stage_map(run.con, source.name, source.stages, run.now)
    unmapped = [row for row in stages.list_stages(run.con) if row["stage"] == "unmapped" and row["deals"]]
    for source in sorted({row["source"] for row in unmapped}):
        deals: dict[str, int] = {}
        for row in unmapped:
            if row["source"] == source:
                label = row["label"] or row["crm_stage"]
                deals[label] = deals.get(label, 0) + row["deals"]
        told = ", ".join(f"{label!r} ({count:,} deals)" for label, count in deals.items())
        run.warn(
            f"{source}: unmapped stages {told}. Say what they stand for: plumbline stages confirm {source} {next(iter(deals))!r} STAGE"
        )
    return unmapped


def suggest(run: Run) -> list[dict[str, Any]]:
    from warehouse import stages

    return stages.suggest(run.con)


def list_stages(run: Run) -> list[dict[str, Any]]:
    from warehouse import stages

    return stages.list_stages(run.con)


def confirm(run: Run, source: str, pipeline: str, crm_stage: str, stage: str) -> dict[str, Any]:
    """Map a CRM stage by hand and restate its deals. Raises PlumblineError for a stage nobody knows."""
    from warehouse import stages

    try:
        return stages.confirm(run.con, source, pipeline, crm_stage, stage, run.now)
    except ValueError as error:
        raise PlumblineError(str(error)) from None


def lines(rows: list[dict[str, Any]], what: str) -> list[str]:
    if not rows:
        return ["No stages yet: run `plumbline sync` first."]
    said = []
    for row in rows:
        place = f"{row['source']:<12} {row['pipeline']:<20} {row['label'] or row['crm_stage']:<28}"
        if what == "suggest":
            said.append(f"{place} {row['suggestion'] or '-':<13} {row['confidence'] or 0:>5} {row['reason'] or ''}")
        else:
            amount = "" if row["amount_home"] is None else f"{row['amount_home']:,.2f}"
            said.append(f"{place} {row['stage']:<13} {row['origin']:<10} {row['deals'] or 0:>7,} deals {amount:>16}")
    return said
