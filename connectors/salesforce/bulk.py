"""Reading by Bulk API 2.0: the org runs the query, we fetch its CSV pages side by side, as bytes.

https://developer.salesforce.com/docs: Bulk API 2.0, "Query Jobs". Result pages side by side exist from API 58.0 on; before,
and where they are refused, pages follow each other by Sforce-Locator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from connectors.errors import CrmAuthError, CrmError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.landing import LandedFile
from connectors.salesforce import rest
from connectors.salesforce.client import RESULT_PAGES, Client, Refused
from connectors.salesforce.landed import Landed, Page
from connectors.salesforce.objects import SObject
from connectors.salesforce.schema import Selection
from connectors.salesforce.stamps import header, instant, scan_csv

STREAMS = 5  # as many as the org names result pages in one answer
LOCATOR_ROWS = 50_000
PATIENCE = 4 * 3600.0  # seconds; Salesforce itself gives a query job up earlier
FIRST_POLL, LAST_POLL = 0.5, 60.0  # seconds between two looks at a job: see wait()
CREATION = timedelta(minutes=15)  # as long as creating a job may take, with every retry: what was created later is not ours
CLOCKS = timedelta(seconds=5)  # between the Date header and the stamps of one org
FINISHED = frozenset({"JobComplete", "Failed", "Aborted"})

Say = Callable[[str], None]


class JobFailed(Exception):
    """The org gave the job up, or it takes too long. The text is Salesforce's, scrubbed. ended: there is nothing to abort."""

    def __init__(self, words: str, *, ended: bool) -> None:
        super().__init__(words)
        self.ended = ended


def query(client: Client, selection: Selection, since: datetime | None, landed: Landed, say: Say) -> None:
    """Land the result of one query job. Raises Refused or JobFailed.

    Where `landed` keeps a journal, a job that it names is gone on with, and only the pages that are not there are fetched. An error
    after which nothing would get through leaves the job and its pages to the next run; every other end closes the job.
    """
    reading = landed.reading
    resumed = reading.job is not None
    try:
        if reading.job is None:
            landed.clear()
            _create(client, selection, since, landed)
        _land(client, selection, landed, say)
    except Refused:
        _give_up(client, selection, landed)
        if not resumed:
            raise
        query(client, selection, since, landed, say)  # jobs are there for a week at most: all is asked anew
    except JobFailed as failed:
        reading.complete = failed.ended
        _give_up(client, selection, landed)
        raise
    except CrmProtocolError:
        _give_up(client, selection, landed)
        raise
    except (CrmAuthError, CrmQuotaError, CrmUnavailableError):
        raise  # no call would get through
    except BaseException:
        if not landed.keep:  # nobody would come back for it
            _give_up(client, selection, landed)
        raise


def _land(client: Client, selection: Selection, landed: Landed, say: Say) -> None:
    name, reading = selection.spec.name, landed.reading
    assert reading.job is not None  # noqa: S101 - created above
    if reading.intent:
        _close_others(client, selection.spec, reading.intent, keep=reading.job)
        reading.intent = None
        landed.save()
    if not reading.complete:
        reading.told = wait(client, name, "jobs/query", reading.job, say)
        reading.complete = True
        landed.save()
    _download(client, name, landed, selection.cursor)
    if reading.told is not None and reading.rows != reading.told:
        raise _broken(client, name, f"job {reading.job} has {reading.told} records, its pages hold {reading.rows}")
    landed.finished()
    close(client, selection.spec, landed)


def _give_up(client: Client, selection: Selection, landed: Landed) -> None:
    landed.clear()
    close(client, selection.spec, landed)


def _create(client: Client, selection: Selection, since: datetime | None, landed: Landed) -> None:
    """Create the job. The intent is on disk before the request leaves: where the answer is lost, or we are killed before it comes,
    the job is found and closed by who goes on."""
    form = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"}
    body = {"operation": selection.operation, "query": selection.soql(since), **form}
    reading, unsure = landed.reading, client.unsure
    reading.intent = client.server_time
    landed.save()
    try:  # sent twice, after an answer that was lost, it makes a second job, which is closed below
        answer = client.call(selection.spec.name, "jobs/query", method="POST", json=body)
        job = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(job, str) or not job.isalnum():
            raise Refused(200, "NO_JOB", "")
    except Refused:
        if client.unsure == unsure:
            reading.intent = None
        raise
    reading.job = job
    if client.unsure == unsure:
        reading.intent = None
    landed.save()


def wait(client: Client, name: str, jobs: str, job: str, say: Say) -> int | None:
    """Poll until the job is complete; the number of its records. jobs: jobs/query or jobs/ingest.

    Each look is an API call. The next one comes after as long again as was waited so far: a job of five seconds costs four looks,
    one of an hour about seventy, and none is noticed later than after twice its time.
    """
    waited, pause = 0.0, FIRST_POLL
    while True:
        client.policy.sleep(pause)
        waited += pause
        info: dict[str, Any] = client.call(name, f"{jobs}/{job}") or {}
        state = info.get("state")
        if state == "JobComplete":
            told = info.get("numberRecordsProcessed")
            return told if isinstance(told, int) else None
        if state in ("Failed", "Aborted"):
            raise JobFailed(client.scrub(str(info.get("errorMessage") or state)), ended=True)
        if waited > PATIENCE:
            raise JobFailed(f"still {state} after {waited / 3600:.1f} hours", ended=False)
        if int(waited) // 60 > int(waited - pause) // 60:
            say(f"{name}: the org is at work ({info.get('numberRecordsProcessed') or 0} records so far)")
        pause = min(waited, LAST_POLL)


