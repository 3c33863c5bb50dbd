"""pull(): land an org, object by object, by the cheapest of its APIs.

The order is such that a run of few calls always gets on: first what the last one did not come to because it had to stop, then what
every pull reads, object by object; what an earlier run had begun is brought up to date at the end. An object is landed or it is not:
what stops in the middle stays on disk with its journal for the next run (connectors/salesforce/resume.py), and is not loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from connectors.errors import CrmQuotaError
from connectors.landing import Landing, Manifest, Pull
from connectors.limits import KEPT, Budget
from connectors.salesforce import bulk, deletions, org, processes, refresh, rest
from connectors.salesforce.auth import ROTATES
from connectors.salesforce.client import ORG, Client, Refused
from connectors.salesforce.landed import Landed, Reading
from connectors.salesforce.objects import (
    LOGGED,
    OBJECTS,
    OPPORTUNITY,
    OPPORTUNITY_FIELDS,
    OPPORTUNITY_STAGE,
    ORGANIZATION,
    PROCESS_OBJECTS,
    STAGES_OF_TYPES,
    SObject,
)
from connectors.salesforce.resume import KEEP, Earlier, asked
from connectors.salesforce.schema import GONE_FIELD, URL_LIMIT, Selection, select
from connectors.salesforce.settings import SalesforceSettings

Say = Callable[[str], None]

PAGE_BULK = 50_000  # records of a page of a job's result, about
BULK_CALLS = 9  # what a job costs beside its pages: creating, some six looks, a list of five pages, deleting
HIDDEN = frozenset({"INVALID_TYPE", "NOT_FOUND", "INSUFFICIENT_ACCESS", "NOT_QUERYABLE", "NO_FIELDS", "INVALID_TYPE_FOR_OPERATION"})


def pull(
    settings: SalesforceSettings,
    *,
    run_id: str,
    landing: Path,
    since: Mapping[str, datetime],
    full: bool = False,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    budget: Budget | None = None,
    progress: Say | None = None,
    client: Client | None = None,
) -> Pull:
    """See connectors.salesforce.pull. client: one of the caller's making, with retries of its own (tests, diagnosis)."""
    client = client or Client(settings, budget=budget)
    spent = client.budget.total
    target = Landing(landing, settings.name, run_id)

    def say(line: str) -> None:
        if progress:
            progress(f"{settings.name}: {line}")  # sources are pulled at once: each line says whose it is

    stopped: CrmQuotaError | None = None
    try:
        client.connect()
        run = _Run(settings, client, target, since, fields or {}, say, committed=since, earlier=Earlier(client, target, say))
        first, run.since = _what_first(run, full=full)
        try:
            run.land_all(first)
        except CrmQuotaError as error:
            stopped = error.with_more(KEPT.format(run="sync --full" if full else "run"))
            run.stop()
            if not run.manifests:
                raise stopped from None
        about = org.describe(client, target.directory, run.manifests)
        if not stopped:
            run.close()
    finally:
        client.close()
    result = Pull(
        source=settings.name,
        crm=settings.crm,
        run_id=run_id,
        full=full,
        objects=list(run.manifests),
        org=about,
        calls=client.budget.total - spent,
        daily_used=client.budget.daily_used,
        daily_limit=client.budget.daily_limit,
        server_time=client.server_time,
        stopped=str(stopped) if stopped else None,
        unread=run.unread,
    )
    target.finish(result)
    return result


def _what_first(run: _Run, *, full: bool) -> tuple[list[str], Mapping[str, datetime]]:
    """What a stopped pull before this one did not come to, and the watermarks to read from.

    full: everything is read whole. But where a full pull had to stop, the next one goes on with it: what that one read whole and the
    warehouse has loaded is read from its watermark on.
    """
    now = run.client.server_time
    told = run.landing.unread(full=full)
    if told and now and told[1] and now - told[1] > KEEP:
        told = None
    first = told[0] if told else []
    if not full:
        return first, run.committed
    if not told:
        return [], {}
    whole = set(first) | (run.earlier.whole_anew() if run.earlier else set())
    return first, {name: mark for name, mark in run.committed.items() if not {name, name.split(".")[0]} & whole}


