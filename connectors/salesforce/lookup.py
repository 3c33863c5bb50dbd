"""The live deals as an org lists them, to be compared with a warehouse; and single deals, read again by their ids.

Both write an ordinary pull. The listing is that of a pull whose log of deletions has a gap (deletions.listing): few columns of every
deal, a call for each 2,000, or a Bulk job of some twelve calls above 10,000.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson

from connectors.landing import LandedFile, Landing, Manifest, Pull
from connectors.limits import Budget
from connectors.salesforce.client import Client, Refused
from connectors.salesforce.deletions import listing
from connectors.salesforce.extract import BULK_CALLS, HIDDEN, _Run, simplify
from connectors.salesforce.landed import Landed
from connectors.salesforce.objects import (
    ACCOUNT,
    EVENT,
    OPPORTUNITY,
    OPPORTUNITY_CONTACT_ROLE,
    OPPORTUNITY_FIELD_HISTORY,
    OPPORTUNITY_HISTORY,
    TASK,
    SObject,
)
from connectors.salesforce.schema import URL_LIMIT, Selection, select
from connectors.salesforce.settings import SalesforceSettings

Say = Callable[[str], None]

ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")  # whatever else stands in an id's place, no org knows, and no query may hold
IN_URL = len("%27%27,+") + 18  # characters that an id takes in an address, and in a query
IN_QUERY = len("'', ") + 18
QUERY_LIMIT = 100_000  # characters of a query (SOQL and SOSL Reference); only a job has room for so many
FEWEST = 20  # ids that an address must have room for beside the names of the fields; else the query goes by Bulk API

# What belongs to deals, and how it is found. What a late transaction wrote besides the deal came late too.
BELONGING: tuple[tuple[SObject, str], ...] = (
    (OPPORTUNITY_HISTORY, "OpportunityId IN ({ids})"),
    (OPPORTUNITY_FIELD_HISTORY, "OpportunityId IN ({ids})"),
    (OPPORTUNITY_CONTACT_ROLE, "OpportunityId IN ({ids})"),
    (TASK, "WhatId IN ({ids})"),
    (EVENT, "WhatId IN ({ids})"),
    (ACCOUNT, "Id IN (SELECT AccountId FROM Opportunity WHERE Id IN ({ids}))"),
)


def sweep(
    settings: SalesforceSettings,
    *,
    run_id: str,
    landing: Path,
    budget: Budget | None = None,
    progress: Say | None = None,
    client: Client | None = None,
) -> Pull:
    """Land `Opportunity.ids` under ``landing/<source>/<run_id>/``: every live deal with what objects.LISTED names, as far as the org
    describes it. A listing that is not whole says so (`complete`).

    budget: what this run may still spend of the org's calls; None: one of its own. client: one of the caller's making.
    Raises CrmError; then there is no pull.json.
    """
    with _looking(settings, run_id, landing, budget, progress, client) as run:
        spent = run.client.budget.total
        return _finished(run, run_id, [run.land(*listing(_deals(run)))], spent, full=True)


def fetch(
    settings: SalesforceSettings,
    *,
    run_id: str,
    landing: Path,
    ids: Path,
    budget: Budget | None = None,
    progress: Say | None = None,
    client: Client | None = None,
) -> Pull:
    """Land the deals whose ids stand in the file `ids`, one a line, under ``landing/<source>/<run_id>/``, with what belongs to them.

    `Opportunity` with every readable field, deleted ones marked; `Opportunity.gone` ``{"id"}`` of those that the org does not know
    (any more); the objects of BELONGING as far as the user may read them. Raises CrmError; then there is no pull.json.
    """
    wanted = list(dict.fromkeys(ids.read_text(encoding="utf-8").split()))
    with _looking(settings, run_id, landing, budget, progress, client) as run:
        spent = run.client.budget.total
        possible = [key for key in wanted if ID.fullmatch(key)]
        try:
            manifests = [_pick(run, _deals(run), "Id IN ({ids})", possible)]
        except Refused as refused:
            raise _refusal(run, refused) from None
        known = set(_ids(run.landing.object_directory(OPPORTUNITY.name), manifests[0].files))
        manifests.append(_gone(run, [key for key in wanted if key not in known]))
        for spec, condition in BELONGING if known else ():
            try:
                manifests.append(_pick(run, select(run.client, spec), condition, sorted(known)))
            except Refused as refused:  # then a sync cannot read it either, and has said so
                run.say(f"{spec.name}: not read: {spec.lacking} ({refused.code or refused.status})")
        return _finished(run, run_id, manifests, spent, full=False)


@contextmanager
def _looking(
    settings: SalesforceSettings, run_id: str, landing: Path, budget: Budget | None, progress: Say | None, client: Client | None
) -> Iterator[_Run]:
    """A pull that reads no increments."""
    client = client or Client(settings, budget=budget)

    def say(line: str) -> None:
        if progress:
            progress(f"{settings.name}: {line}")

    run = _Run(settings, client, Landing(landing, settings.name, run_id), {}, {}, say)
    try:
        client.connect()
        yield run
    finally:
        client.close()


def _finished(run: _Run, run_id: str, manifests: Sequence[Manifest], spent: int, *, full: bool) -> Pull:
    budget = run.client.budget
    pulled = Pull(
        run.settings.name,
        run.settings.crm,
        run_id,
        full,
        objects=[manifest.object for manifest in manifests],
        calls=budget.total - spent,
        daily_used=budget.daily_used,
        daily_limit=budget.daily_limit,
        server_time=run.client.server_time,
    )
    run.landing.finish(pulled)
    return pulled


def _refusal(run: _Run, refused: Refused) -> Exception:
    """Deals that may not be read are the end."""
    hidden = refused.status in (403, 404) or refused.code in HIDDEN
    return run.client.permission(OPPORTUNITY.name, refused.code) if hidden else run.client.protocol(OPPORTUNITY.name, refused)


def _deals(run: _Run) -> Selection:
    try:
        return select(run.client, OPPORTUNITY, run.settings.fields.values())
    except Refused as refused:
        raise _refusal(run, refused) from None


def _pick(run: _Run, selection: Selection, condition: str, ids: Sequence[str]) -> Manifest:
    """Land the records of `selection` that `condition` finds for these deals, in as many queries as it takes: by REST as long as their
    addresses hold the ids, else by Bulk API."""
    spec, client = selection.spec, run.client
    before = client.budget.calls[spec.name]
    directory = run.landing.object_directory(spec.name)
    files: list[LandedFile] = []

    def of(keys: Sequence[str]) -> Selection:
        return replace(selection, where="", only=condition.format(ids=", ".join(f"'{key}'" for key in keys)))

    room = (URL_LIMIT - len(of(()).url(client, None))) // IN_URL
    by_job = spec.bulk and run.settings.api != "rest" and (room < FEWEST or len(ids) > room * BULK_CALLS)
    done = number = 0
    while done < len(ids):
        if not by_job and room < FEWEST:  # no other way than to leave fields away, as a pull of this org has to
            selection, room = of(["0" * 18] * FEWEST).short(client, None), FEWEST
        keys = ids[done : done + ((QUERY_LIMIT - len(of(()).soql(None))) // IN_QUERY if by_job else room)]
        part = Landed(directory / f"{number:03d}")
        part.directory.mkdir(exist_ok=True)
        try:
            if not by_job:
                selection = run._read(of(keys), None, part)
            elif not run._bulk(of(keys), None, part):
                by_job = False
                continue
        except Refused as refused:
            simpler = simplify(of(keys), refused)
            if simpler is None:
                raise
            selection = simpler
            continue
        files += [replace(file, name=f"{part.directory.name}/{file.name}") for file in part.files]
        done, number = done + len(keys), number + 1
    manifest = Manifest(run.settings.name, run.settings.crm, spec.name, spec.key, "incremental", files=files, fields=list(selection.fields))
    return run.finish(manifest, before)


def _gone(run: _Run, keys: Sequence[str]) -> Manifest:
    name = f"{OPPORTUNITY.name}.gone"
    landed = Landed(run.landing.object_directory(name))
    if keys:
        landed.write_array(orjson.dumps([{"id": key} for key in keys]), len(keys))
    manifest = Manifest(run.settings.name, run.settings.crm, name, "id", "incremental", files=landed.files)
    return run.finish(manifest, run.client.budget.calls[name])


def _ids(directory: Path, files: Sequence[LandedFile]) -> Iterator[str]:
    """The ids of landed records."""
    for file in files:
        path = directory / file.name
        if file.format == "csv":
            with path.open(encoding="utf-8-sig", newline="") as text:
                for record in csv.DictReader(text):
                    yield record["Id"]
        else:  # in JSON a quote inside a text is escaped, so that the marks stand for keys only
            for key in re.findall(rb'"Id"\s*:\s*"([A-Za-z0-9]+)"', path.read_bytes()):
                yield key.decode()
