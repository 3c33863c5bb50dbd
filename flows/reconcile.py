"""Compare the CRMs' live deals with the warehouse, deal by deal and total by total, and mend what differs.

A sync reads what the CRMs say has changed. This asks what there is: it finds what no stamp and no log of deletions told
(docs/sync.md), and is the proof that there is nothing of the kind.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.landing import outdate
from flows import sync as syncing
from flows.errors import CRM_FAILED, GateFailed, PlumblineError, SourcesFailed, exit_code
from flows.steps import step, together

if TYPE_CHECKING:
    from connectors.landing import Pull
    from flows.run import Run
    from flows.settings import SourceSettings
    from warehouse.reconcile import Comparison

SHOWN = 50  # deals that are printed; ops.reconciliation and --json have all
BY_ID = 20_000  # deals read again by their ids; more are cheaper, and surer, to read all anew
# Beside the sources' own directories: what is landed here is no sync's, and no name of a source begins with a dot.
PLACE = ".reconcile"
WORDS = {
    "missing": "missing here", "gone": "gone in {crm}", "revived": "deleted here and live in {crm}", "stale": "with other values",
}  # fmt: skip


@dataclass
class SourceOutcome:
    """What one source's comparison found and what became of it.

    found: sizes, sums and counts; None where the source failed before. mended: deals that agree now; pending: deals that the CRM
    changed after the last sync had read it; synced: whether that sync was this command's own. held: why some deals were not mended.
    deals, totals: the differences, as ops.reconciliation has them, the deals not all when that was not asked for.
    """

    source: str
    crm: str
    found: Comparison | None = None
    calls: int = 0
    mended: int = 0
    pending: int = 0
    synced: bool = False
    held: str | None = None
    error: str | None = None
    deals: list[dict[str, Any]] = field(default_factory=list)
    totals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """Deals that differed."""
        return self.found.deals if self.found else 0

    @property
    def unexpected(self) -> int:
        """Deals that differed though they should not. What the CRM changed while this command went on is the next sync's."""
        return self.differing - (self.pending if self.synced else 0)

    def document(self, *, lists: bool = True) -> dict[str, Any]:
        status = "failed" if self.error else "differences" if self.unexpected else "clean"
        told = {"source": self.source, "status": status, "error": self.error, "calls": self.calls}
        if self.found:
            told |= asdict(self.found) | {"differing": self.differing, "mended": self.mended, "pending": self.pending, "held": self.held}
        return told | {"totals": self.totals, "deals": self.deals} if lists else told


@dataclass
class Reconciliation:
    """Comparisons of all sources. synced: the sync that went before, where one was asked for."""

    sources: list[SourceOutcome]
    synced: syncing.SyncReport | None = None

    def raise_failures(self) -> None:
        """Raises SourcesFailed when a source failed, else GateFailed when deals differed that should not, mended or not."""
        errors = {o.source: o.error for o in self.sources if o.error}
        if errors:
            raise SourcesFailed(errors, [o.source for o in self.sources if not o.error])
        differing = {o.source: o.unexpected for o in self.sources if o.unexpected}
        if differing:
            said = ", ".join(f"{source} {n:,}" for source, n in differing.items())
            left = sum(o.differing - o.mended for o in self.sources)
            ending = "All are mended" if not left else f"{left:,} of them are not mended"
            raise GateFailed(f"Deals that differed between CRM and warehouse: {said}.\n{ending}; ops.reconciliation has every difference.")

    def document(self, *, lists: bool = True) -> dict[str, Any]:
        outcomes = [o.document(lists=lists) for o in self.sources]
        status = next((s for s in ("failed", "differences") if any(o["status"] == s for o in outcomes)), "clean")
        return {"status": status, "sources": outcomes, "sync": self.synced.document() if self.synced and lists else None}

    def lines(self) -> list[str]:
        said = self.synced.lines() if self.synced else []
        told = self.synced.errors if self.synced else {}
        for outcome in self.sources:
            said += _lines(outcome) if outcome.source not in told else []
        return said


def reconcile(
    run: Run,
    sources: list[str] | None = None,
    *,
    sync: bool = False,
    mend: bool = True,
    accept_gone: bool = False,
    most: int | None = SHOWN,
) -> Reconciliation:
    """Compare the live deals of the CRMs with the warehouse, keep every difference, and mend.

    sources: names, all when None. sync: bring the warehouse up to date first. mend: read the deals that differ again and load them; else
    only compare. accept_gone: believe it also when a large part of the deals is gone at once. most: deals listed in the result, all
    when None. Never raises for a source that fails, nor for differences: see Reconciliation.raise_failures.
    Raises PlumblineError for a source that was never synced.
    """
    from warehouse.reconcile import never_synced

    chosen = run.settings.chosen(sources)
    synced = syncing.sync(run, sources) if sync else None
    failed = synced.errors if synced else {}
    going = [source for source in chosen if source.name not in failed]
    if unknown := never_synced(run.con, [source.name for source in going]):
        raise PlumblineError(
            f"{' and '.join(unknown)}: nothing has been synced yet, so there is nothing to compare.\n"
            "Run `plumbline sync` first, or `plumbline reconcile --sync`."
        )
    outcomes = {source.name: SourceOutcome(source.name, source.crm, synced=sync, error=failed.get(source.name)) for source in chosen}
    _clear(run)
    try:
        _compare(run, going, outcomes)
        if mend:
            _mend(run, going, outcomes, accept_gone=accept_gone)
    finally:
        _clear(run)
    for source in going:
        _conclude(run, source, outcomes[source.name], most)
    result = Reconciliation(list(outcomes.values()), synced)
    run.detail = result.document(lists=False)
    return result


