"""Reading by Bulk API 2.0: the org runs the query, we fetch its CSV pages side by side, as bytes.

https://developer.salesforce.com/docs: Bulk API 2.0, "Query Jobs". Result pages side by side exist from API 58.0 on; before,
and where they are refused, pages follow each other by Sforce-Locator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from connectors.errors import CrmAuthError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.landing import LandedFile
from connectors.salesforce import rest
from connectors.salesforce.client import RESULT_PAGES, Client, Refused
from connectors.salesforce.landed import Landed
from connectors.salesforce.schema import Selection
from connectors.salesforce.stamps import header, scan_csv

STREAMS = 5  # as many as the org names result pages in one answer
LOCATOR_ROWS = 50_000
PATIENCE = 4 * 3600.0  # seconds; Salesforce itself gives a query job up earlier

Say = Callable[[str], None]


class JobFailed(Exception):
    """The org gave the job up. The text is Salesforce's, scrubbed."""


def query(client: Client, selection: Selection, since: datetime | None, landed: Landed, say: Say) -> None:
    """Land the result of one query job; the job is deleted at the end, whatever happened. Raises Refused or JobFailed."""
    name = selection.spec.name
    landed.clear()
    job = _create(client, selection, since)
    try:
        told = wait(client, name, "jobs/query", job, say)
        pages = _download(client, name, job, landed.directory, selection.cursor)
    except (CrmAuthError, CrmQuotaError, CrmUnavailableError):
        raise  # no call would get through
    except BaseException:
        discard(client, name, "jobs/query", job, abort=True)
        raise
    discard(client, name, "jobs/query", job, abort=False)
    for file, stamp in pages:
        landed.saw(stamp)
        landed.files.append(file)
    if told is not None and landed.rows != told:
        raise _broken(client, name, f"job {job} has {told} records, its pages hold {landed.rows}")


def _create(client: Client, selection: Selection, since: datetime | None) -> str:
    form = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"}
    body = {"operation": selection.operation, "query": selection.soql(since), **form}
    # Sent twice, it makes a second job that reads for nothing and expires: no harm, so it may be repeated.
    answer = client.call(selection.spec.name, "jobs/query", method="POST", json=body)
    job = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(job, str) or not job.isalnum():
        raise Refused(200, "NO_JOB", "")
    return job


def wait(client: Client, name: str, jobs: str, job: str, say: Say) -> int | None:
    """Poll until the job is complete; the number of its records. jobs: jobs/query or jobs/ingest."""
    pause, waited = 0.1, 0.0
    while True:
        info: dict[str, Any] = client.call(name, f"{jobs}/{job}") or {}
        state = info.get("state")
        if state == "JobComplete":
            told = info.get("numberRecordsProcessed")
            return told if isinstance(told, int) else None
        if state in ("Failed", "Aborted"):
            raise JobFailed(client.scrub(str(info.get("errorMessage") or state)))
        if waited > PATIENCE:
            raise JobFailed(f"still {state} after {waited / 3600:.1f} hours")
        client.policy.sleep(pause)
        waited += pause
        if int(waited) // 60 > int(waited - pause) // 60:
            say(f"{name}: the org is at work ({info.get('numberRecordsProcessed') or 0} records so far)")
        pause = min(pause * 1.6, 20.0)  # quick for small jobs; an hour's job costs some 200 polls


def _download(client: Client, name: str, job: str, directory: Path, cursor: str | None) -> list[tuple[LandedFile, datetime | None]]:
    """Fetch every page; in the order of the result, whichever way they came."""
    urls = _page_urls(client, name, job) if client.version >= RESULT_PAGES else None
    if urls is None:
        fetched = list(_by_locator(client, name, job, directory, cursor))
    else:
        with ThreadPoolExecutor(max_workers=STREAMS, thread_name_prefix="bulk") as pool:
            futures = [pool.submit(_page, client, name, url, directory, number, cursor) for number, url in enumerate(urls)]
            try:
                fetched = [future.result()[0] for future in futures]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [page for page in fetched if page is not None]


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


def _by_locator(
    client: Client, name: str, job: str, directory: Path, cursor: str | None
) -> Iterator[tuple[LandedFile, datetime | None] | None]:
    locator: str | None = None
    number = 0
    while True:
        url = f"{client.data}/jobs/query/{job}/results?maxRecords={LOCATOR_ROWS}" + (f"&locator={locator}" if locator else "")
        page, locator = _page(client, name, url, directory, number, cursor)
        yield page
        if not locator or locator == "null":
            return
        number += 1


def _page(
    client: Client, name: str, url: str, directory: Path, number: int, cursor: str | None
) -> tuple[tuple[LandedFile, datetime | None] | None, str | None]:
    """One page to disk, its rows counted against what the org says is in it; and the locator of the next."""
    path = directory / f"part-{number:05d}.csv"
    for attempt in (1, 2):
        size, headers = client.download(name, url, path)
        rows, stamp = scan_csv(path, cursor) if size else (0, None)
        told = headers.get("Sforce-NumberOfRecords")
        if told is None or not told.isdigit() or int(told) == rows:
            break
        if attempt == 2:
            raise _broken(client, name, f"a page of {told} records holds {rows}")
    locator = headers.get("Sforce-Locator")
    if not rows:
        path.unlink()
        return None, locator
    return (LandedFile(path.name, "csv", rows, size, header(path)), stamp), locator


def discard(client: Client, name: str, jobs: str, job: str, *, abort: bool) -> None:
    """Give the org its space back. Best effort: what is landed is landed, and Salesforce drops old jobs after a week."""
    with contextlib.suppress(Exception):
        if abort:
            client.call(name, f"{jobs}/{job}", method="PATCH", json={"state": "Aborted"})
    with contextlib.suppress(Exception):
        client.call(name, f"{jobs}/{job}", method="DELETE")


def _broken(client: Client, name: str, what: str) -> CrmProtocolError:
    return CrmProtocolError(
        f"the Bulk API's result does not add up: {what}",
        source=client.settings.name,
        obj=name,
        fix='Run again; if it happens again, set api = "rest" for this source.',
    )