@dataclass
class _Run:
    """One pull while it goes on.

    since: watermarks to read from; committed: those that the warehouse has, also where everything is read anew. earlier: what earlier
    runs left behind; None for a pull that nobody goes on with. read: what was asked for in the end, and since when what is landed of
    it has been read. adopted: objects that an earlier run began. manifests: what is landed, in the order in which it was.
    """

    settings: SalesforceSettings
    client: Client
    landing: Landing
    since: Mapping[str, datetime]
    fields: Mapping[str, Mapping[str, str]]
    say: Say
    committed: Mapping[str, datetime] = field(default_factory=dict)
    earlier: Earlier | None = None
    read: dict[str, tuple[Selection, datetime | None]] = field(default_factory=dict)
    adopted: set[str] = field(default_factory=set)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    _stale: dict[str, _Stale] = field(default_factory=dict)

    # What is landed, step by step

    def land_all(self, first: Sequence[str] = ()) -> None:
        """Everything, `first` before the rest. Raises CrmQuotaError: then `unread` names what is still to come."""
        steps: dict[str, Callable[[], object]] = {}
        for spec in OBJECTS:
            steps[spec.name] = partial(self.land, spec)
            if spec is OPPORTUNITY_STAGE:
                steps[STAGES_OF_TYPES] = self.land_stages
        steps |= {f"{spec.name}.deleted": partial(self.land_log, spec) for spec in LOGGED if spec in OBJECTS}
        if OPPORTUNITY in OBJECTS:
            steps[OPPORTUNITY_FIELDS.name] = self.land_partial
        self.unread = [*(name for name in first if name in steps), *(name for name in steps if name not in first)]
        begun = self.unread[0]
        try:
            while self.unread:
                if self.unread[0] not in self.manifests:
                    steps[self.unread[0]]()
                self.unread.pop(0)
            while self._stale:
                self.top_up(next(iter(self._stale)))
        except CrmQuotaError:
            if self.unread[:1] == [begun] and "." in begun:  # nobody goes on with such, and it was too long for a run: the others first
                self.unread.append(self.unread.pop(0))
            raise

    def stop(self) -> None:
        """The end of a pull that must stop: what is landed is made such that nothing of the rest is forgotten."""
        for spec in LOGGED:
            records, log = self.manifests.get(spec.name), f"{spec.name}.deleted"
            if records and log not in self.manifests:
                deletions.note_log(self, spec, records)
        self._hold_back()

    def _hold_back(self) -> None:
        """Deals of which the warehouse has none yet wait for what names their pipelines and stages: it would write down that they
        had been somewhere else before. They stay on disk, and the next run reads first what they wait for."""
        needed = [spec.name for spec in PROCESS_OBJECTS if spec in OBJECTS]
        lacking = [name for name in needed if name not in self.manifests and name not in self.fields]
        if not lacking or OPPORTUNITY.name in self.committed or OPPORTUNITY.name not in self.manifests:
            return
        held = [name for name in self.manifests if name.split(".")[0] == OPPORTUNITY.name]
        for name in held:
            self.landing.withdraw(name)
            del self.manifests[name]
        first = [*lacking, OPPORTUNITY.name]
        self.unread = [*first, *(name for name in self.unread if name not in first)]

    def close(self) -> None:
        """The end of a pull that read everything."""
        if self.earlier:
            self.earlier.close()

    def land_log(self, spec: SObject) -> None:
        """What went of an object, and what there is where the org's log does not tell. After the object itself is brought up to date:
        so whatever was read of it is older than what the log and the listing say."""
        self._landed(spec)
        self.top_up(spec.name)
        records = self.manifests[spec.name]
        selection, began = self.read.get(spec.name, (None, None))
        log = deletions.land_log(self, spec, records, began)
        if log.notice != deletions.GAP or not selection:
            return
        try:
            self.land(*deletions.listing(selection))
        except CrmQuotaError:
            del self.manifests[log.object]  # it promises more than was read
            raise

    def land_partial(self) -> None:
        """What of the deals moves without a stamp. After the deals themselves are brought up to date: it is loaded over them."""
        records, known = self._landed(OPPORTUNITY), self.fields.get(OPPORTUNITY.name)
        self.top_up(OPPORTUNITY.name)
        deals, _ = self.read.get(OPPORTUNITY.name, (None, None))
        if not deals:
            return
        adopted = OPPORTUNITY.name in self.adopted
        if adopted:  # why a field was left away by the earlier run is not known any more
            deals = replace(deals, cut=deals.dropped)
        whole = records.mode == "full" and not adopted
        parts = refresh.beside(deals, known, self.settings.fields.values(), whole=whole, since=records.since)
        for number, part in enumerate(parts, 1):
            spec = replace(part.spec, name=f"{part.spec.name}.{number}") if number > 1 else part.spec
            self.land(spec, replace(part, spec=spec))
            parts += refresh.rest_of(self.read[spec.name][0]) if spec.name in self.read else []

    def land_stages(self) -> None:
        """The stages of each record type."""
        for spec in PROCESS_OBJECTS:
            if spec in OBJECTS:
                self._landed(spec)
        processes.land_stages(self, self.manifests)

    def _landed(self, spec: SObject) -> Manifest:
        """An object's manifest; read now where it was not yet."""
        return self.manifests.get(spec.name) or self.land(spec)

    # One object

    def land(self, spec: SObject, selection: Selection | None = None) -> Manifest:
        """One object: described, read, its manifest written. selection: what to read of it, where that is known already."""
        before = self.client.budget.calls[spec.name]
        self._learn_limit(spec)
        base = self.committed.get(spec.name) if spec.cursor else None
        since = self.since.get(spec.name) if spec.cursor else None
        landed: Landed | None = None
        try:
            selection = selection or select(self.client, spec, self.settings.fields.values() if spec is OPPORTUNITY else ())
            lower = self._lower(since) if selection.cursor else None
            if spec is not OPPORTUNITY and refresh.unknown(selection.fields, self.fields.get(spec.name)):
                lower = None  # what these fields held before we saw them has stamps of long ago
            landed = self._begun(spec, selection, lower, base)
            used = self._read_all(asked(selection, landed.reading), landed)
            if landed.adopted and landed.whole and base:  # others may have loaded the object since
                used = self._read_on(selection, landed)
        except Refused as refused:
            landed = landed or self._new(spec, whole=True, base=base)
            return self._refused(spec, landed, refused, before)
        manifest = self._describe(spec, landed, used, since if lower else None, before)
        if landed.adopted:
            self.adopted.add(spec.name)
            if landed.reading.run_id != self.landing.run_id:
                self._stale[spec.name] = _Stale(spec, selection, landed, since if lower else None)
        return manifest

    def top_up(self, name: str) -> None:
        """Bring an object that an earlier run began up to date: what changed since then is landed beside it."""
        stale = self._stale.get(name)
        if not stale:
            return
        before = self.client.budget.calls[name]
        try:
            used = self._read_on(stale.selection, stale.landed)
        except Refused as refused:
            self._refused(stale.spec, stale.landed, refused, before)
        else:
            self._describe(stale.spec, stale.landed, used, stale.since, before)
        del self._stale[name]

    def _lower(self, mark: datetime | None) -> datetime | None:
        """From when on to read, to miss nothing that was in flight at `mark`."""
        return mark - timedelta(minutes=self.settings.overlap_minutes) if mark else None

    def _begun(self, spec: SObject, selection: Selection, lower: datetime | None, base: datetime | None) -> Landed:
        """What is landed of the object so far: what an earlier run left of just this reading, or nothing."""
        own = not spec.of  # what is read beside an object is of the moment
        if own and self.earlier and (landed := self.earlier.claim(spec, selection, lower, base)):
            return landed
        landed = self._new(spec, whole=lower is None, base=base)
        landed.begin(self._reading(selection, lower))
        return landed

    def _new(self, spec: SObject, *, whole: bool, base: datetime | None) -> Landed:
        return Landed(self.landing.object_directory(spec.name), keep=self.earlier is not None, base=base, whole=whole)

    def _reading(self, selection: Selection, lower: datetime | None) -> Reading:
        # started: by the server, and before the query: what comes later is not promised
        client = self.client
        return Reading(
            run_id=self.landing.run_id,
            wanted=selection.soql(lower),
            version=client.version,
            since=lower,
            started=client.server_time,
            operation=selection.operation,
        )

    def _read_on(self, selection: Selection, landed: Landed) -> Selection:
        """One more reading, of what changed since the last; of everything, where there is no cursor to tell."""
        reached = watermark(landed.reading.started, landed.greatest, None if landed.whole else landed.base)
        lower = self._lower(reached) if selection.cursor else None
        landed.begin(self._reading(selection, landed.reading.since if landed.short else lower))
        return self._read_all(selection, landed)

    def _read_all(self, selection: Selection, landed: Landed) -> Selection:
        """What is still to come of the present reading."""
        used = self._read(selection, landed.reading.since, landed)
        if landed.reading.since is None and len(landed.readings) > 1:
            landed.only_last()
        return used

    def _describe(self, spec: SObject, landed: Landed, selection: Selection, since: datetime | None, before: int) -> Manifest:
        """The manifest of what is landed. since: the watermark that it was read from; None when it was read whole."""
        manifest = Manifest(self.settings.name, self.settings.crm, spec.name, spec.key, "full" if since is None else "incremental")
        self.read[spec.name] = selection, landed.readings[0].started
        if selection.only or selection.where not in ("", spec.where):
            manifest.mode = "incremental"  # some of the records were asked for, as in a refresh of open deals
        manifest.cursor, manifest.since, manifest.base = selection.cursor, landed.readings[0].since, landed.base
        manifest.complete = manifest.mode == "full" and not landed.short
        if selection.cursor:
            manifest.watermark = since if landed.short else watermark(landed.reading.started, landed.greatest, since)
        manifest.files, manifest.fields = landed.files, list(selection.fields)
        notices = [ROTATES] if spec is ORGANIZATION and self.client.tokens.rotates else []
        manifest.notice = "; ".join(filter(None, (selection.notice(), *landed.notices, *notices))) or None
        return self.finish(manifest, before)

    def finish(self, manifest: Manifest, before: int) -> Manifest:
        """Write the manifest. before: calls for the object until its reading began."""
        known = self.manifests.get(manifest.object)
        manifest.calls = self.client.budget.calls[manifest.object] - before + (known.calls if known else 0)
        self.landing.finish_object(manifest)
        self.manifests[manifest.object] = manifest
        self.say(f"{manifest.object}: {manifest.rows:,} records" + (f" ({manifest.notice})" if manifest.notice else ""))
        return manifest

    def _refused(self, spec: SObject, landed: Landed, refused: Refused, before: int) -> Manifest:
        """An object that this org or user does not have: the end for deals, a notice for what is around them."""
        if spec.required and refused.code.startswith("HTTP_"):
            raise self.client.not_json(spec.name)
        if spec.required:
            hidden = refused.status in (403, 404) or refused.code in HIDDEN
            raise self.client.permission(spec.name, refused.code) if hidden else self.client.protocol(spec.name, refused)
        landed.reset()
        manifest = Manifest(self.settings.name, self.settings.crm, spec.name, spec.key, "incremental" if self.since.get(spec.name) else "full")
        manifest.watermark = self.since.get(spec.name)
        manifest.notice = f"not read: {spec.lacking} ({refused.code or refused.status})"
        return self.finish(manifest, before)

    def _learn_limit(self, spec: SObject) -> None:
        """Where answers carry no Sforce-Limit-Info, ask once for the day's limit; a server without /limits sets none."""
        budget = self.client.budget
        if budget.total == 0 or budget.daily_limit is not None or budget.calls[ORG]:
            return
        with contextlib.suppress(Refused, AttributeError, TypeError):
            daily = (self.client.call(ORG, "limits/") or {}).get("DailyApiRequests") or {}
            if "Max" in daily and "Remaining" in daily:
                budget.observe(int(daily["Max"]) - int(daily["Remaining"]), int(daily["Max"]))

    # Which way

    def _read(self, selection: Selection, lower: datetime | None, landed: Landed) -> Selection:
        """Land the records of `selection`; gives what was asked for in the end, after refused parts were left away."""
        if landed.reading.done:
            return selection
        for _ in range(len(selection.fields)):
            landed.reading.asks(selection.operation, selection.dropped, filtered=selection.where == selection.spec.where)
            try:
                return self._choose(selection, lower, landed)
            except Refused as refused:
                # The describe has found the object, so what is absent is the resource queryAll.
                no_query_all = selection.operation == "queryAll" and refused.status in (404, 405, 501) and not landed.files
                simpler = selection.without_bin() if no_query_all else simplify(selection, refused)
                if simpler is None:
                    raise
                selection = simpler
        raise Refused(400, "NO_FIELDS", "")

    def _choose(self, selection: Selection, lower: datetime | None, landed: Landed) -> Selection:
        reading = landed.reading
        if reading.under_way and reading.job is None:
            rest.query(self.client, selection, lower, landed)
            return selection
        too_long = len(selection.url(self.client, lower)) > URL_LIMIT
        first_bulk = reading.job is not None or (selection.spec.bulk and (self.settings.api == "bulk" or too_long))
        if first_bulk and self._bulk(selection, lower, landed):
            return selection
        if too_long:
            selection = selection.short(self.client, lower)
            reading.asks(selection.operation, selection.dropped, filtered=selection.where == selection.spec.where)
        may_bulk = self.settings.api == "auto" and selection.spec.bulk and not first_bulk

        def by_pages(first: int, total: int) -> bool:
            return not may_bulk or not pays(first, total, self.client.budget.remaining)

        try:
            rest.query(self.client, selection, lower, landed, by_pages)
        except rest.TooMany as many:
            self.say(f"{selection.spec.name}: {many.total:,} records, by Bulk API")
            if not self._bulk(selection, lower, landed):
                rest.query(self.client, selection, lower, landed)
        except Refused as refused:
            heavy = refused.status in (414, 431) or refused.code in ("QUERY_TIMEOUT", "URI_TOO_LONG", "QUERY_TOO_COMPLICATED")
            if not (heavy and selection.spec.bulk and not first_bulk and self._bulk(selection, lower, landed)):
                raise
        return selection

    def _bulk(self, selection: Selection, lower: datetime | None, landed: Landed) -> bool:
        """Try the Bulk API; False when the org refuses or fails it, so that REST must do. A field it does not know is Refused."""
        name = selection.spec.name
        for _ in range(2):  # a job may fail for reasons of the moment
            try:
                bulk.query(self.client, selection, lower, landed, self.say)
                return True
            except Refused as refused:
                if simplify(selection, refused) is not None:
                    raise
                self.say(f"{name}: the Bulk API refuses ({refused.code or refused.status}), reading by REST")
                break
            except bulk.JobFailed as failed:
                if GONE_FIELD.search(str(failed)):  # it went while the job was waiting
                    raise Refused(400, "INVALID_FIELD", str(failed)) from None
                self.say(f"{name}: the bulk job failed: {failed}")
        landed.clear()
        return False


