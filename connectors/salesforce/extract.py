"""pull(): land an org, object by object, by the cheapest of its APIs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from connectors.landing import Landing, Manifest, Pull
from connectors.limits import Budget
from connectors.salesforce import bulk, deletions, org, processes, refresh, rest
from connectors.salesforce.auth import ROTATES
from connectors.salesforce.client import ORG, Client, Refused
from connectors.salesforce.landed import Landed
from connectors.salesforce.objects import LOGGED, OBJECTS, OPPORTUNITY, OPPORTUNITY_STAGE, ORGANIZATION, STAGES_OF_TYPES, SObject
from connectors.salesforce.schema import GONE_FIELD, URL_LIMIT, Selection, select
from connectors.salesforce.settings import SalesforceSettings

Say = Callable[[str], None]

BULK_FROM = 10_000  # records: from here on a job (about ten calls, a few seconds) beats pages (a call for each 2,000)
BULK_CALLS = 12  # what a small bulk job costs: creating, polling, pages, deleting
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

    run = _Run(settings, client, target, {} if full else since, fields or {}, say)
    try:
        client.connect()
        manifests = run.land_all()
        about = org.describe(client, target.directory, manifests)
    finally:
        client.close()
    result = Pull(
        source=settings.name,
        crm=settings.crm,
        run_id=run_id,
        full=full,
        objects=list(manifests),
        org=about,
        calls=client.budget.total - spent,
        daily_used=client.budget.daily_used,
        daily_limit=client.budget.daily_limit,
        server_time=client.server_time,
    )
    target.finish(result)
    return result


@dataclass
class _Run:
    """One pull while it goes on."""

    settings: SalesforceSettings
    client: Client
    landing: Landing
    since: Mapping[str, datetime]
    fields: Mapping[str, Mapping[str, str]]
    say: Say
    read: dict[str, tuple[Selection, datetime | None]] = field(default_factory=dict)  # what was asked for in the end, and when

    def land_all(self) -> dict[str, Manifest]:
        manifests: dict[str, Manifest] = {}
        for spec in OBJECTS:
            manifests[spec.name] = records = self.land(spec)
            for more in self.land_beside(spec, records):
                manifests[more.object] = more
            if spec is OPPORTUNITY_STAGE:
                manifests[STAGES_OF_TYPES] = processes.land_stages(self, manifests)
        return manifests

    def land_beside(self, spec: SObject, records: Manifest) -> Iterator[Manifest]:
        """What belongs to an object that was just read: what went, and what moved without a stamp."""
        selection, began = self.read.get(spec.name, (None, None))
        if spec in LOGGED:
            log = deletions.land_log(self, spec, records, began)
            yield log
            if log.notice == deletions.GAP and selection:
                yield self.land(*deletions.listing(selection))
        if spec is OPPORTUNITY and selection and records.mode == "incremental":
            partial = refresh.partial(selection, self.fields.get(spec.name), self.settings.fields.values())
            if partial:
                yield self.land(partial.spec, partial)

    def land(self, spec: SObject, selection: Selection | None = None) -> Manifest:
        """One object: described, read, its manifest written. selection: what to read of it, where that is known already."""
        client = self.client
        before = client.budget.calls[spec.name]
        self._learn_limit(spec)
        landed = Landed(self.landing.object_directory(spec.name))
        landed.clear()
        committed = self.since.get(spec.name) if spec.cursor else None
        manifest = Manifest(self.settings.name, self.settings.crm, spec.name, spec.key, "full" if committed is None else "incremental")
        try:
            selection = selection or select(client, spec, self.settings.fields.values() if spec is OPPORTUNITY else ())
            started = client.server_time  # by the server, and before the query: what comes later is not promised
            lower = committed - timedelta(minutes=self.settings.overlap_minutes) if committed and selection.cursor else None
            if spec is not OPPORTUNITY and refresh.unknown(selection.fields, self.fields.get(spec.name)):
                lower = None  # what these fields held before we saw them has stamps of long ago
            if lower is None:
                manifest.mode, committed = "full", None
            selection = self._read(selection, lower, landed)
            self.read[spec.name] = selection, started
            if selection.where not in ("", spec.where):
                manifest.mode = "incremental"  # some of the records were asked for, as in a refresh of open deals
        except Refused as refused:
            return self._refused(spec, manifest, landed, refused, before)
        manifest.cursor, manifest.since = selection.cursor, lower
        manifest.complete = manifest.mode == "full" and landed.whole
        manifest.watermark = watermark(started, landed.greatest, committed) if selection.cursor else None
        manifest.files, manifest.fields = landed.files, list(selection.fields)
        if spec is ORGANIZATION and client.tokens.rotates:
            landed.notices.append(ROTATES)
        manifest.notice = "; ".join(filter(None, (selection.notice(), *landed.notices))) or None
        return self.finish(manifest, before)

    def finish(self, manifest: Manifest, before: int) -> Manifest:
        manifest.calls = self.client.budget.calls[manifest.object] - before
        self.landing.finish_object(manifest)
        self.say(f"{manifest.object}: {manifest.rows:,} records" + (f" ({manifest.notice})" if manifest.notice else ""))
        return manifest

    def _refused(self, spec: SObject, manifest: Manifest, landed: Landed, refused: Refused, before: int) -> Manifest:
        """An object that this org or user does not have: the end for deals, a notice for what is around them."""
        if spec.required and refused.code.startswith("HTTP_"):
            raise self.client.not_json(spec.name)
        if spec.required:
            hidden = refused.status in (403, 404) or refused.code in HIDDEN
            raise self.client.permission(spec.name, refused.code) if hidden else self.client.protocol(spec.name, refused)
        landed.clear()
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
        for _ in range(len(selection.fields)):
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
        too_long = len(selection.url(self.client, lower)) > URL_LIMIT
        first_bulk = selection.spec.bulk and (self.settings.api == "bulk" or too_long)
        if first_bulk and self._bulk(selection, lower, landed):
            return selection
        if too_long:
            selection = selection.short(self.client, lower)
        may_bulk = self.settings.api == "auto" and selection.spec.bulk and not first_bulk
        try:
            rest.query(self.client, selection, lower, landed, lambda total: not (may_bulk and self._pays(total)))
        except rest.TooMany as many:
            self.say(f"{selection.spec.name}: {many.total} records, by Bulk API")
            if not self._bulk(selection, lower, landed):
                rest.query(self.client, selection, lower, landed, lambda _: True)
        except Refused as refused:
            heavy = refused.status in (414, 431) or refused.code in ("QUERY_TIMEOUT", "URI_TOO_LONG", "QUERY_TOO_COMPLICATED")
            if not (heavy and selection.spec.bulk and not first_bulk and self._bulk(selection, lower, landed)):
                raise
        return selection

    def _pays(self, total: int) -> bool:
        """Whether a bulk job is the better way for so many records: they are many, or pages would eat the rest of the budget."""
        pages, left = total // rest.PAGE + 1, self.client.budget.remaining
        return total > BULK_FROM or (left is not None and pages > BULK_CALLS and pages * 4 > left)

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
                self.say(f"{name}: the bulk job failed: {failed}")
        landed.clear()
        return False


def watermark(started: datetime | None, greatest: datetime | None, committed: datetime | None) -> datetime | None:
    """Up to where everything has been landed: min(server's clock when the query began, greatest cursor seen), never back.

    The server's clock alone would lie when it runs ahead of the records' stamps, the greatest cursor alone when records with
    older stamps are committed later; the overlap of the next pull covers what was in flight."""
    reached = max((stamp for stamp in (greatest, committed) if stamp is not None), default=None)
    if reached is None or started is None:
        return committed
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
