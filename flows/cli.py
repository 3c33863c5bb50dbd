"""The command line: `plumbline`. Each command is a thin face on a function of `flows` with the same name.

Nothing heavy is imported here, so that `--help` answers at once; each command imports what it needs when it runs.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from flows.errors import Interrupted, exit_code, plain

if TYPE_CHECKING:
    from flows.run import Run
    from flows.settings import Settings

app = typer.Typer(
    name="plumbline",
    help="Keeps the pipeline plumb: syncs the opportunities of Salesforce and HubSpot into DuckDB, judges every deal's hygiene, "
    "writes flags back and reports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stages_app = typer.Typer(help="The canonical stage map.", no_args_is_help=True)
writeback_app = typer.Typer(help="What goes back to the CRMs: plan, show, apply.", no_args_is_help=True)
app.add_typer(stages_app, name="stages")
app.add_typer(writeback_app, name="writeback")

Sources = Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]...", help="Names of sources; all when left out.")]


class Severity(StrEnum):
    """How bad a finding is."""

    critical = "critical"
    high = "high"
    medium = "medium"
    low = "low"
    info = "info"


@dataclass
class Face:
    """How this call wants to be talked to."""

    config: Path | None
    now: datetime
    json: bool
    verbose: bool
    quiet: bool
    shown: ClassVar[bool] = False  # whether this process has printed its result: a JSON caller gets one document, not two

    def say(self, line: str) -> None:
        """Progress: for people, so never on stdout when that is to be a JSON document."""
        if not self.quiet:
            typer.echo(line, err=self.json)

    def warn(self, line: str) -> None:
        typer.secho(line, err=True, fg=typer.colors.YELLOW)

    def settings(self) -> Settings:
        from flows.settings import load_settings

        return load_settings(self.config)

    def show(self, document: Any, lines: list[str]) -> None:
        """The result: one JSON document, or lines for a person."""
        Face.shown = True
        if self.json:
            import orjson

            typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode())
        else:
            for line in lines:
                typer.echo(line)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"plumbline {version('plumbline')}")
        raise typer.Exit


@app.callback()
def _common(
    ctx: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Configuration file. Default: $PLUMBLINE_CONFIG, then ./plumbline.toml.")] = None,
    now: Annotated[str | None, typer.Option(metavar="INSTANT", help="The present of this run: ISO 8601 with zone. Default: the clock.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else there.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more: counts of every object, tracebacks.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say less: results and errors only.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    from flows.run import instant

    try:
        present = instant(now)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--now") from None
    ctx.obj = Face(config, present, json, verbose, quiet)


def _run(face: Face, command: str, body: Callable[[Run], Any], options: dict[str, Any] | None = None) -> Any:
    """Open the run of `command` and give it to `body`, as a Prefect flow run where an API is at hand."""
    from flows.run import open_run
    from flows.settings import find_file
    from flows.steps import recorded

    settings = face.settings()

    def inside() -> Any:
        with open_run(command, settings, face.now, say=face.say, warn=face.warn) as run:
            return body(run)

    return recorded(command, {"config": str(find_file(face.config)), "now": face.now.isoformat(), "options": options or {}}, inside, face.warn)


@app.command()
def demo(
    ctx: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the CRM simulator and Prefect's UI up until Ctrl-C.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Where the demo's files go; emptied first.")] = Path("demo"),
    deals: Annotated[int, typer.Option(min=50, help="How many deals the two CRMs hold together.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed is another company.")] = 7,
    prefect: Annotated[bool, typer.Option("--prefect/--no-prefect", help="Run the nights as flow runs on a local Prefect server.")] = True,
) -> None:
    """The whole job with no account and no config: three nights against two simulated CRMs."""
    from flows import demo as flow

    face: Face = ctx.obj
    result = flow.demo(directory, now=face.now, keep=keep, deals=deals, seed=seed, with_prefect=prefect, say=face.say, warn=face.warn)
    face.show(result.document(), [])


@app.command()
def doctor(ctx: typer.Context, sources: Sources = None) -> None:
    """Look at everything that a night depends on, a line each, with the fix. Writes nothing; a problem sets the exit code."""
    from flows import doctor as flow

    face: Face = ctx.obj
    result = flow.doctor(face.config, face.now, sources, say=face.say if face.verbose else None)
    face.show(result.document(), result.lines(quiet=face.quiet))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


@app.command()
def sync(
    ctx: typer.Context,
    sources: Sources = None,
    full: Annotated[bool, typer.Option("--full", help="Read everything again and mark as deleted what the CRM no longer has.")] = False,
) -> None:
    """Pull changes, land them, bring them onto the canonical model."""
    from flows import sync as flow

    face: Face = ctx.obj
    face.settings().chosen(sources)  # a wrong name is told before anything is opened
    result = _run(face, "sync", lambda run: flow.sync(run, sources, full=full), {"sources": sources, "full": full})
    face.show(result.document(), result.lines(objects=face.verbose))
    result.raise_failures()


@app.command()
def reconcile(
    ctx: typer.Context,
    sources: Sources = None,
    sync: Annotated[bool, typer.Option("--sync", help="Sync first; what changes in the CRM meanwhile is then left to the next sync.")] = False,
    mend: Annotated[bool, typer.Option("--mend/--no-mend", help="Read the deals that differ again and load them; or only compare.")] = True,
    accept_gone: Annotated[
        bool, typer.Option("--accept-gone", help="Believe it also when more than a fifth of the live deals is gone at once.")
    ] = False,
) -> None:
    """Compare CRM and warehouse, deal by deal and total by total; exit 1 when they differed. Mends what differs."""
    from flows import reconcile as flow

    face: Face = ctx.obj
    face.settings().chosen(sources)
    most = None if face.json else flow.SHOWN
    options = {"sources": sources, "sync": sync, "mend": mend, "accept_gone": accept_gone}
    result = _run(
        face, "reconcile", lambda run: flow.reconcile(run, sources, sync=sync, mend=mend, accept_gone=accept_gone, most=most), options
    )
    face.show(result.document(), result.lines())
    result.raise_failures()


@app.command()
def check(
    ctx: typer.Context,
    fail_on: Annotated[Severity | None, typer.Option("--fail-on", help="Exit 1 when an open finding is this bad or worse.")] = None,
) -> None:
    """Run the Great Expectations suites: open, keep and resolve findings; score."""
    from flows import check as flow

    face: Face = ctx.obj
    flow.ready(face.settings())
    result = _run(face, "check", flow.check)
    face.show(flow.document(result), flow.lines(result))
    flow.gate(result, fail_on.value if fail_on else None)
    result.raise_failures()


@app.command()
def snapshot(
    ctx: typer.Context,
    day: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="A past day, rebuilt from history as it ended.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Rebuild every day since this one, and take today's.")] = None,
) -> None:
    """Store the pipeline snapshot of the day; or rebuild those of past days from history."""
    from flows import snapshot as flow

    if day and since:
        raise typer.BadParameter("--date and --since exclude each other", param_hint="--since")
    face: Face = ctx.obj
    first, last = since or day, day
    if first is None:
        result = _run(face, "snapshot", flow.snapshot)
    else:
        start, end = first.date(), last.date() if last else None
        result = _run(face, "snapshot", lambda run: flow.rebuild(run, start, end), {"first": str(start), "last": end and str(end)})
    rebuilt = result.get("rebuilt", 0) or len(result.get("missed", ()))
    lines = [f"{rebuilt:,} past {'day' if rebuilt == 1 else 'days'} rebuilt from history."] if rebuilt else []
    face.show(result, [*lines, f"Snapshot of {result['snapshot_date']}: {result['rows']} rows, {result['deals']} open deals."])


@app.command()
def report(ctx: typer.Context, out: Annotated[Path | None, typer.Option(help="Directory of the report. Default: [report] path.")] = None) -> None:
    """Write the data-quality report, one self-contained HTML file."""
    from flows import report as flow

    face: Face = ctx.obj
    path = _run(face, "report", lambda run: flow.report(run, out))
    face.show({"report": str(path)}, [f"Report: {path}"])


@app.command()
def publish(ctx: typer.Context) -> None:
    """Put the read-only copy for BI tools in place, atomically."""
    from flows import publish as flow

    face: Face = ctx.obj
    path = _run(face, "publish", flow.publish)
    face.show({"published": str(path)}, [f"Published: {path}"])


@app.command()
def nightly(ctx: typer.Context) -> None:
    """The night: sync, stages, check, snapshot, report, publish, write-back plan (applied where the config allows)."""
    from flows import nightly as flow

    face: Face = ctx.obj
    flow.ready(face.settings())
    result = _run(face, "nightly", flow.nightly)
    face.show(result.document(), result.lines(objects=face.verbose))
    result.raise_failures()


@stages_app.command("suggest")
def stages_suggest(ctx: typer.Context) -> None:
    """What the stages in doubt seem to stand for, how sure that is, and why; the least sure first."""
    from flows import stages as flow

    face: Face = ctx.obj
    rows = _run(face, "stages", flow.suggest)
    face.show({"stages": rows}, flow.lines_of_suggestions(rows))


@stages_app.command("list")
def stages_list(ctx: typer.Context) -> None:
    """The stage map in force, with deals and amounts; unmapped stages first."""
    from flows import stages as flow

    face: Face = ctx.obj
    rows = _run(face, "stages", flow.list_stages)
    face.show({"stages": rows}, flow.lines_of_map(rows))


@stages_app.command("confirm")
def stages_confirm(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="Name of the source.")],
    crm_stage: Annotated[str, typer.Argument(metavar="CRM_STAGE", help="The CRM's stage, by value or label.")],
    stage: Annotated[str, typer.Argument(help="The canonical stage it stands for.")],
    pipeline: Annotated[str, typer.Option(help="Pipeline or record type; * for all.")] = "*",
) -> None:
    """Say which canonical stage a CRM stage stands for, and bring its deals there."""
    from flows import stages as flow

    face: Face = ctx.obj
    face.settings().chosen([source])
    result = _run(face, "stages", lambda run: flow.confirm(run, source, pipeline, crm_stage, stage))
    face.show(result, flow.lines_of_confirmation(result))


@writeback_app.command("plan")
def writeback_plan(ctx: typer.Context) -> None:
    """Work out which fields in the CRMs differ from what they should hold, and store the plan."""
    from flows import writeback as flow

    face: Face = ctx.obj
    plan = _run(face, "writeback", flow.plan)
    face.show(flow.document(plan), flow.lines(plan))


@writeback_app.command("show")
def writeback_show(
    ctx: typer.Context,
    plan: Annotated[
        str | None,
        typer.Option("--plan", metavar="HASH", help="Hash of the plan, its first characters will do. Default: the newest."),
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every change to this file.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many changes to print.")] = 50,
) -> None:
    """Print a plan, change by change."""
    from flows import writeback as flow

    face: Face = ctx.obj
    shown = _run(face, "writeback", lambda run: flow.show(run, plan, csv=csv, most=most))
    face.show(shown, flow.table(shown))


@writeback_app.command("apply")
def writeback_apply(
    ctx: typer.Context,
    plan: Annotated[str, typer.Option("--plan", metavar="HASH", help="Hash of the plan to send, as `plan` printed it.")],
    confirm_large: Annotated[bool, typer.Option("--confirm-large", help="Send it although it changes more than max_share allows.")] = False,
) -> None:
    """Send exactly that plan."""
    from flows import writeback as flow

    face: Face = ctx.obj
    result = _run(face, "writeback", lambda run: flow.apply(run, plan, confirm_large=confirm_large))
    face.show(result.document(), result.lines())
    result.raise_failures()


@app.command()
def simulator(
    ctx: typer.Context,
    salesforce_port: Annotated[int, typer.Option(help="Port of the Salesforce server.")] = 8181,
    hubspot_port: Annotated[int, typer.Option(help="Port of the HubSpot server.")] = 8182,
    deals: Annotated[int, typer.Option(min=10, help="How many deals the two CRMs hold together.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed is another company.")] = 7,
    directory: Annotated[Path | None, typer.Option("--dir", help="Keep the servers' state here. Default: in memory.")] = None,
) -> None:
    """Run the local CRM servers alone, for training and rehearsals."""
    from flows import demo as flow

    face: Face = ctx.obj
    flow.simulator(directory, now=face.now, salesforce_port=salesforce_port, hubspot_port=hubspot_port, deals=deals, seed=seed, say=face.say)


def _stop(number: int, _: object) -> None:
    raise Interrupted(128 + number)


def main() -> None:
    """Entry point: turns every expected error into plain lines and the contract's exit code."""
    verbose = any(arg in {"-v", "--verbose"} for arg in sys.argv[1:])
    as_json = "--json" in sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except Interrupted:
        typer.echo("Stopped. What was committed is kept; the next run goes on from there.", err=True)
        raise
    except Exception as error:
        code = exit_code(error)
        if verbose or code is None:
            traceback.print_exc()
        if as_json and not Face.shown:
            import orjson

            typer.echo(orjson.dumps({"status": "failed", "error": plain(error), "exit_code": code or 1}).decode())
        if code is None:
            typer.secho(
                f"This is a defect of Plumbline: {type(error).__name__}. Please report it with the lines above.",
                err=True,
                fg="red",
            )
            raise SystemExit(70) from None
        typer.secho(plain(error), err=True, fg="red")
        raise SystemExit(code) from None


if __name__ == "__main__":
    main()
