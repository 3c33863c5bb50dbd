"""write(): changes of opportunities to the org, and what became of each record.

Up to COLLECTIONS records go by sObject collections, 200 a call (REST API Developer Guide, "Update Multiple Records with Fewer
Round-Trips"); more go by Bulk API 2.0 ingest jobs. Either is safe to repeat: the same values are set again. Records whose row is
locked by somebody else are tried again; every other refusal is the record's own and is handed back in Salesforce's words.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.http import scrub
from connectors.limits import Budget
from connectors.salesforce.bulk import JobFailed, discard, wait
from connectors.salesforce.client import Client, Refused
from connectors.salesforce.settings import SalesforceSettings
from connectors.writing import Outcome, Results, WriteResult, read_changes

Say = Callable[[str], None]
Change = dict[str, Any]

OBJECT = "Opportunity"
COLLECTIONS = 2_000  # records; Salesforce's own advice where collections end and bulk begins
BATCH = 200
JOB = 10_000  # records of one ingest job: some MB, and what a failed job can hold up
ROUNDS = 3  # more tries for locked rows, in smaller and smaller company
LOCKED = frozenset({"UNABLE_TO_LOCK_ROW", "CANNOT_LOCK_ROW"})
CLEAR = "#N/A"  # Bulk API: an empty cell leaves a field as it is, this clears it
SPLITS = 16  # further calls to find out which records of a batch make Salesforce refuse all of it


def write(
    settings: SalesforceSettings,
    *,
    changes: Path,
    results: Path,
    budget: Budget | None = None,
    progress: Say | None = None,
    client: Client | None = None,
) -> WriteResult:
    """See connectors.salesforce.write."""
    client, say = client or Client(settings, budget=budget), progress or (lambda _: None)
    spent = client.budget.total
    total = sum(1 for _ in read_changes(changes))
    try:
        with Results(results) as out:
            if total:
                client.connect()
                locked = _collections(client, read_changes(changes), out) if total <= COLLECTIONS else _ingest(client, changes, out, say)
                _again(client, locked, out, say)
            return WriteResult(out.written, out.failed, client.budget.total - spent)
    finally:
        client.close()


def _batches(changes: Iterable[Change], size: int) -> Iterator[list[Change]]:
    rest = iter(changes)
    while batch := list(islice(rest, size)):
        yield batch


# sObject collections


def _collections(client: Client, changes: Iterable[Change], out: Results, size: int = BATCH) -> list[Change]:
    """Send all; gives those whose row was locked, of which nothing is recorded yet."""
    locked: list[Change] = []
    for batch in _batches(changes, size):
        locked += _send(client, batch, out, [SPLITS])
    return locked


def _again(client: Client, locked: list[Change], out: Results, say: Say) -> None:
    """Locked rows once more, after a while and in smaller batches: two records of one account in a batch lock each other out."""
    for number in range(1, ROUNDS + 1):
        if not locked:
            return
        say(f"{OBJECT}: {len(locked)} records are locked by others, trying again")
        client.policy.sleep(client.policy.wait(number, None))
        locked = _collections(client, locked, out, max(1, BATCH // 8**number))
    out.add(Outcome(c["id"], False, "UNABLE_TO_LOCK_ROW", f"locked by others at each of {ROUNDS + 1} tries") for c in locked)


def _send(client: Client, batch: list[Change], out: Results, splits: list[int]) -> list[Change]:
    records = [{"attributes": {"type": OBJECT}, "id": c["id"], **c["fields"]} for c in batch]
    try:
        answer = client.call(OBJECT, "composite/sobjects", method="PATCH", json={"allOrNone": False, "records": records})
    except Refused as refused:
        return _refused(client, batch, out, refused, splits)
    if not isinstance(answer, list) or len(answer) != len(batch):
        raise CrmProtocolError(
            f"{len(batch)} records were sent, and not as many results came back",
            source=client.settings.name,
            obj=OBJECT,
            fix="Run the write-back again; it sends only what still differs.",
        )
    outcomes, locked = [], []
    for change, told in zip(batch, answer, strict=True):
        if told.get("success"):
            outcomes.append(Outcome(change["id"], True))
            continue
        first: dict[str, Any] = next(iter(told.get("errors") or ()), {})
        code = str(first.get("statusCode") or first.get("errorCode") or "UNKNOWN")
        if code in LOCKED:
            locked.append(change)
        else:
            outcomes.append(Outcome(change["id"], False, code, _words(client, first.get("message"))))
    out.add(outcomes)
    return locked


def _refused(client: Client, batch: list[Change], out: Results, refused: Refused, splits: list[int]) -> list[Change]:
    """A batch refused as a whole: one record may be the reason (a malformed id), so it is halved until that one is alone."""
    if refused.status in (403, 404):
        raise CrmPermissionError(
            f"the user may not change opportunities ({refused.code or refused.status})",
            source=client.settings.name,
            obj=OBJECT,
            code=refused.code,
            fix='Give the user "Edit" on Opportunity and on the Plumbline fields.',
        )
    same_fields = len({frozenset(c["fields"]) for c in batch}) == 1
    if len(batch) > 1 and splits[0] >= 2 and not (refused.code == "INVALID_FIELD" and same_fields):
        splits[0] -= 2
        middle = len(batch) // 2
        return _send(client, batch[:middle], out, splits) + _send(client, batch[middle:], out, splits)
    words = _words(client, refused.message)
    out.add(Outcome(change["id"], False, refused.code or str(refused.status), words) for change in batch)
    return []


def _words(client: Client, message: object) -> str | None:
    return scrub(message, *client.tokens.secrets(), limit=500) if message else None


# Bulk API 2.0 ingest


def _ingest(client: Client, changes: Path, out: Results, say: Say) -> list[Change]:
    columns = sorted({name for change in read_changes(changes) for name in change["fields"]})
    locked: list[Change] = []
    for batch in _batches(read_changes(changes), JOB):
        try:
            job = _submit(client, as_csv(batch, columns))
        except Refused as refused:
            say(f"{OBJECT}: the Bulk API refuses ({refused.code or refused.status}), writing by REST")
            locked += _collections(client, batch, out)
            continue
        locked += _collect(client, job, batch, out, say)
        discard(client, OBJECT, "jobs/ingest", job, abort=False)
        say(f"{OBJECT}: {out.written + out.failed} records answered")
    return locked


def as_csv(batch: Iterable[Change], columns: list[str]) -> bytes:
    """Changes as the Bulk API reads them: a field that a record does not change is empty, one that it clears is #N/A."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["Id", *columns])
    for change in batch:
        fields = change["fields"]
        rows.writerow([change["id"], *(_cell(fields[name]) if name in fields else "" for name in columns)])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None or value == "":
        return CLEAR
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _submit(client: Client, body: bytes) -> str:
    """Create, fill and close a job. Created twice it would leave an empty one, which Salesforce drops: no harm."""
    job_settings = {"object": OBJECT, "operation": "update", "contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"}
    answer = client.call(OBJECT, "jobs/ingest", method="POST", json=job_settings)
    job = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(job, str) or not job.isalnum():
        raise Refused(200, "NO_JOB", "")
    try:
        client.upload(OBJECT, f"{client.data}/jobs/ingest/{job}/batches", body)
        client.call(OBJECT, f"jobs/ingest/{job}", method="PATCH", json={"state": "UploadComplete"})
    except Refused:
        discard(client, OBJECT, "jobs/ingest", job, abort=True)
        raise
    return job


