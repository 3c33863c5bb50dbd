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
        run.warn(f"{source}: unmapped stages {told}. Say what they stand for: plumbline stages confirm {source} {next(iter(deals))!r} STAGE")
    return unmapped


def suggest(run: Run) -> list[dict[str, Any]]:
    """What is open to doubt, the least sure first."""
    from warehouse import stages

    return stages.suggest(run.con)


def list_stages(run: Run) -> list[dict[str, Any]]:
    """The map in force, unmapped stages first, then in the order of the pipelines."""
    from warehouse import stages

    return sorted(stages.list_stages(run.con), key=lambda row: row["stage"] != "unmapped")


def confirm(run: Run, source: str, pipeline: str, crm_stage: str, stage: str) -> dict[str, Any]:
    """Map a CRM stage by hand and restate its deals. Raises PlumblineError for a stage nobody knows."""
    from warehouse import stages

    try:
        return stages.confirm(run.con, source, pipeline, crm_stage, stage, run.now)
    except ValueError as error:
        raise PlumblineError(str(error)) from None


def lines_of_map(rows: list[dict[str, Any]]) -> list[str]:
    """The map as `stages list` prints it: deals are all that are there, the amount is that of the open ones in home currency."""
    return _table([f"{row['stage']:<13} {row['origin']:<10} {row['deals']:>7,} deals {_money(row):>16}" for row in rows], rows)


def lines_of_suggestions(rows: list[dict[str, Any]]) -> list[str]:
    """Suggestions as `stages suggest` prints them."""
    return _table(
        [
            f"{row['suggestion'] or '-':<13} {row['confidence'] or 0:>5} {row['reason'] or ''}; {row['deals']:,} deals {_money(row)}".rstrip()
            for row in rows
        ],
        rows,
    )


def lines_of_confirmation(confirmed: dict[str, Any]) -> list[str]:
    where = ", ".join(confirmed["pipelines"])
    said = f"{confirmed['crm_stage']!r} of {confirmed['source']} ({where}) now stands for {confirmed['stage']}"
    return [f"{said}: {confirmed['deals']:,} deals restated."]


def _table(said: list[str], rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["No stages yet: run `plumbline sync` first."]
    return [f"{row['source']:<12} {row['pipeline']:<20} {row['label'] or row['crm_stage']:<28} {text}" for row, text in zip(rows, said, strict=True)]


def _money(row: dict[str, Any]) -> str:
    return "" if row["amount_home"] is None else f"{row['amount_home']:,.2f}"
