"""Which stages each record type has: its sales process says so, and no query tells it.

The UI API does, one call for a record type (User Interface API Developer Guide, "Get Values for a Picklist Field"). So it is asked
only when a record type, a process or a stage has changed since, or nobody has looked for a while.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from connectors.errors import CrmProtocolError, CrmUnavailableError
from connectors.landing import Manifest
from connectors.salesforce.client import Refused
from connectors.salesforce.landed import Landed
from connectors.salesforce.objects import PROCESS_OBJECTS, RECORD_TYPE, STAGES_OF_TYPES
from connectors.salesforce.org import records
from connectors.salesforce.stamps import instant

if TYPE_CHECKING:
    from connectors.salesforce.extract import _Run

FIELD = "ui-api/object-info/Opportunity/picklist-values/{id}/StageName"
MOST = 50  # record types; orgs with more are rare, and each is a call
LOOK_AGAIN = timedelta(days=7)  # not every change of a process is known to move a stamp
GIVE_UP = 2  # refusals without one answer: the org has no UI API, or the user may not use it


def land_stages(run: _Run, manifests: dict[str, Manifest]) -> Manifest:
    """The stages of each active record type as `RecordType.stages`: rows {"Id": record type, "Stages": JSON list of API names, as text}.

    manifests: of the objects read before, whose stamps say whether anything moved. watermark: when the stages were last asked for. What
    is refused is noted, left as it was, and asked for again in its time.
    """
    client = run.client
    before = client.budget.calls[STAGES_OF_TYPES]
    committed = run.since.get(STAGES_OF_TYPES)
    manifest = Manifest(run.settings.name, run.settings.crm, STAGES_OF_TYPES, "Id", "full" if committed is None else "incremental")
    landed = Landed(run.landing.object_directory(STAGES_OF_TYPES))
    landed.clear()
    began = client.server_time
    directory = run.landing.directory
    types = sorted(str(r["Id"]) for r in records(directory, manifests.get(RECORD_TYPE.name)) if r.get("IsActive") is True and _of_deals(r))
    stamps = [stamp for spec in PROCESS_OBJECTS for r in records(directory, manifests.get(spec.name)) if (stamp := _stamp(r))]
    overlap = timedelta(minutes=run.settings.overlap_minutes)
    if not _due(committed, began, max(stamps, default=None), overlap) or not types:
        manifest.watermark = committed
        return run.finish(manifest, before)
    rows, refused = [], ""
    for asked, record_type in enumerate(types[:MOST], 1):
        try:
            rows.append({"Id": record_type, "Stages": orjson.dumps(_stages(run, record_type)).decode()})
        except Refused as error:
            refused = error.code or str(error.status)
            if not rows and asked >= GIVE_UP:
                break
        except (CrmUnavailableError, CrmProtocolError) as error:  # what is around the deals is no reason to stop
            refused = error.code or "no answer"
            break
    if rows:
        landed.write_array(orjson.dumps(rows), len(rows))
    manifest.files, manifest.watermark = landed.files, began
    manifest.notice = _notice(len(rows), len(types), refused)
    return run.finish(manifest, before)


def _due(committed: datetime | None, began: datetime | None, newest: datetime | None, overlap: timedelta) -> bool:
    """Whether to look: never yet, something was stamped since (or just before), or long ago."""
    if committed is None or began is None:
        return True
    return began - committed >= LOOK_AGAIN or (newest is not None and newest >= committed - overlap)


def _stages(run: _Run, record_type: str) -> list[str]:
    told: Any = run.client.call(STAGES_OF_TYPES, FIELD.format(id=record_type))
    values = told.get("values") if isinstance(told, dict) else None
    if not isinstance(values, list):
        raise Refused(200, "NO_VALUES", "")
    return [str(value["value"]) for value in values if isinstance(value, dict) and value.get("value")]


def _notice(read: int, there: int, refused: str) -> str | None:
    if refused and not read:
        return f"not read: which stages a record type has is not told to this user ({refused}); all stages count for each"
    said = [f"{read} of {there} record types told their stages"] if read < there else []
    if there > MOST:
        said.append(f"no more than {MOST} are asked")
    if refused:
        said.append(f"the others were refused ({refused})")
    return "; ".join(said) or None


def _of_deals(record: dict[str, Any]) -> bool:
    return record.get("SobjectType") in (None, "Opportunity")


def _stamp(record: dict[str, Any]) -> datetime | None:
    return instant(str(record.get("SystemModstamp") or ""))
