"""Bulk API 2.0: query jobs and ingest jobs. Their work runs on threads of its own, as the platform's queue does."""

from __future__ import annotations

import base64
import csv
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
MAX_UPLOAD = 150_000_000  # bytes
UNFINISHED = {"Open", "UploadComplete", "InProgress"}


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
    compiled: Compiled | None = None  # query jobs
    key: str | None = None  # external id field of an upsert
    upload: Path | None = None
    polls_left: int = 0
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
        """Raises NOT_FOUND."""
        with self._lock:
            job = self._jobs.get(to_18(job_id) or "")
        if job is None or job.is_query is not query:
            raise SalesforceError("NOT_FOUND", "The requested resource does not exist", status=404)
        return job

    def info(self, job: Job) -> dict[str, Any]:
        """The job as a poll sees it: first UploadComplete, for a while InProgress, then what it is."""
        state = job.state
        if state in {"JobComplete", "Failed"} and job.polls_left > 0:
            job.polls_left -= 1
            state = "InProgress"
        return self._show(job, state)

    def list(self, *, query: bool) -> dict[str, Any]:
        with self._lock:
            jobs = [job for job in self._jobs.values() if job.is_query is query]
        return {"done": True, "records": [self._show(job, job.state) for job in jobs], "nextRecordsUrl": None}

    def _show(self, job: Job, state: str, *, fresh: bool = False) -> dict[str, Any]:
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
            shown |= {"jobType": "V2Query" if job.is_query else "V2Ingest", "retries": 0, "totalProcessingTime": 0}
            shown["numberRecordsProcessed"] = job.processed if state in {"JobComplete", "Failed"} else 0
            if not job.is_query:
                shown["numberRecordsFailed"] = job.failed if state in {"JobComplete", "Failed"} else 0
        if job.error and state == "Failed":
            shown["errorMessage"] = job.error
        return shown

    def change_state(self, job: Job, wanted: str) -> dict[str, Any]:
        """Abort a job, or tell an ingest job that its data is uploaded."""
        if wanted == "Aborted" and (job.state in UNFINISHED or job.polls_left > 0):
            job.state, job.polls_left = "Aborted", 0
        elif wanted == "UploadComplete" and job.state == "Open" and not job.is_query:
            job.state = "UploadComplete"
            shown = self._show(job, job.state)
            self._start(job)
            return shown
        else:
            raise SalesforceError("INVALIDJOBSTATE", f"Transition from {job.state} to {wanted} is not allowed.")
        return self._show(job, job.state)

    def delete(self, job: Job) -> None:
        if job.state in {"UploadComplete", "InProgress"}:
            raise SalesforceError("API_ERROR", f"Error encountered when deleting the job because the job is not terminated: {job.state}")
        with self._lock:
            self._jobs.pop(job.id, None)
        results.drop(self.org, job.table)
        for path in self.directory.glob(f"{job.id}*"):
            path.unlink(missing_ok=True)

    def _start(self, job: Job) -> None:
        job.polls_left = self.org.in_progress_polls
        job.state = "InProgress"  # at once: whether a poll outruns the thread must not decide what it sees
        threading.Thread(target=self._work, args=(job,), name=f"bulk-{job.id}", daemon=True).start()

    def _work(self, job: Job) -> None:
        try:
            if job.compiled is not None:
                job.processed = results.store(self.org, job.compiled, job.table)
            else:
                self._ingest(job)
            finished = "JobComplete"
        except SalesforceError as error:
            job.error = f"{error.code} : {error.message}"
            finished = "Failed"
        except Exception as error:  # an ended thread would leave the client polling for ever
            job.error = f"UNKNOWN_EXCEPTION : {type(error).__name__}: {error}"
            finished = "Failed"
        if job.state != "Aborted":
            job.state = finished
        job.done.set()

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
        job.compiled = compiled
        shown = self._add(job)
        self._start(job)
        return shown

    def result_page(self, job: Job, locator: str | None, max_records: int | None) -> tuple[Path, int, str]:
        """A page of results as a CSV file, its number of records, and the locator of the next page ("null" at the end)."""
        if job.state != "JobComplete":
            raise SalesforceError("INVALIDJOBSTATE", f"Job is not in a state that has results: {job.state}")
        start, size = 0, max_records or PAGE
        if locator and locator != "null":
            try:
                start_text, _, size_text = base64.b64decode(locator + "==").decode().partition("-")
                start = int(start_text)
                size = int(size_text) if size_text and max_records is None else size
            except ValueError as error:
                raise SalesforceError("API_ERROR", "Invalid locator") from error
        leaves = job.compiled.leaves() if job.compiled else []
        with self._lock:
            self._created += 1
            path = self.directory / f"{job.id}-page-{self._created}.csv"
        delimiter = DELIMITERS[job.delimiter]
        header = delimiter.join(f'"{name}"' for name, _ in leaves)
        fields = f" || {literal(delimiter)} || ".join(csv_text(leaf.field, f"r.{leaf.column}") for _, leaf in leaves)
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
        if job.state != "JobComplete":
            raise SalesforceError("INVALIDJOBSTATE", f"Job is not in a state that has results: {job.state}")
        start = int(base64.b64decode(locator + "==").decode().partition("-")[0]) if locator else 0
        size = max_records or PAGE
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
        batch = Batch(operation, self.org.objects[job.object], source, job.user_id, key=job.key)

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