def _compare(run: Run, sources: list[SourceSettings], outcomes: dict[str, SourceOutcome]) -> None:
    listed = together([partial(sweep, run, source) for source in sources])
    for source, pulled in zip(sources, listed, strict=True):
        outcome = outcomes[source.name]
        if _failed(run, outcome, pulled):
            continue
        outcome.found = compare(run, source)
        if not outcome.found.whole:
            outcome.error = run.error = (
                f"{source.name}: the listing of live deals is not whole ({outcome.found.notice})\n"
                "What it lacks was not taken for gone, and totals were not compared: run `plumbline reconcile` again."
            )


def _mend(run: Run, sources: list[SourceSettings], outcomes: dict[str, SourceOutcome], *, accept_gone: bool) -> None:
    """Read the deals that differ again, side by side, and load them source by source, each in one transaction.

    The load is a run of its own in `ops`: its counts are not those of a sync.
    """
    from warehouse import ops
    from warehouse.reconcile import to_mend

    going: list[tuple[SourceSettings, Path, bool]] = []
    for source in sources:
        outcome = outcomes[source.name]
        if outcome.found is None or not outcome.found.deals:
            continue
        gone = accept_gone or not outcome.found.too_many_gone
        if not gone:
            outcome.held = _too_many_gone(outcome)
        ids = _place(run, "ids") / f"{source.name}.txt"
        ids.parent.mkdir(parents=True, exist_ok=True)
        asked = to_mend(run.con, ids, run_id=run.run_id, source=source.name, gone=gone)
        if asked > BY_ID:
            outcome.held = f"{asked:,} deals are too many to be read one by one. Run `plumbline sync {source.name} --full`: it reads all of them."
        elif asked:
            going.append((source, ids, gone))
    if not going:
        return
    mending = ops.start_run(run.con, command="mend", now=run.now)
    error = None
    try:
        fetched = together([partial(fetch, run, source, mending, ids) for source, ids, _ in going])
        for (source, _, gone), pulled in zip(going, fetched, strict=True):
            outcome = outcomes[source.name]
            if not _failed(run, outcome, pulled) and not isinstance(pulled, BaseException):
                # What a sync that was killed has read of these deals is older than this, and no watermark would tell.
                outdate(run.settings.warehouse.landing, source.name, pulled.objects)
                outcome.mended = load(run, source, mending, gone=gone)
            error = error or outcome.error
    except BaseException as raised:
        ops.finish_run(run.con, mending, status="failed", error=str(raised) or type(raised).__name__)
        raise
    ops.finish_run(run.con, mending, status="failed" if error else "done", error=error, detail={"mends": run.run_id})


def _too_many_gone(outcome: SourceOutcome) -> str:
    from flows.settings import CRM_NAMES

    found = outcome.found
    assert found is not None  # noqa: S101 - only what was compared is mended
    lost = {
        "salesforce": 'the integration user may have lost "View All" on opportunities, or a sharing rule',
        "hubspot": "the token may have lost sight of them",
    }[outcome.crm]
    return (
        f"{found.kinds['gone']:,} of {found.warehouse_deals:,} live deals are gone in {CRM_NAMES[outcome.crm]} at once, and they stay live here: "
        f"{lost}. Check that; if they are really deleted: plumbline reconcile {outcome.source} --accept-gone."
    )


def _conclude(run: Run, source: SourceSettings, outcome: SourceOutcome, most: int | None) -> None:
    """What is kept of a source's comparison, read back; and what it cost."""
    from warehouse import ops, reconcile

    if outcome.found:
        names = {"run_id": run.run_id, "source": source.name}
        outcome.deals = reconcile.deals(run.con, **names, limit=most)
        outcome.totals = reconcile.totals(run.con, **names)
        outcome.pending = reconcile.pending(run.con, **names)
    outcome.calls = run.budget(source).total
    usage = run.budget(source).usage()
    ops.record_source(run.con, run.run_id, command=run.command, source=source.name, now=run.now, error=outcome.error, **usage)


def _failed(run: Run, outcome: SourceOutcome, result: Pull | BaseException) -> bool:
    """Note a CRM's failure; raise what is none."""
    if not isinstance(result, BaseException):
        return False
    if exit_code(result) != CRM_FAILED:
        raise result
    outcome.error = run.error = str(result)
    return True


# ---- steps --------------------------------------------------------------------------------------------------------------------