def _download(client: Client, name: str, landed: Landed, cursor: str | None) -> None:
    """Fetch every page that is not there yet, each noted as it comes."""
    reading = landed.reading
    if reading.urls is None and client.version >= RESULT_PAGES:
        reading.urls = _page_urls(client, name, str(reading.job))
        landed.save()
    if reading.urls is None:
        _by_locator(client, name, landed, cursor)
        return
    there = {page.number for page in reading.pages}
    with ThreadPoolExecutor(max_workers=STREAMS, thread_name_prefix="bulk") as pool:
        wanted = [(number, url) for number, url in enumerate(reading.urls) if number not in there]
        futures = [pool.submit(_page, client, name, url, landed, number, cursor) for number, url in wanted]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _page_urls(client: Client, name: str, job: str) -> list[str] | None:
    """Addresses of all result pages, five an answer; None when the org does not offer them."""
    urls: list[str] = []
    more: str | None = f"{client.data}/jobs/query/{job}/resultPages"
    while more:
        try:
            answer = client.call(name, more.removeprefix(f"{client.data}/"))
        except Refused:
            return None
        pages = answer.get("resultPages") if isinstance(answer, dict) else None
        if not isinstance(pages, list):
            return None
        for page in pages:
            url = page.get("resultUrl") or page.get("resultLink")  # the guide and the published schema differ
            if not url:
                return None
            urls.append(rest.own_path(client, name, url))
        following = answer.get("nextRecordsUrl") or answer.get("nextRecordUrl")
        more = rest.own_path(client, name, following) if following and not answer.get("done") else None
        if more and not more.startswith(client.data):
            return None
    return urls


def _by_locator(client: Client, name: str, landed: Landed, cursor: str | None) -> None:
    """One page after the other. `more` of the reading is the locator of the next one."""
    reading = landed.reading
    locator = reading.more
    while locator or not reading.pages:  # pages without a next one: the last has come
        url = f"{client.data}/jobs/query/{reading.job}/results?maxRecords={LOCATOR_ROWS}" + (f"&locator={locator}" if locator else "")
        locator = _page(client, name, url, landed, len(reading.pages), cursor)


def _page(client: Client, name: str, url: str, landed: Landed, number: int, cursor: str | None) -> str | None:
    """One page to disk, its rows counted against what the org says is in it. Returns the locator of the next one."""
    path = landed.path(number, "csv")
    for attempt in (1, 2):
        size, headers = client.download(name, url, path)
        rows, stamp = scan_csv(path, cursor) if size else (0, None)
        told = headers.get("Sforce-NumberOfRecords")
        if told is None or not told.isdigit() or int(told) == rows:
            break
        if attempt == 2:
            raise _broken(client, name, f"a page of {told} records holds {rows}")
    locator = headers.get("Sforce-Locator") if landed.reading.urls is None else None
    locator = None if locator == "null" else locator
    landed.add(Page(number, LandedFile(path.name, "csv", rows, size, header(path) if rows else []), stamp), locator)
    return locator


# Closing jobs


def close(client: Client, spec: SObject, landed: Landed) -> None:
    """Close the jobs of `landed` that are of no use any more. What cannot be closed now stays in the journal for the next run."""
    for job in list(landed.loose):
        with contextlib.suppress(Refused, CrmError):
            if job.intent:
                _close_others(client, spec, job.intent, keep=None)
            if job.id is None or discard(client, spec.name, "jobs/query", job.id, abort=not job.ended):
                landed.closed(job)


def _close_others(client: Client, spec: SObject, since: datetime, keep: str | None) -> None:
    """Close query jobs that we may have created without learning their ids: those of our user, for this object, from the time when we
    were about to create one. Where the org does not say who we are, all are left alone; they expire after a week."""
    user = client.user_id()
    if user is None:
        return
    more: str | None = "jobs/query?jobType=V2Query"
    while more:
        answer: dict[str, Any] = client.call(spec.name, more) or {}
        for job in answer.get("records") or ():
            created = instant(str(job.get("createdDate")))
            ours = str(job.get("createdById"))[:15] == user and job.get("object") == spec.table and job.get("id") != keep
            if ours and created and since - CLOCKS <= created <= since + CREATION:
                discard(client, spec.name, "jobs/query", str(job.get("id")), abort=job.get("state") not in FINISHED)
        following = answer.get("nextRecordsUrl") if not answer.get("done") else None
        more = rest.own_path(client, spec.name, following).removeprefix(f"{client.data}/") if following else None


def discard(client: Client, name: str, jobs: str, job: str, *, abort: bool) -> bool:
    """Give the org its space back; abort: the job may be at work. Best effort, because what is landed is landed and Salesforce drops
    old jobs after a week. Returns whether the job is gone."""
    try:
        if abort:
            with contextlib.suppress(Refused):  # it has ended by itself
                client.call(name, f"{jobs}/{job}", method="PATCH", json={"state": "Aborted"})
        client.call(name, f"{jobs}/{job}", method="DELETE")
    except Refused as refused:
        return refused.status == 404
    except CrmError:
        return False
    return True


def _broken(client: Client, name: str, what: str) -> CrmProtocolError:
    return CrmProtocolError(
        f"the Bulk API's result does not add up: {what}",
        source=client.settings.name,
        obj=name,
        fix='Run again; if it happens again, set api = "rest" for this source.',
    )
