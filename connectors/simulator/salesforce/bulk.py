"""Bulk API 2.0: query jobs and ingest jobs. Their work runs on threads of its own, as the platform's queue does."""

from __future__ import annotations

import base64
import csv
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.simulator.faults import Fault
from connectors.simulator.salesforce import results
from connectors.simulator.salesforce.compile import Compiled, compile_query, csv_text, literal
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.ids import FIRST_NUMBER, make_id, to_18
from connectors.simulator.salesforce.writes import Batch, CsvRows, Run

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

DELIMITERS = {"COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}
LINE_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
PAGE = 50_000  # records of a page of results when the client names no maxRecords
PARALLEL_PAGES = 5  # URLs in one answer of resultPages
LIST_LOCATOR = make_id("01g", FIRST_NUMBER)
JOB_TYPES = {"BigObjectIngest", "Classic", "V2Query", "V2Ingest"}
MAX_UPLOAD = 150_000_000  # bytes
LIFETIME = timedelta(days=7)  # after which a job and its results are no more
UNFINISHED = {"Open", "UploadComplete", "InProgress"}
FINISHED = {"JobComplete", "Failed", "Aborted"}
# What the platform says of a query that it gave up, unless the fault says otherwise.
JOB_FAILED = "Retried more than 15 times. The query could not be processed in time: add filters or select fewer fields"


@dataclass
class Job:
    """A query or ingest job. `state` is the true one; clients see it through `Jobs.info`, which lets a job seem at work first."""

    id: str
    operation: str
    object: str
    user_id: str
    version: str
    line_ending: str
    delimiter: str
    created: datetime
    state: str
    text: str = ""  # SOQL of a query job
    compiled: Compiled | None = None  # query jobs
    fault: Fault | None = None  # makes the job fail when its work is done
    key: str | None = None  # external id field of an upsert
    upload: Path | None = None
    polls_left: int = 0
    started: bool = False
    processed: int = 0
    failed: int = 0
    error: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def is_query(self) -> bool:
        return self.operation in {"query", "queryAll"}

    @property
    def table(self) -> str:
        return f"job_{self.id}"


class Jobs:
    """The Bulk jobs of one org."""

    def __init__(self, org: SalesforceOrg) -> None:
        self.org = org
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._created = 0
        self._held: list[Job] = []
        self._queries: deque[datetime] = deque(maxlen=10_000)  # when query jobs were made
        self.directory = Path(org.scratch_directory)

    # --- all jobs ---

    def _new(self, body: Mapping[str, Any], *, operation: str, object: str, user: str, version: str, state: str) -> Job:
        delimiter, line_ending = str(body.get("columnDelimiter", "COMMA")), str(body.get("lineEnding", "LF"))
        if delimiter not in DELIMITERS or line_ending not in LINE_ENDINGS:
            raise SalesforceError("INVALIDJOB", f"Unsupported columnDelimiter or lineEnding: {delimiter}, {line_ending}")
        if str(body.get("contentType", "CSV")) != "CSV":
            raise SalesforceError("INVALIDJOB", "Invalid contentType: only CSV is supported")
        with self._lock:
            self._created += 1
            job_id = make_id("750", FIRST_NUMBER + self._created)
        return Job(job_id, operation, object, user, version, line_ending, delimiter, self.org.now(), state)

    def _add(self, job: Job) -> dict[str, Any]:
        with self._lock:
            self._jobs[job.id] = job
        return self._show(job, job.state, fresh=True)

    def get(self, job_id: str, *, query: bool) -> Job:
        """Raises NOT_FOUND, also for a job that is older than a week."""
        with self._lock:
            job = self._jobs.get(to_18(job_id) or "")
        if job is None or job.is_query is not query or self._expired(job):
            raise SalesforceError("NOT_FOUND", "The requested resource does not exist", status=404)
        return job

    def _expired(self, job: Job) -> bool:
        return self.org.clock.now() - job.created > LIFETIME

    @staticmethod
    def seen(job: Job) -> str:
        """The state that clients see: a job seems at work until it was polled often enough, so that no poll races its thread."""
        return "InProgress" if job.polls_left > 0 and job.state in {"JobComplete", "Failed"} else job.state

    def info(self, job: Job) -> dict[str, Any]:
        """The job as a poll sees it: first UploadComplete, for a while InProgress, then what it is."""
        state = self.seen(job)
        if job.polls_left > 0 and job.state in {"JobComplete", "Failed"}:
            job.polls_left -= 1
        return self._show(job, state)

    def all(self) -> list[Job]:
        """The jobs that the org still keeps, query and ingest, in the order in which they were made."""
        with self._lock:
            return [job for job in self._jobs.values() if not self._expired(job)]

    def listing(self, asked: Mapping[str, str], *, query: bool, version: str) -> dict[str, Any]:
        """The org's jobs, 1,000 an answer. asked: jobType, isPkChunkingEnabled, concurrencyMode, queryLocator. Raises API_ERROR."""
        kind = asked.get("jobType", "V2Query" if query else "V2Ingest")
        chunking, mode = asked.get("isPkChunkingEnabled", "false").lower(), asked.get("concurrencyMode", "parallel").lower()
        if kind not in JOB_TYPES or chunking not in {"true", "false"} or mode not in {"serial", "parallel"}:
            raise SalesforceError("API_ERROR", f"Invalid filter: jobType {kind}, isPkChunkingEnabled {chunking}, concurrencyMode {mode}")
        # There are no jobs of the Bulk API before 2.0 here, and only those can be chunked by hand or run serially.
        shown = [job for job in self.all() if self._kind(job) == kind] if chunking == "false" and mode == "parallel" else []
        start = 0
        if locator := asked.get("queryLocator"):
            key, _, place = locator.rpartition("-")
            if key != LIST_LOCATOR or not place.isdigit():
                raise SalesforceError("INVALID_QUERY_LOCATOR", "invalid query locator")
            start = int(place)
        end = start + self.org.job_page
        path = f"/services/data/v{version}/jobs/{'query' if query else 'ingest'}"
        following = f"{path}?queryLocator={LIST_LOCATOR}-{end}" + (f"&jobType={kind}" if "jobType" in asked else "")
        return {
            "done": end >= len(shown),
            "records": [self._show(job, self.seen(job), brief=True) for job in shown[start:end]],
            "nextRecordsUrl": following if end < len(shown) else None,
        }

    @staticmethod
    def _kind(job: Job) -> str:
        return "V2Query" if job.is_query else "V2Ingest"

    def _show(self, job: Job, state: str, *, fresh: bool = False, brief: bool = False) -> dict[str, Any]:
        """fresh: as the answer to its creation. brief: as the list of jobs shows it."""
        stamp = f"{job.created:%Y-%m-%dT%H:%M:%S}.000+0000"
        shown: dict[str, Any] = {
            "id": job.id, "operation": job.operation, "object": job.object, "createdById": job.user_id, "createdDate": stamp,
            "systemModstamp": stamp, "state": state, "concurrencyMode": "Parallel", "contentType": "CSV",
            "apiVersion": float(job.version),
        }  # fmt: skip
        if not job.is_query:
            shown["contentUrl"] = f"services/data/v{job.version}/jobs/ingest/{job.id}/batches"
            if job.key:
                shown["externalIdFieldName"] = job.key
        shown |= {"lineEnding": job.line_ending, "columnDelimiter": job.delimiter}
        if not fresh:
            shown["jobType"] = self._kind(job)
        if not fresh and not brief:
            shown |= {"retries": 0, "totalProcessingTime": 0}
            shown["numberRecordsProcessed"] = job.processed if state in {"JobComplete", "Failed"} else 0
            if not job.is_query:
                shown["numberRecordsFailed"] = job.failed if state in {"JobComplete", "Failed"} else 0
        if job.error and state == "Failed" and not brief:
            shown["errorMessage"] = job.error
        return shown

    def change_state(self, job: Job, wanted: str) -> dict[str, Any]:
        """Abort a job, or tell an ingest job that its data is uploaded. Raises INVALIDJOBSTATE."""
        state = self.seen(job)
        if wanted == "Aborted":
            if state not in UNFINISHED:
                raise SalesforceError("INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
            job.state, job.polls_left = "Aborted", 0
        elif wanted == "UploadComplete" and state == "Open" and not job.is_query:
            job.state = "UploadComplete"
            shown = self._show(job, job.state)
            self._start(job)
            return shown
        else:
            raise SalesforceError("INVALIDJOBSTATE", f"Transition from {state} to {wanted} is not allowed.")
        return self._show(job, job.state)

    def delete(self, job: Job) -> None:
        """Forget a job that has ended, with its data. Raises API_ERROR while it is at work."""
        if self.seen(job) not in FINISHED:
            raise SalesforceError("API_ERROR", "Error encountered when deleting the job because the job is not terminated")
        with self._lock:
            self._jobs.pop(job.id, None)
        self._drop(job)

    def _drop(self, job: Job) -> None:
        results.drop(self.org, job.table)
        for path in self.directory.glob(f"{job.id}*"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget every job; those at work are waited for."""
        with self._lock:
            jobs, self._held = list(self._jobs.values()), []
            self._jobs.clear()
            self._queries.clear()
        for job in jobs:
            if job.started:
                job.state = "Aborted"
                job.done.wait(60)
            self._drop(job)

    def _start(self, job: Job) -> None:
        job.polls_left = self.org.in_progress_polls
        job.state = "InProgress"  # at once: whether a poll outruns the thread must not decide what it sees
        what = f"{job.operation} {job.text or job.object}"
        job.fault = self.org.faults.job_failed("POST", f"jobs/{'query' if job.is_query else 'ingest'} {what}")
        if self.org.hold_jobs:
            with self._lock:
                self._held.append(job)
        else:
            self._run(job)

    def release(self) -> None:
        """Let the jobs begin that `org.hold_jobs` has kept waiting."""
        with self._lock:
            held, self._held = self._held, []
        for job in held:
            if job.state != "Aborted":
                self._run(job)

    def _run(self, job: Job) -> None:
        job.started = True
        threading.Thread(target=self._work, args=(job,), name=f"bulk-{job.id}", daemon=True).start()

    def _work(self, job: Job) -> None:
        try:
            if job.fault is not None:
                raise SalesforceError("InvalidBatch", str(job.fault.detail.get("message", JOB_FAILED)))
            if job.is_query:
                self._query(job)
            else:
                self._ingest(job)
            finished = "JobComplete"
        except SalesforceError as error:
            job.error = f"{error.code} : {error.message}"
            finished = "Failed"
        except Exception as error:  # an ended thread would leave the client polling for ever
            job.error = f"UNKNOWN_EXCEPTION : {type(error).__name__}: {error}"
            finished = "Failed"
        if job.state == "Aborted":
            self._drop(job)  # its results are nobody's
        else:
            job.state = finished
        job.done.set()

    def _query(self, job: Job) -> None:
        """Compiled once more: what was there when the job was made may be gone or hidden by now."""
        try:
            compiled = compile_query(
                job.text, self.org.context(), all_rows=job.operation == "queryAll", bulk=True, version=job.version
            )  # fmt: skip
        except SalesforceError as error:
            raise SalesforceError("InvalidBatch", f"Failed to process query: {error.code}: {error.message}") from error
        job.compiled = compiled
        job.processed = results.store(self.org, compiled, job.table)

    # --- query jobs ---

    def create_query(self, body: Mapping[str, Any], user: str, version: str) -> dict[str, Any]:
        """Raises API_ERROR with the parser's message when the query is wrong, as the real one does."""
        operation, text = str(body.get("operation", "")), str(body.get("query", ""))
        if operation not in {"query", "queryAll"}:
            raise SalesforceError("INVALIDJOB", f"Unsupported operation: {operation}")
        try:
            compiled = compile_query(text, self.org.context(), all_rows=operation == "queryAll", bulk=True, version=version)
        except SalesforceError as error:
            raise SalesforceError("API_ERROR", error.message) from error
        job = self._new(body, operation=operation, object=compiled.sobject.name, user=user, version=version, state="UploadComplete")
        job.text = text
        shown = self._add(job)
        self._queries.append(self.org.clock.now())
        self._start(job)
        return shown

    def queries_today(self) -> int:
        """Query jobs made in the last 24 hours, deleted ones among them."""
        since = self.org.clock.now() - timedelta(days=1)
        return sum(made > since for made in self._queries)

    def _check_complete(self, job: Job) -> None:
        if self.seen(job) != "JobComplete":
            raise SalesforceError("INVALIDJOBSTATE", f"Job is not in a state that has results: {self.seen(job)}")

    def _page_size(self, wanted: int | None) -> int:
        """Records of a page: what the client wants at most, but not more than the org gives."""
        own = self.org.bulk_page or PAGE
        return min(wanted or own, own) if self.org.bulk_page else wanted or own

    def result_page(self, job: Job, locator: str | None, max_records: int | None) -> tuple[Path, int, str]:
        """A page of results as a CSV file, its number of records, and the locator of the next page ("null" at the end)."""
        self._check_complete(job)
        start, size = 0, self._page_size(max_records)
        if locator and locator != "null":
            try:
                start_text, _, size_text = base64.b64decode(locator + "==").decode().partition("-")
                start = int(start_text)
                size = int(size_text) if size_text and max_records is None else size  # what resultPages promised
            except ValueError as error:
                raise SalesforceError("API_ERROR", "Invalid locator") from error
        leaves = job.compiled.leaves() if job.compiled else []
        with self._lock:
            self._created += 1
            path = self.directory / f"{job.id}-page-{self._created}.csv"
        delimiter = DELIMITERS[job.delimiter]
        header = delimiter.join(f'"{name}"' for name, _ in leaves)
        fields = f"concat_ws({literal(delimiter)}, {', '.join(csv_text(leaf.field, f'r.{leaf.column}') for _, leaf in leaves)})"
        end = min(start + size, job.processed)
        self._write(path, header, f"SELECT {fields} FROM scratch.{job.table} r WHERE r._rn >= {start} AND r._rn < {end}", job.line_ending)
        return path, max(end - start, 0), _locator(end) if end < job.processed else "null"

    def _write(self, path: Path, header: str, lines: str, line_ending: str) -> None:
        """Write lines that DuckDB makes, as they are: CSV with neither quote nor delimiter of its own, one column."""
        carriage = " || chr(13)" if line_ending == "CRLF" else ""
        with self.org.reading() as cursor:
            cursor.execute(
                f"COPY (SELECT line{carriage} FROM (SELECT {literal(header)} AS line UNION ALL {lines}) t(line)) TO {literal(path)} "
                "(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
            )

    def result_pages(self, job: Job, locator: str | None, version: str, max_records: int | None = None) -> dict[str, Any]:
        """Up to five addresses of pages, to be fetched side by side."""
        if float(version) != float(job.version):
            raise SalesforceError("API_ERROR", "The API version of the request differs from that of the job", status=409)
        self._check_complete(job)
        try:
            start = int(base64.b64decode(locator + "==").decode().partition("-")[0]) if locator else 0
        except ValueError as error:
            raise SalesforceError("API_ERROR", "Invalid locator") from error
        size = self._page_size(max_records)
        base = f"/services/data/v{version}/jobs/query/{job.id}"
        starts = list(range(start, max(job.processed, 1), size))
        done = len(starts) <= PARALLEL_PAGES
        return {
            "resultPages": [{"resultUrl": f"{base}/results?locator={_locator(s, size)}"} for s in starts[:PARALLEL_PAGES]],
            "nextRecordsUrl": None if done else f"{base}/resultPages?locator={_locator(starts[PARALLEL_PAGES], size)}",
            "done": done,
        }

    # --- ingest jobs ---

    def create_ingest(self, body: Mapping[str, Any], user: str, version: str) -> dict[str, Any]:
        operation = str(body.get("operation", ""))
        if operation not in {"insert", "update", "upsert", "delete", "hardDelete"}:
            raise SalesforceError("INVALIDJOB", f"Unsupported operation: {operation}")
        try:
            sobject = self.org.sobject(str(body.get("object", "")))
        except SalesforceError as error:
            raise SalesforceError("INVALIDENTITY", f"Unable to find object: {body.get('object')}") from error
        key = body.get("externalIdFieldName")
        if operation == "upsert" and not key:
            raise SalesforceError("INVALIDJOB", "External ID was blank for upsert")
        job = self._new(body, operation=operation, object=sobject.name, user=user, version=version, state="Open")
        job.key = str(key) if key else None
        return self._add(job)

    def upload(self, job: Job, content: bytes) -> None:
        if job.state != "Open" or job.upload is not None:
            raise SalesforceError("INVALIDJOBSTATE", "The job's data was uploaded already")
        if len(content) > MAX_UPLOAD:
            raise SalesforceError("API_ERROR", "Found more than 150MB of data in a single upload")
        job.upload = self.directory / f"{job.id}-upload.csv"
        job.upload.write_bytes(content)

    def _ingest(self, job: Job) -> None:
        if job.upload is None:
            raise SalesforceError("InvalidBatch", "No data was uploaded")
        delimiter = DELIMITERS[job.delimiter]
        with job.upload.open(encoding="utf-8-sig", newline="") as lines:
            columns = next(csv.reader(lines, delimiter=delimiter), [])
        if not columns:
            raise SalesforceError("InvalidBatch", "The uploaded data has no header")
        source = CsvRows(job.upload, columns, delimiter)
        operation = job.operation
        request = ("PUT", f"/services/data/v{job.version}/jobs/ingest/{job.id}/batches")
        batch = Batch(operation, self.org.objects[job.object], source, job.user_id, key=job.key, request=request)

        def harvest(run: Run) -> None:
            job.processed = run.size
            job.failed = int(run.fetch("SELECT count(DISTINCT rn) FROM _error")[0][0])
            raw = f"(SELECT row_number() OVER () - 1 AS rn, * FROM {run.csv_relation()})"
            own = [f"replace(coalesce(c.{literal_name(name)}, ''), '\"', '\"\"')" for name in columns]
            cells = "".join(f" || {literal(delimiter)} || '\"' || {cell} || '\"'" for cell in own)
            head = "".join(f'{delimiter}"{name}"' for name in columns)
            created = "CASE WHEN r.created THEN '\"true\"' ELSE '\"false\"' END"
            run.copy_lines(
                self.result_path(job, "successfulResults"), f'"sf__Id"{delimiter}"sf__Created"{head}',
                f"SELECT '\"' || r.id || '\"{delimiter}' || {created}{cells} FROM _result r JOIN {raw} c ON c.rn = r.rn "
                "WHERE r.rn NOT IN (SELECT rn FROM _error) ORDER BY r.rn",
            )  # fmt: skip
            said = "e.code || ':' || e.message || ':' || array_to_string(coalesce(e.fields, []), ',') || ' --'"
            message = f"replace({said}, '\"', '\"\"')"
            run.copy_lines(
                self.result_path(job, "failedResults"), f'"sf__Id"{delimiter}"sf__Error"{head}',
                f"SELECT '\"' || coalesce(s._id_given, '') || '\"{delimiter}\"' || {message} || '\"'{cells} "
                f"FROM (FROM _error QUALIFY row_number() OVER (PARTITION BY rn ORDER BY code) = 1) e "
                f"JOIN _stage s ON s.rn = e.rn JOIN {raw} c ON c.rn = e.rn ORDER BY e.rn",
            )  # fmt: skip

        self.org.writer.run(batch, harvest)

    def result_path(self, job: Job, kind: str) -> Path:
        return self.directory / f"{job.id}-{kind}.csv"

    def ingest_results(self, job: Job, kind: str) -> bytes:
        """successfulResults, failedResults or unprocessedRecords as CSV."""
        if job.state in UNFINISHED:
            raise SalesforceError("INVALIDJOBSTATE", f"Job is not in a state that has results: {job.state}")
        path = self.result_path(job, kind)
        if path.exists():
            return path.read_bytes()
        if kind == "unprocessedRecords" and job.state != "JobComplete" and job.upload is not None:
            return job.upload.read_bytes()
        header = job.upload.open("rb").readline().rstrip(b"\r\n") if job.upload else b""
        lead = {"successfulResults": b'"sf__Id","sf__Created",', "failedResults": b'"sf__Id","sf__Error",'}.get(kind, b"")
        return lead + header + b"\n"


def literal_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _locator(start: int, size: int | None = None) -> str:
    text = f"{start}-{size}" if size else str(start)
    return base64.b64encode(text.encode()).decode().rstrip("=")