@dataclass
class _Stale:
    """An object that an earlier run began and this one has not brought up to date yet. since: as in _Run._describe."""

    spec: SObject
    selection: Selection
    landed: Landed
    since: datetime | None


def pays(first: int, total: int, left: int | None) -> bool:
    """Whether a Bulk job is the better way to `total` records, of which the first REST page, already paid for, brought `first`.

    By calls: a page for each 2,000 records (fewer where they are wide: as many as the first one held) against what a job costs,
    some ten calls up to 50,000 records. So a job begins to pay at about 20,000. left: calls that this run still has, None when
    unknown: where the pages do not fit into them a job is begun, because its result waits for a week, a page only for two days.
    """
    pages = -(-(total - first) // first) if first else 0
    job = BULK_CALLS - (-total // PAGE_BULK)
    return pages >= job or (left is not None and pages > left)


def watermark(started: datetime | None, greatest: datetime | None, committed: datetime | None) -> datetime | None:
    """Up to where everything has been landed: min(server's clock when the query began, greatest cursor seen), never back.

    The server's clock alone would lie when it runs ahead of the records' stamps, the greatest cursor alone when records with older
    stamps are committed later; the overlap of the next pull covers what was in flight. A server that sends no Date header leaves
    the greatest cursor, which promises less: a record that was stamped before it and committed after the query began, more than an
    overlap later, is found by a full sync only."""
    reached = max((stamp for stamp in (greatest, committed) if stamp is not None), default=None)
    if reached is None or started is None:
        return reached
    return max(min(started, reached), committed) if committed else min(started, reached)


def simplify(selection: Selection, refused: Refused) -> Selection | None:
    """The selection without the part that a refusal names, or None when it names none that we can do without."""
    gone = GONE_FIELD.search(refused.message)
    if refused.code == "INVALID_FIELD" and gone:
        name = gone[1]
        if name in {f.name for f in selection.fields} and name not in (selection.spec.key, selection.cursor):
            return selection.without(name)
    if selection.where and refused.status == 400 and refused.code in ("INVALID_FIELD", "MALFORMED_QUERY", "INVALID_QUERY_FILTER_OPERATOR"):
        return selection.unfiltered()
    return None
