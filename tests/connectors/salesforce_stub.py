"""A Salesforce of a hundred lines that does what a test tells it to: for what the simulator is too well-behaved to do."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DATA = "/services/data/v60.0"


def error(code: str, message: str = "no") -> list[dict[str, str]]:
    return [{"errorCode": code, "message": message}]


class Stub:
    """objects: rows by object; describe is made of the keys of the first row. page: records of a REST page and a bulk page."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {
            "Organization": [{"Id": "00D000000000001AAA", "Name": "Acme", "TimeZoneSidKey": "Europe/Berlin", "FiscalYearStartMonth": 2}],
            "Opportunity": [deal(n) for n in range(5)],
        }
        self.versions = ["58.0", "59.0", "60.0"]
        self.page, self.bulk_page = 2, 2
        self.result_pages = True
        self.now: datetime | None = NOW
        self.limit: str | None = "api-usage=10/10000"
        self.tokens = {"T0"}
        self.issued = 0
        self.secret = "right-secret"
        self.log: list[tuple[str, str]] = []
        self.forms: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.faults: list[tuple[re.Pattern[str], Callable[[Handler], bool]]] = []
        self.cursors: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.lock = threading.RLock()
        self.record: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda change: None

    # Faults: a function that answers (True) or lets the request pass (False); each is used once.

    def arm(self, path: str, fault: Callable[[Handler], bool], times: int = 1) -> None:
        self.faults += [(re.compile(path), fault)] * times

    def answer(self, path: str, status: int, body: Any = "", times: int = 1, **headers: str) -> None:
        self.arm(path, lambda h: h.send(status, body, headers) or True, times)

    def expire(self, path: str, times: int = 1) -> None:
        def strike(h: Handler) -> bool:
            self.tokens.clear()
            return False

        self.arm(path, strike, times)

    def drop(self, path: str) -> None:
        def strike(h: Handler) -> bool:
            h.close_connection = True
            h.connection.shutdown(2)
            return True

        self.arm(path, strike)

    def truncate(self, path: str) -> None:
        def strike(h: Handler) -> bool:
            h.cut = True
            return False

        self.arm(path, strike)

    def calls(self, pattern: str) -> int:
        return sum(1 for method, path in self.log if re.search(pattern, f"{method} {path}"))

    # Answers

    def rows(self, soql: str) -> tuple[list[str], list[dict[str, Any]]]:
        match = re.fullmatch(r"SELECT (.+?) FROM (\w+)(?: WHERE (.+))?", soql)
        assert match, soql
        fields, rows = match[1].split(", "), self.objects[match[2]]
        for condition in (match[3] or "").split(" AND "):
            if stamp := re.fullmatch(r"(\w+) >= (\S+)", condition):
                rows = [r for r in rows if str(r[stamp[1]])[:19] >= stamp[2][:19]]
        return fields, rows

    def handle(self, h: Handler, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        if path == "/services/data/":
            return h.send(200, [{"version": v, "url": f"/services/data/v{v}", "label": "x"} for v in self.versions])
        if path == "/services/oauth2/token":
            form = {k: v[0] for k, v in parse_qs(body.decode()).items()}
            self.forms.append(form)
            right = b64encode(f"id:{self.secret}".encode()).decode()
            if form["grant_type"] == "client_credentials" and h.headers["Authorization"] != f"Basic {right}":
                return h.send(400, {"error": "invalid_client", "error_description": "invalid client credentials"})
            with self.lock:
                self.issued += 1
                token = f"T{self.issued}"
                self.tokens.add(token)
            return h.send(200, {"access_token": token, "instance_url": "https://acme.my.salesforce.com"})
        if h.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens and "/Soap/" not in path:
            return h.send(401, error("INVALID_SESSION_ID", "Session expired or invalid"))
        if match := re.fullmatch(rf"{DATA}/sobjects/(\w+)/describe", path):
            rows = self.objects.get(match[1])
            if rows is None:
                return h.send(404, error("NOT_FOUND"))
            kinds = {"Amount": "currency", "Billing": "address"}
            fields = [{"name": n, "type": kinds.get(n, "string"), "label": n, "custom": n.endswith("__c")} for n in rows[0]]
            return h.send(200, {"name": match[1], "queryable": True, "fields": fields})
        if path in (f"{DATA}/queryAll/", f"{DATA}/query/"):
            if path == f"{DATA}/queryAll/" and re.search(r"FROM (Organization|User|UserRole|RecordType|OpportunityStage)\b", query["q"]):
                return h.send(400, error("INVALID_TYPE", "not supported by queryAll"))
            return self.page_of(h, query["q"], 0)
        if match := re.fullmatch(rf"{DATA}/query/(.+)-(\d+)", path):
            return self.page_of(h, self.cursors[int(match[1])], int(match[2]))
        if re.fullmatch(rf"{DATA}/sobjects/Opportunity/deleted/", path):
            gone = [{"id": "006000000000099AAA", "deletedDate": "2026-11-19T20:00:00.000+0000"}]
            dates = {"earliestDateAvailable": "2026-10-01T00:00:00.000+0000", "latestDateCovered": query["end"]}
            return h.send(200, {"deletedRecords": gone, **dates})
        if path.startswith(f"{DATA}/jobs/"):
            return self.job(h, method, path.removeprefix(f"{DATA}/jobs/").split("/"), query, body)
        if path == f"{DATA}/composite/sobjects":
            records = json.loads(body)["records"]
            self.bodies.append(records)
            return h.send(200, [self.record(r) or {"id": r["id"], "success": True, "errors": []} for r in records])
        h.send(404, error("NOT_FOUND"))

    def page_of(self, h: Handler, soql: str, start: int) -> None:
        fields, rows = self.rows(soql)
        part = rows[start : start + self.page]
        done = start + self.page >= len(rows)
        answer: dict[str, Any] = {"totalSize": len(rows), "done": done}
        if not done:
            self.cursors.append(soql)
            answer["nextRecordsUrl"] = f"{DATA}/query/{len(self.cursors) - 1}-{start + self.page}"
        answer["records"] = [{"attributes": {"type": "X", "url": "/x"}, **{f: r.get(f) for f in fields}} for r in part]
        h.send(200, answer)

    def job(self, h: Handler, method: str, parts: list[str], query: dict[str, str], body: bytes) -> None:
        kind, rest = parts[0], parts[1:]
        if not rest:
            job = f"750{len(self.jobs):012d}AAA"
            self.jobs[job] = {"id": job, "state": "UploadComplete", "polls": 0, **json.loads(body)}
            return h.send(200, self.jobs[job])
        job, state = rest[0], self.jobs[rest[0]]
        if method == "DELETE":
            state["deleted"] = True
            return h.send(204, b"")
        if rest[1:] == ["batches"]:
            state["csv"] = body.decode()
            return h.send(201, b"")
        if method == "PATCH":
            state["state"] = json.loads(body)["state"]
            return h.send(200, state)
        if kind == "ingest":
            return self.ingest(h, state, rest)
        fields, rows = self.rows(state["query"])
        if len(rest) == 1:
            state["polls"] += 1
            state["state"] = "JobComplete" if state["polls"] > 1 else "InProgress"
            return h.send(200, {"id": job, "state": state["state"], "numberRecordsProcessed": len(rows)})
        if rest[1] == "resultPages":
            if not self.result_pages:
                return h.send(404, error("NOT_FOUND"))
            starts = range(0, max(len(rows), 1), self.bulk_page)
            first = int(query.get("from", "0"))
            pages = [{"resultUrl": f"{DATA}/jobs/query/{job}/results?locator={s}"} for s in starts][first : first + 5]
            more = first + 5 < len(starts)
            following = f"{DATA}/jobs/query/{job}/resultPages?from={first + 5}" if more else None
            return h.send(200, {"resultPages": pages, "nextRecordsUrl": following, "done": not more})
        start = int(query.get("locator", "0"))
        part = rows[start : start + self.bulk_page]
        out = io.StringIO(newline="")
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(fields)
        writer.writerows([["" if r.get(f) is None else str(r[f]).replace("+0000", "Z") for f in fields] for r in part])
        following = str(start + self.bulk_page) if start + self.bulk_page < len(rows) else "null"
        told = {"Sforce-NumberOfRecords": str(len(part)), "Sforce-Locator": following, "Content-Type": "text/csv"}
        h.send(200, out.getvalue().encode(), told)

    def ingest(self, h: Handler, state: dict[str, Any], rest: list[str]) -> None:
        if len(rest) == 1:
            state["state"] = "JobComplete"
            return h.send(200, {"id": rest[0], "state": "JobComplete"})
        good, bad = io.StringIO(newline=""), io.StringIO(newline="")
        good_rows, bad_rows = csv.writer(good, quoting=csv.QUOTE_ALL), csv.writer(bad, quoting=csv.QUOTE_ALL)
        good_rows.writerow(["sf__Id", "sf__Created", "Id"])
        bad_rows.writerow(["sf__Id", "sf__Error", "Id"])
        for row in csv.DictReader(io.StringIO(state["csv"], newline="")):
            told = self.record({"id": row["Id"], **row})
            if told is None:
                good_rows.writerow([row["Id"], "false", row["Id"]])
            else:
                first = told["errors"][0]
                bad_rows.writerow(["", f"{first['statusCode']}:{first['message']}:--", row["Id"]])
        text = good if rest[1] == "successfulResults" else bad
        h.send(200, text.getvalue().encode(), {"Content-Type": "text/csv"})  # no charset, as a careless server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub
    disable_nagle_algorithm = True
    cut = False

    def work(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        with self.stub.lock:
            self.stub.log.append((self.command, self.path))
            fault = next(((p, f) for p, f in self.stub.faults if p.search(f"{self.command} {self.path}")), None)
            if fault:
                self.stub.faults.remove(fault)
        if not (fault and fault[1](self)):
            self.stub.handle(self, self.command, parts.path, query, body)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = work

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response_only(status)
        given = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        if self.stub.now:
            given["Date"] = format_datetime(self.stub.now, usegmt=True)
        if self.stub.limit:
            given["Sforce-Limit-Info"] = self.stub.limit
        for name, value in (given | (headers or {})).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.cut:
            self.cut, self.close_connection = False, True
            raw = raw[: len(raw) // 2]
        self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


def deal(n: int, **more: Any) -> dict[str, Any]:
    return {
        "Id": f"006{n:012d}AAA",
        "Name": f'Deal "{n}"\nof two lines, 5 < 6',
        "StageName": "Prospecting",
        "Amount": 100.5 + n,
        "CloseDate": "2026-12-01",
        "IsDeleted": False,
        "SystemModstamp": f"2026-11-{10 + n % 9:02d}T10:00:{n % 60:02d}.000+0000",
        **more,
    }


@contextmanager
def serving(stub: Stub) -> Any:
    handler = type("Bound", (Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
