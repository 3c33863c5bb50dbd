"""What every flow works with: the settings, the instant, the open warehouse, and how to tell people what is happening."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectors.limits import Budget
    from flows.settings import Settings, SourceSettings
    from warehouse.business import Business
    from warehouse.connection import Warehouse

Say = Callable[[str], None]


@dataclass
class Run:
    """One run of one command. `now` is the run's present, in UTC: rules, snapshots and reports know no other clock."""

    settings: Settings
    now: datetime
    run_id: str
    command: str
    warehouse: Warehouse
    say: Say
    warn: Say
    detail: dict[str, Any] = field(default_factory=dict)  # what the command reports, kept with the record of the run
    budgets: dict[str, Budget] = field(default_factory=dict)  # by source: see budget()
    error: str | None = None  # set by a step that failed without stopping the run: the run then ends as failed

    @property
    def con(self) -> Any:
        return self.warehouse.con

    def budget(self, source: SourceSettings) -> Budget:
        """What this run may spend of the source's API calls: one for all that it does there, so that `quota_share` holds for a
        sync, a comparison and a write-back together."""
        from connectors.limits import Budget

        return self.budgets.setdefault(source.name, Budget(source.name, source.quota_share))

    @property
    def business(self) -> Business:
        """Zone, currency and fiscal year: as configured, else as the CRMs' organisations say."""
        from warehouse.business import business_of

        return business_of(self.con, **self.settings.business.model_dump())

    @property
    def business_date(self) -> date:
        """The day that rules call today."""
        return self.business.date_of(self.now)


def _silent(_: str) -> None:
    return None


def instant(text: str | None) -> datetime:
    """`--now` as an instant; the wall clock is read here, once, when it is not given.

    Raises ValueError for a text without a zone or that is no instant.
    """
    if text is None:
        return datetime.now(UTC).replace(microsecond=0)
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-03-31T02:00:00+02:00 or 2026-03-31T00:00:00Z")
    return moment.astimezone(UTC)


@contextmanager
def open_run(command: str, settings: Settings, now: datetime, *, say: Say | None = None, warn: Say | None = None) -> Iterator[Run]:
    """Open the warehouse for writing and record the run in `ops`, whichever way it ends."""
    from flows.steps import also_recorded
    from warehouse import ops
    from warehouse.connection import open_warehouse

    file = settings.warehouse
    with open_warehouse(file.path, memory_limit=file.memory_limit, threads=file.threads, command=command) as warehouse:
        run_id = ops.start_run(warehouse.con, command=command, now=now)
        run = Run(settings, now, run_id, command, warehouse, also_recorded(say or _silent), also_recorded(warn or _silent))
        try:
            _take_plans(run)
            yield run
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
            ops.finish_run(warehouse.con, run_id, status=status, error=str(error) or type(error).__name__, detail=run.detail)
            raise
        ops.finish_run(warehouse.con, run_id, status="failed" if run.error else "done", error=run.error, detail=run.detail)


def _take_plans(run: Run) -> None:
    """Targets and fiscal periods as the configured files have them now. A mistake in one stops no run: it is said; what was taken before holds."""
    from warehouse import plan

    for kind, file in ((plan.TARGETS, run.settings.metrics.targets), (plan.PERIODS, run.settings.metrics.periods)):
        if file is not None:
            try:
                plan.take(run.con, kind, file, run.settings.sources)
            except plan.PlanError as error:
                run.warn(str(error))