def _collect(client: Client, job: str, batch: list[Change], out: Results, say: Say) -> list[Change]:
    """Wait for the job and record what it did to each record; gives those whose row was locked."""
    failure = None
    try:
        wait(client, OBJECT, "jobs/ingest", job, say)
    except JobFailed as failed:
        failure = str(failed)
    waiting = {change["id"][:15]: change for change in batch}  # ids may come back in 18 characters for 15
    locked: list[Change] = []

    def take(result: str) -> Iterator[tuple[Change, str]]:
        for row in _rows(client, job, result):
            change = waiting.pop((row.get("Id") or row.get("sf__Id") or "")[:15], None)
            if change is not None:
                yield change, row.get("sf__Error") or ""

    out.add([Outcome(change["id"], True) for change, _ in take("successfulResults")])
    refused = []
    for change, error in take("failedResults"):
        code, message = parse_error(error)
        if code in LOCKED:
            locked.append(change)
        else:
            refused.append(Outcome(change["id"], False, code, _words(client, message)))
    out.add(refused)
    unprocessed = failure or "the job ended without a result for this record"
    out.add([Outcome(change["id"], False, "NOT_PROCESSED", _words(client, unprocessed)) for change in waiting.values()])
    return locked


def _rows(client: Client, job: str, result: str) -> Iterator[dict[str, str]]:
    """Rows of a result file. Read as UTF-8 whatever the header says: without a charset it would be taken for Latin-1."""
    body, _ = client.fetch(OBJECT, f"{client.data}/jobs/ingest/{job}/{result}", headers={"Accept": "text/csv"})
    return csv.DictReader(io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline=""))


def parse_error(error: str) -> tuple[str, str]:
    """`CODE:message:field names --` of sf__Error."""
    code, _, rest = error.partition(":")
    message = rest.rpartition(":")[0] if rest.endswith("--") else rest
    return (code or "UNKNOWN"), message