@step("sweep")
def sweep(run: Run, source: SourceSettings) -> Pull:
    """Land a listing of the source's live deals."""
    from flows.settings import CRM_NAMES

    run.say(f"{source.name}: listing the live deals of {CRM_NAMES[source.crm]} …")
    connector = import_module(f"connectors.{source.crm}")
    pulled: Pull = connector.sweep(source, run_id=run.run_id, landing=_place(run, "sweep"), budget=run.budget(source), progress=run.say)
    return pulled


@step("compare")
def compare(run: Run, source: SourceSettings) -> Comparison:
    """Compare the landed listing with the warehouse; the differences are kept in ops.reconciliation."""
    from warehouse.reconcile import compare as compare_deals

    return compare_deals(run.con, _place(run, "sweep") / source.name / run.run_id, run_id=run.run_id, now=run.now)


@step("fetch")
def fetch(run: Run, source: SourceSettings, mending: str, ids: Path) -> Pull:
    """Land the deals that differ as the CRM has them now."""
    connector = import_module(f"connectors.{source.crm}")
    pulled: Pull = connector.fetch(
        source, run_id=mending, landing=_place(run, "fetch"), ids=ids, budget=run.budget(source), progress=run.say
    )
    return pulled


@step("mend")
def load(run: Run, source: SourceSettings, mending: str, *, gone: bool) -> int:
    """Load what was fetched, in one transaction; returns how many deals agree now."""
    from warehouse.load import load as load_pull
    from warehouse.reconcile import check_mended

    directory = _place(run, "fetch") / source.name / mending
    load_pull(
        run.con,
        directory,
        now=run.now,
        business=run.settings.business.model_dump(),
        stages=source.stages,
        fields=source.fields,
        integration_users=getattr(source, "integration_user_ids", ()),
        mend=True,
    )
    return check_mended(run.con, directory, run_id=run.run_id, gone=gone)


def _place(run: Run, kind: str) -> Path:
    return run.settings.warehouse.landing / PLACE / kind


def _clear(run: Run) -> None:
    """Nothing of a comparison is kept on disk: it can be asked again, and what it found is in the warehouse."""
    shutil.rmtree(run.settings.warehouse.landing / PLACE, ignore_errors=True)


# ---- words --------------------------------------------------------------------------------------------------------------------


def _lines(outcome: SourceOutcome) -> list[str]:
    from flows.settings import CRM_NAMES

    found, crm = outcome.found, CRM_NAMES[outcome.crm]
    said = [f"Failed: {outcome.error.splitlines()[0]}"] if outcome.error else []
    if found is None:
        return said
    calls = f"{outcome.calls:,} API calls"
    if not found.deals:
        sums = [_money(a["crm_amount"], a["currency"]) for a in found.amounts]
        together = " and ".join(filter(None, (", ".join(sums[:-1]), *sums[-1:]))) or "no amounts"
        if found.whole:
            said.append(f"{outcome.source}: {_deals(found.crm_deals)} on both sides, {together}; no difference; {calls}")
        return said
    kinds = ", ".join(f"{n:,} {WORDS[kind].format(crm=crm)}" for kind, n in found.kinds.items() if n)
    later = f", {outcome.pending:,} of them changed in {crm} after the last sync" if outcome.pending else ""
    mended = "all mended" if outcome.mended == found.deals else f"{outcome.mended:,} mended" if outcome.mended else "none mended"
    said.append(
        f"{outcome.source}: {_deals(found.crm_deals)} in {crm}, {_deals(found.warehouse_deals)} here; different: {kinds}{later}; "
        f"{mended}; {calls}"
    )
    if outcome.held:
        said.append(f"  Not mended: {outcome.held}")
    for total in outcome.totals:
        place = " · ".join(str(total[key]) for key in ("pipeline", "stage", "currency"))
        theirs, ours = (
            f"{_deals(total[f'{side}_deals'])}, {_money(total[f'{side}_amount'], total['currency'])}" for side in ("crm", "warehouse")
        )
        said.append(f"  {place}: {theirs} in {crm}; {ours} here")
    for deal in outcome.deals[:SHOWN]:
        said.append(f"  {deal['opportunity_key']} {WORDS[deal['kind']].format(crm=crm)}: {_deal(deal)}")
    if found.deals > SHOWN:
        said.append(f"  … and {_deals(found.deals - SHOWN)} more: `--json` and ops.reconciliation have all.")
    return said


def _deal(deal: dict[str, Any]) -> str:
    if deal["fields"]:
        return ", ".join(f"{f['field']} {f['crm_value'] or 'nothing'}, here {f['warehouse_value'] or 'nothing'}" for f in deal["fields"])
    amount = deal["crm_amount"] if deal["kind"] != "gone" else deal["warehouse_amount"]
    return f"{deal['pipeline']} · {deal['stage']}, {_money(amount, deal['currency'])}"


def _deals(count: int) -> str:
    return f"{count:,} deal" + ("" if count == 1 else "s")


def _money(amount: Decimal | None, currency: str | None) -> str:
    return "no amount" if amount is None else f"{amount:,.2f} {currency or ''}".strip()
