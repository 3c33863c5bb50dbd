"""What went: the org's log of deletions, and a listing of what is there where the log has a gap.

The recycle bin (IsDeleted of queryAll) shows what was deleted until it is emptied; the log (getDeleted) names what was deleted for
good as well. Both reach back 15 days. A pull after a longer pause lists the ids of what is there: what is absent, went.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from connectors.landing import Manifest
from connectors.salesforce.client import Refused, soql_time
from connectors.salesforce.landed import Landed
from connectors.salesforce.objects import LISTED, OPPORTUNITY, SObject
from connectors.salesforce.schema import Selection
from connectors.salesforce.stamps import instant

if TYPE_CHECKING:
    from connectors.salesforce.extract import _Run

LOG_DAYS = 15  # SOAP API Developer Guide, getDeleted()
GAP = "the org's log of deletions does not reach back to the last sync: what is there was listed, and what is absent is gone"


def land_log(run: _Run, spec: SObject, records: Manifest, began: datetime | None) -> Manifest:
    """getDeleted of an object as `X.deleted`: ids that went since the last pull, those too that have left the recycle bin by now.

    Rows {id, deletedDate}; watermark is the instant up to which the org has told. records: the pull of the object itself, begun at
    `began`: only increments need the log, a complete listing shows what is absent; one that an earlier run had begun, as of then. The
    notice is GAP where the log does not reach back far enough; an org that refuses is noted too: what was deleted for good is then
    found by a full sync.
    """
    client, name = run.client, f"{spec.name}.deleted"
    before = client.budget.calls[name]
    committed = _told_until(run, spec, records)
    manifest = Manifest(run.settings.name, run.settings.crm, name, "id", "incremental", cursor="deletedDate")
    landed = Landed(run.landing.object_directory(name))
    landed.clear()
    end = client.server_time
    if (records.complete and spec.name not in run.adopted) or committed is None or end is None:
        manifest.watermark = began if records.fields else committed
        return run.finish(manifest, before)
    earliest = end - timedelta(days=LOG_DAYS) + timedelta(minutes=5)
    start = max(committed - timedelta(minutes=run.settings.overlap_minutes), earliest)
    start = min(start, end - timedelta(minutes=2))  # the org wants at least a minute between the two
    manifest.since = start
    try:
        url = f"{client.data}/sobjects/{spec.table}/deleted/?start={quote(soql_time(start))}&end={quote(soql_time(end))}"
        told = _read(run, name, url, landed)
    except Refused as refused:
        manifest.watermark = committed
        manifest.notice = f"the org does not tell what was deleted ({refused.code or refused.status}); a full sync finds it"
        return run.finish(manifest, before)
    manifest.files = landed.files
    covered = instant(str(told.get("latestDateCovered"))) or committed
    manifest.watermark = max(committed, min(end, covered))
    available = instant(str(told.get("earliestDateAvailable")))
    if committed < earliest or (available is not None and available >= committed):
        manifest.notice = GAP
    return run.finish(manifest, before)


def note_log(run: _Run, spec: SObject, records: Manifest) -> Manifest:
    """`X.deleted` of a pull that stopped before it could ask: the next one asks from where the log was read to."""
    name = f"{spec.name}.deleted"
    manifest = Manifest(run.settings.name, run.settings.crm, name, "id", "incremental", cursor="deletedDate")
    manifest.watermark = _told_until(run, spec, records)
    return run.finish(manifest, run.client.budget.calls[name])


def _told_until(run: _Run, spec: SObject, records: Manifest) -> datetime | None:
    """Up to when we know what went: as the log was read last, or from when on a complete listing shows what is there."""
    _, began = run.read.get(spec.name, (None, None))
    if records.complete and began:
        return began
    return run.committed.get(f"{spec.name}.deleted") or run.committed.get(spec.name)


def _read(run: _Run, name: str, url: str, landed: Landed) -> dict[str, Any]:
    body, _ = run.client.fetch(name, url)
    try:
        told = orjson.loads(body)
        records = told.pop("deletedRecords")
    except (orjson.JSONDecodeError, KeyError, AttributeError):
        raise run.client.not_json(name) from None
    if records:
        landed.write_array(orjson.dumps(records), len(records))
    return told


def listing(selection: Selection) -> tuple[SObject, Selection]:
    """What to read to know which records of an object are there: `X.ids`, their ids (of deals: what LISTED names besides).

    Asked of queryAll and for what is not deleted: a plain query leaves archived activities out.
    """
    spec = selection.spec
    wanted = {spec.key, *(LISTED if spec is OPPORTUNITY else ())}
    where = " AND ".join(filter(None, (spec.where, "IsDeleted = false")))
    ids = SObject(f"{spec.name}.ids", of=spec.name, deletions=spec.deletions, where=where, bulk=spec.bulk, key=spec.key)
    return ids, replace(selection, spec=ids, fields=tuple(f for f in selection.fields if f.name in wanted), cursor=None, where=where, missing=())
