"""The org's HTTP API: OAuth, REST, composite collections, replication and Bulk API 2.0, answered as Salesforce answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from zlib import crc32

import orjson
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from connectors.simulator.faults import Fault
from connectors.simulator.http import instrument
from connectors.simulator.salesforce.bulk import Job
from connectors.simulator.salesforce.catalogue import SObject
from connectors.simulator.salesforce.compile import compile_query, literal
from connectors.simulator.salesforce.errors import DAILY_LIMIT, STATUS_BODIES, OAuthError, SalesforceError, not_found
from connectors.simulator.salesforce.ids import to_18
from connectors.simulator.salesforce.state import BIN_DAYS
from connectors.simulator.salesforce.writes import Batch, Outcome

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

OLDEST, NEWEST = 31, 68
JSON = "application/json;charset=UTF-8"
CSV = "text/csv;charset=UTF-8"
MASTER = "012000000000000AAA"  # the record type that every object has
URI_MOST = 16_384  # bytes of a request's URI, and of it with the headers
COLLECTION = 200  # records of one composite/sobjects call
REPLICATION_DAYS = 30  # how long ago getUpdated and getDeleted may start
MOST_IDS = 600_000  # in an answer of theirs


@dataclass
class Call:
    """One authenticated request. `user` is the id of the user who makes it."""

    request: Request
    body: bytes
    version: str
    user: str

    @property
    def params(self) -> Mapping[str, str]:
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def where(self) -> tuple[str, str]:
        return self.request.method, self.request.url.path

    def json(self) -> Any:
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise SalesforceError("JSON_PARSER_ERROR", f"Unexpected character in the request body: {error}") from error


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, {"content-type": JSON} | dict(headers or {}))


def no_content() -> Response:
    return Response(status_code=204)


def make_app(org: SalesforceOrg) -> Starlette:
    """The Starlette app of an org. `app.state.org` is the org, `app.state.requests` the log of requests."""
    api = _Api(org)
    v = "/services/data/v{version}"

    def route(path: str, *methods: tuple[str, Callable[[Call], Response]]) -> Route:
        handlers = dict(methods)

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            if too_long := _too_long(request):
                return too_long
            return await run_in_threadpool(api.handle, request, body, handlers[request.method.replace("HEAD", "GET")])

        return Route(path, endpoint, methods=list(handlers))

    routes = [
        Route("/services/oauth2/token", api.token, methods=["POST"]),
        Route("/services/oauth2/revoke", api.revoke, methods=["GET", "POST"]),
        Route("/services/data", api.versions),
        Route("/services/data/", api.versions),
        route("/services/oauth2/userinfo", ("GET", api.userinfo), ("POST", api.userinfo)),
        route(v, ("GET", api.resources)),
        route(v + "/", ("GET", api.resources)),
        route(v + "/limits", ("GET", api.limits)),
        route(v + "/limits/", ("GET", api.limits)),
        *(route(v + path, ("GET", api.query)) for path in ("/query", "/query/")),
        *(route(v + path, ("GET", api.query_all)) for path in ("/queryAll", "/queryAll/")),
        *(route(v + path + "/{locator}", ("GET", api.query_more)) for path in ("/query", "/queryAll")),
        *(route(v + path, ("GET", api.sobjects)) for path in ("/sobjects", "/sobjects/")),
        *(route(v + path, ("GET", api.sobject), ("POST", api.create)) for path in ("/sobjects/{sobject}", "/sobjects/{sobject}/")),
        *(route(v + path, ("GET", api.describe)) for path in ("/sobjects/{sobject}/describe", "/sobjects/{sobject}/describe/")),
        route(v + "/ui-api/object-info/{sobject}/picklist-values/{record_type}/{field}", ("GET", api.picklist_values)),
        *(route(v + path, ("GET", api.updated)) for path in ("/sobjects/{sobject}/updated", "/sobjects/{sobject}/updated/")),
        *(route(v + path, ("GET", api.deleted)) for path in ("/sobjects/{sobject}/deleted", "/sobjects/{sobject}/deleted/")),
        route(v + "/sobjects/{sobject}/{id}", ("GET", api.get), ("PATCH", api.update), ("DELETE", api.delete)),
        route(v + "/sobjects/{sobject}/{field}/{value:path}", ("GET", api.get_by), ("PATCH", api.upsert), ("DELETE", api.delete_by)),
        route(v + "/composite/sobjects", ("PATCH", api.update_all), ("POST", api.create_all), ("DELETE", api.delete_all)),
        route(v + "/composite/sobjects/", ("PATCH", api.update_all), ("POST", api.create_all), ("DELETE", api.delete_all)),
        route(v + "/composite/sobjects/{sobject}/{field}", ("PATCH", api.upsert_all)),
        *(route(v + path, ("POST", api.create_query_job), ("GET", api.query_jobs)) for path in ("/jobs/query", "/jobs/query/")),
        route(v + "/jobs/query/{job}", ("GET", api.query_job), ("PATCH", api.change_query_job), ("DELETE", api.delete_query_job)),
        route(v + "/jobs/query/{job}/results", ("GET", api.query_results)),
        route(v + "/jobs/query/{job}/resultPages", ("GET", api.query_result_pages)),
        *(route(v + path, ("POST", api.create_ingest_job), ("GET", api.ingest_jobs)) for path in ("/jobs/ingest", "/jobs/ingest/")),
        route(v + "/jobs/ingest/{job}", ("GET", api.ingest_job), ("PATCH", api.change_ingest_job), ("DELETE", api.delete_ingest_job)),
        route(v + "/jobs/ingest/{job}/batches", ("PUT", api.upload)),
        *(
            route(v + f"/jobs/ingest/{{job}}/{kind}", ("GET", api.ingest_results(kind)))
            for kind in ("successfulResults", "failedResults", "unprocessedRecords")
        ),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False
    app.state.org = org
    return instrument(
        app, clock=org.clock, faults=org.faults, error_body=_fault_body, daily_limit_status=403, outside_daily_limit="/services/oauth2/",
        log=org.request_log,
    )  # fmt: skip


def _fault_body(status: int, fault: Fault) -> tuple[dict[str, str], Any]:
    default = ("UNKNOWN_EXCEPTION", "An unexpected error occurred")
    code, message = DAILY_LIMIT if fault.kind == "daily_limit" else STATUS_BODIES.get(status, default)
    return {}, [{"message": message, "errorCode": code}]


async def _no_route(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").replace(" ", "")
        message = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
        return answer([{"message": message, "errorCode": "METHOD_NOT_ALLOWED"}], 405, error.headers)
    return answer(not_found().body(), 404)


def _too_long(request: Request) -> Response | None:
    """What the web server in front of the API answers to a long request line, or to long headers; no JSON, and no API call counted."""
    uri = len(request.scope["raw_path"]) + len(request.scope["query_string"]) + 1
    headers = sum(len(name) + len(value) + 4 for name, value in request.scope["headers"])
    if uri <= URI_MOST and uri + headers <= URI_MOST:
        return None
    status, said = (414, "URI Too Long") if uri > URI_MOST else (431, "Request Header Fields Too Large")
    return Response(f"<html><head><title>{said}</title></head><body><h1>{said}</h1></body></html>", status, media_type="text/html")


class _Api:
    def __init__(self, org: SalesforceOrg) -> None:
        self.org = org
        self.results, self.jobs = org.results, org.jobs

    # --- around every call ---

    def handle(self, request: Request, body: bytes, handler: Callable[[Call], Response]) -> Response:
        version = request.path_params.get("version", f"{NEWEST}.0")
        try:
            if not re.fullmatch(r"\d\d\.0", version) or not OLDEST <= float(version) <= NEWEST:
                raise not_found()
            user = self.org.identity.session(request.headers.get("authorization"))
            if not self.org.count_call():
                raise SalesforceError(*DAILY_LIMIT, status=403)
            response = handler(Call(request, body, version, user))
        except SalesforceError as error:
            response = answer(error.body(), error.status)
        response.headers["Sforce-Limit-Info"] = f"api-usage={self.org.calls_today}/{self.org.daily_limit}"
        return response

    # --- OAuth ---

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        return await run_in_threadpool(self._token, request, form)

    def _token(self, request: Request, form: Mapping[str, str]) -> Response:
        identity = self.org.identity
        try:
            user = identity.grant(form, request.headers.get("authorization"))
        except OAuthError as error:
            return answer({"error": error.error, "error_description": error.description}, error.status)
        organization = self.org.organization_id
        return answer(
            {
                "access_token": identity.issue(user),
                "signature": "c2lnbmF0dXJlIG9mIHRoZSBzaW11bGF0b3I=",
                "scope": "api",
                # The address that the client used: a real org answers its My Domain here.
                "instance_url": str(request.base_url).rstrip("/"),
                "id": f"https://login.salesforce.com/id/{organization}/{user}",
                "token_type": "Bearer",
                "issued_at": str(int(self.org.clock.now().timestamp() * 1000)),
            }
        )

    async def revoke(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode())) | dict(request.query_params)
        if "token" not in form:
            return answer({"error": "unsupported_token_type", "error_description": "this token is not supported"}, 400)
        self.org.identity.revoke(form["token"])
        return Response(status_code=200)

    def userinfo(self, call: Call) -> Response:
        name, username, email = self.org.rows(
            'SELECT concat_ws(\' \', "FirstName", "LastName"), "Username", "Email" FROM "User" WHERE "Id" = ?', [call.user]
        )[0]
        return answer(
            {
                "user_id": call.user, "organization_id": self.org.organization_id, "preferred_username": username, "name": name,
                "email": email, "active": True,
            }
        )  # fmt: skip

    # --- the org ---

    async def versions(self, request: Request) -> Response:
        def label(version: int) -> str:
            season = ("Spring", "Summer", "Winter")[(version - 60) % 3]
            year = 24 + (version - 60 + (1 if season == "Winter" else 0)) // 3
            return f"{season} '{year}"

        known = range(OLDEST, NEWEST + 1)
        return answer([{"label": label(n), "url": f"/services/data/v{n}.0", "version": f"{n}.0"} for n in known])

    def resources(self, call: Call) -> Response:
        names = ["composite", "jobs", "limits", "query", "queryAll", "sobjects", "ui-api"]
        identity = f"{str(call.request.base_url).rstrip('/')}/id/{self.org.organization_id}/{call.user}"
        return answer({name: f"/services/data/v{call.version}/{name}" for name in names} | {"identity": identity})

    def limits(self, call: Call) -> Response:
        org = self.org
        fixed = {
            "ConcurrentAsyncGetReportInstances": 200, "DailyAsyncApexExecutions": 250_000, "DailyBulkApiBatches": 15_000,
            "DailyBulkV2QueryFileStorageMB": 976_562, "DailyBulkV2QueryJobs": 10_000, "DataStorageMB": 10_240, "FileStorageMB": 20_480,
            "HourlyTimeBasedWorkflow": 1_000, "MassEmail": 5_000, "SingleEmail": 5_000,
        }  # fmt: skip
        body: dict[str, Any] = {name: {"Max": n, "Remaining": n} for name, n in fixed.items()}
        body["DailyBulkV2QueryJobs"]["Remaining"] -= self.jobs.queries_today()
        body["DailyApiRequests"] = {"Max": org.daily_limit, "Remaining": max(org.daily_limit - org.calls_today, 0)}
        return answer({name: body[name] for name in sorted(body)})

    def sobjects(self, call: Call) -> Response:
        shown = [o.summary(call.version) for o in sorted(self.org.objects.values(), key=lambda o: o.name) if not o.hidden]
        return answer({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": shown})

    def sobject(self, call: Call) -> Response:
        o = self._sobject(call)
        return answer({"objectDescribe": o.summary(call.version), "recentItems": []})

    def describe(self, call: Call) -> Response:
        o = self._sobject(call)
        base = str(call.request.base_url).rstrip("/")
        described = o.describe(call.version, base)
        if o.name == "Opportunity":
            described = self._with_set_up(described, call.version)
        return answer(described)

    def _with_set_up(self, described: dict[str, Any], version: str) -> dict[str, Any]:
        """Stages and record types are set-up records of the org: the describe shows what they are now."""
        stages = self.org.rows('SELECT "ApiName", "MasterLabel", "IsActive" FROM "OpportunityStage" ORDER BY "SortOrder"')
        values = [
            {"active": active, "defaultValue": False, "label": label, "validFor": None, "value": name} for name, label, active in stages
        ]
        types = self.org.rows(
            'SELECT "Id", "Name", "DeveloperName", "IsActive" FROM "RecordType" WHERE "SobjectType" = \'Opportunity\' ORDER BY "Id"'
        )
        layouts = f"/services/data/v{version}/sobjects/Opportunity/describe/layouts"
        infos = [
            {"active": active, "available": True, "defaultRecordTypeMapping": place == 0, "developerName": developer, "master": False,
             "name": name, "recordTypeId": id, "urls": {"layout": f"{layouts}/{id}"}}
            for place, (id, name, developer, active) in enumerate(types)
        ]  # fmt: skip
        master = described["recordTypeInfos"][0] | {"defaultRecordTypeMapping": not infos}
        master["urls"] = {"layout": f"{layouts}/{MASTER}"}
        fields = [f | {"picklistValues": values} if f["name"] == "StageName" else f for f in described["fields"]]
        return described | {"fields": fields, "recordTypeInfos": [*infos, master]}

    def picklist_values(self, call: Call) -> Response:
        """UI API: the values that a record type offers of a picklist; stages are those of its sales process."""
        o = self._sobject(call)
        f, record_type = o.field(call.params["field"]), to_18(call.params["record_type"])
        known = record_type == MASTER or self.org.rows(
            'SELECT 1 FROM "RecordType" WHERE "Id" = ? AND "SobjectType" = ?', [record_type, o.name]
        )  # fmt: skip
        if f is None or f.type not in {"picklist", "multipicklist"} or not known or float(call.version) < 41:
            raise not_found()
        values: list[dict[str, Any]] = []
        if (o.name, f.name) == ("Opportunity", "StageName"):
            for stage in self.org.stages_of(record_type or MASTER):
                attributes = {
                    "closed": stage["IsClosed"], "defaultProbability": float(stage["DefaultProbability"]),
                    "forecastCategoryName": stage["ForecastCategoryName"], "picklistAtrributesValueType": "OpportunityStage",
                    "won": stage["IsWon"],
                }  # fmt: skip
                values.append({"attributes": attributes, "label": stage["MasterLabel"], "validFor": [], "value": stage["ApiName"]})
        else:
            active = [p for p in f.definition["picklistValues"] if p["active"]]
            values = [{"attributes": None, "label": p["label"], "validFor": [], "value": p["value"]} for p in active]
        tag = f"{crc32(orjson.dumps(values)):08x}"
        return answer({"controllerValues": {}, "defaultValue": None, "eTag": tag, "url": call.request.url.path, "values": values})

    # --- queries ---

    def query(self, call: Call, *, all_rows: bool = False) -> Response:
        text = call.query.get("q")
        if not text:
            raise SalesforceError("MALFORMED_QUERY", "SOQL statements cannot be empty or null")
        return answer(self.results.query(text, call.version, all_rows=all_rows, batch=_batch_size(call) or 2000))

    def query_all(self, call: Call) -> Response:
        return self.query(call, all_rows=True)

    def query_more(self, call: Call) -> Response:
        return answer(self.results.page(call.params["locator"], call.version, _batch_size(call)))

    # --- single records ---

    def _sobject(self, call: Call) -> SObject:
        return self.org.sobject(call.params["sobject"])

    def _one(self, o: SObject, condition: str, call: Call) -> bytes:
        """The one visible record for which a DuckDB condition holds, as JSON."""
        wanted = call.query.get("fields")
        names = wanted.split(",") if wanted else [f.name for f in o.visible()]
        compiled = compile_query(f"SELECT {', '.join(names)} FROM {o.name}", self.org.context(), all_rows=True, version=call.version)
        with self.org.reading() as cursor:
            found = cursor.execute(
                f"SELECT {compiled.json_row(self.org.objects, call.version)}, x.deleted FROM ({compiled.sql}) r JOIN "
                f'(SELECT "Id", {chr(34) + "IsDeleted" + chr(34) if o.soft_deletes else "false"} AS deleted FROM "{o.name}" '
                f'WHERE {condition}) x ON x."Id" = r._id'
            ).fetchall()
        alive = [record for record, deleted in found if not deleted]
        if found and not alive:
            raise SalesforceError("ENTITY_IS_DELETED", "entity is deleted", status=404)
        if not alive:
            raise not_found("Provided external ID field does not exist or is not accessible" if "lower(" in condition else
                            "The requested resource does not exist")  # fmt: skip
        return alive[0].encode()

    def get(self, call: Call) -> Response:
        o = self._sobject(call)
        record_id = to_18(call.params["id"])
        if record_id is None:
            raise not_found()
        return answer(self._one(o, f'"Id" = {literal(record_id)}', call))

    def _by_key(self, call: Call) -> tuple[SObject, str, str]:
        o = self._sobject(call)
        f = o.field(call.params["field"])
        if f is None or not (f.definition["idLookup"] or f.definition["externalId"]):
            raise not_found("Provided external ID field does not exist or is not accessible: " + call.params["field"])
        return o, f.name, unquote(call.params["value"])

    def get_by(self, call: Call) -> Response:
        o, name, value = self._by_key(call)
        return answer(self._one(o, f'lower("{name}") = lower({literal(value)})', call))

    def create(self, call: Call) -> Response:
        outcome = self._write("insert", self._sobject(call), [call.json()], call)[0]
        return answer({"id": outcome.id, "success": True, "errors": []}, 201)

    def update(self, call: Call) -> Response:
        self._write("update", self._sobject(call), [{**call.json(), "Id": call.params["id"]}], call)
        return no_content()

    def upsert(self, call: Call) -> Response:
        o, name, value = self._by_key(call)
        outcome = self._write("upsert", o, [{**call.json(), ("Id" if name == "Id" else name): value}], call, key=name)[0]
        body: dict[str, Any] = {"id": outcome.id, "success": True, "errors": [], "created": outcome.created}
        return answer(body, 201 if outcome.created else 200)

    def delete(self, call: Call) -> Response:
        self._write("delete", self._sobject(call), [{"Id": call.params["id"]}], call)
        return no_content()

    def delete_by(self, call: Call) -> Response:
        o, name, value = self._by_key(call)
        record = orjson.loads(self._one(o, f'lower("{name}") = lower({literal(value)})', call))
        self._write("delete", o, [{"Id": record["Id"]}], call)
        return no_content()

    def _write(self, operation: str, o: SObject, rows: list[dict[str, Any]], call: Call, *, key: str | None = None) -> list[Outcome]:
        """A write of one record: its errors are the answer."""
        outcomes = self.org.writer.write(Batch(operation, o, rows, call.user, key=key, request=call.where))
        if outcomes[0].errors:
            code, message, fields = outcomes[0].errors[0]
            missing = code in {"INVALID_CROSS_REFERENCE_KEY", "ENTITY_IS_DELETED", "MALFORMED_ID"} and not fields
            forbidden = code.startswith("INSUFFICIENT_ACCESS")
            raise SalesforceError(code, message, status=404 if missing else 403 if forbidden else 400, fields=fields)
        return outcomes

    # --- collections ---

    def _records(self, call: Call) -> tuple[list[dict[str, Any]], bool]:
        body: Any = call.json()
        if not isinstance(body, dict) or not isinstance(body.get("records"), list):
            raise SalesforceError("JSON_PARSER_ERROR", "The records of the request are missing")
        records = body["records"]
        if len(records) > COLLECTION:
            raise SalesforceError("EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {COLLECTION} records into this call")
        return records, bool(body.get("allOrNone", False))

    def _collection(self, operation: str, call: Call) -> Response:
        records, all_or_none = self._records(call)
        kinds = [str((record.get("attributes") or {}).get("type", "")) for record in records]
        if not all(kinds):
            raise SalesforceError("INVALID_INPUT", "The attributes.type of a record is missing")
        chunks = [(kind, list(places)) for kind, places in groupby(range(len(records)), key=kinds.__getitem__)]
        if len(chunks) > 10:
            raise SalesforceError("INVALID_INPUT", "Records of more than 10 chunks of types cannot be processed in one call")
        answers: list[dict[str, Any]] = []
        for kind, places in chunks:
            batch = Batch(
                operation, self.org.sobject(kind), [records[p] for p in places], call.user, all_or_none=all_or_none, request=call.where
            )
            answers += [_saved(outcome) for outcome in self.org.writer.write(batch)]
        return answer(answers)

    def update_all(self, call: Call) -> Response:
        return self._collection("update", call)

    def create_all(self, call: Call) -> Response:
        return self._collection("insert", call)

    def upsert_all(self, call: Call) -> Response:
        records, all_or_none = self._records(call)
        o, key = self._sobject(call), call.params["field"]
        batch = Batch("upsert", o, records, call.user, key=key, all_or_none=all_or_none, request=call.where)
        return answer([_saved(outcome, upsert=True) for outcome in self.org.writer.write(batch)])

    def delete_all(self, call: Call) -> Response:
        given = [i for i in call.query.get("ids", "").split(",") if i]
        all_or_none = call.query.get("allOrNone", "false").lower() == "true"
        if len(given) > COLLECTION:
            raise SalesforceError("EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {COLLECTION} records into this call")
        prefixes = {o.prefix: o for o in self.org.objects.values()}
        answers: list[dict[str, Any]] = []
        for prefix, ids in groupby(given, key=lambda i: i[:3]):
            if prefix not in prefixes:
                answers += [_saved(Outcome(None, errors=[("MALFORMED_ID", f"bad id {i}", [])])) for i in ids]
                continue
            batch = Batch("delete", prefixes[prefix], [{"Id": i} for i in ids], call.user, all_or_none=all_or_none, request=call.where)
            answers += [_saved(outcome) for outcome in self.org.writer.write(batch)]
        return answer(answers)

    # --- replication ---

    def _window(self, call: Call) -> tuple[datetime, datetime]:
        def instant(name: str) -> datetime:
            text = call.query.get(name)
            try:
                # A plus sign that was not escaped arrives as a blank.
                found = datetime.fromisoformat((text or "").replace(" ", "+"))
            except ValueError as error:
                raise SalesforceError("INVALID_REPLICATION_DATE", f"{name}: not an instant with a time zone: {text}") from error
            if found.tzinfo is None:
                raise SalesforceError("INVALID_REPLICATION_DATE", f"{name}: not an instant with a time zone: {text}")
            return found.astimezone(UTC).replace(second=0, microsecond=0)  # seconds are ignored

        o = self._sobject(call)
        if not o.head["replicateable"]:
            raise SalesforceError("INVALID_TYPE", f"sObject type '{o.name}' is not replicateable")
        start, end = instant("start"), instant("end")
        if end - start < timedelta(minutes=1):
            raise SalesforceError("INVALID_REPLICATION_DATE", "endDate must be at least one minute greater than startDate")
        if start < self.org.clock.now() - timedelta(days=REPLICATION_DAYS):
            raise SalesforceError("INVALID_REPLICATION_DATE", f"startDate cannot be more than {REPLICATION_DAYS} days ago")
        return start, end

    def _seen(self, o: SObject, alias: str) -> str:
        """A condition on rows of an object: what sharing leaves the user of it."""
        condition = self.org.context().sharing.get(o.name)
        return f" AND {condition.replace('{t}', alias)}" if condition else ""

    def _covered(self, end: datetime) -> datetime:
        return min(end, self.org.covered_until().replace(second=0))

    def updated(self, call: Call) -> Response:
        o = self._sobject(call)
        start, end = self._window(call)
        alive = 'NOT o."IsDeleted" AND ' if o.soft_deletes else ""
        stamp = next(f'o."{name}"' for name in ("SystemModstamp", "LastModifiedDate", "CreatedDate") if name in o.fields)
        found = self.org.rows(
            f'SELECT o."Id" FROM "{o.name}" o WHERE {alive}{stamp} >= {literal(start)} AND {stamp} < {literal(end)} '
            f"{self._seen(o, 'o')} LIMIT {MOST_IDS + 1}"
        )
        _check_ids(found)
        return answer({"ids": [row[0] for row in found], "latestDateCovered": _instant(self._covered(end))})

    def deleted(self, call: Call) -> Response:
        """The log of deletions reaches back as long as the recycle bin keeps records, or to its last purge."""
        o = self._sobject(call)
        start, end = self._window(call)
        earliest = max(
            self.org.clock.now() - timedelta(days=BIN_DAYS), self._since(), self.org.log_since() or datetime.min.replace(tzinfo=UTC)
        )
        if self.org.replication_errors and start < earliest.replace(second=0, microsecond=0):
            raise SalesforceError("INVALID_REPLICATION_DATE", f"startDate is before the earliest date available: {_instant(earliest)}")
        found = self.org.rows(
            "SELECT o.\"Id\", strftime(max(o.deleted_at), '%Y-%m-%dT%H:%M:%S.000+0000') "
            "FROM (SELECT id AS \"Id\", deleted_at FROM simulator.deletion WHERE sobject = ?) o "
            f"WHERE o.deleted_at >= {literal(max(start, earliest))} AND o.deleted_at < {literal(end)} {self._told(o)} "
            f'GROUP BY o."Id" ORDER BY max(o.deleted_at), o."Id" LIMIT {MOST_IDS + 1}',
            [o.name],
        )
        _check_ids(found)
        return answer(
            {
                "deletedRecords": [{"deletedDate": when, "id": id} for id, when in found],
                "earliestDateAvailable": _instant(earliest),
                "latestDateCovered": _instant(self._covered(end)),
            }
        )

    def _told(self, o: SObject) -> str:
        """A condition on the log's rows: deletions of records that the user may not see are not told."""
        condition = self._seen(o, "x")
        if not condition:
            return ""
        return (
            f' AND o."Id" NOT IN (SELECT x."Id" FROM "{o.name}" x WHERE NOT (true {condition})) '
            f"AND o.\"Id\" NOT IN (SELECT id FROM simulator.unshared WHERE sobject = '{o.name}')"
        )

    def _since(self) -> datetime:
        created: datetime = self.org.rows('SELECT "CreatedDate" FROM "Organization"')[0][0]
        return created.replace(tzinfo=UTC)

    # --- Bulk API 2.0 ---

    def _check_bulk(self) -> None:
        if not self.org.bulk_enabled:
            raise SalesforceError("FEATURENOTENABLED", "Bulk API is not enabled for this organization or user", status=403)

    def _query_job(self, call: Call) -> Job:
        self._check_bulk()
        return self.jobs.get(call.params["job"], query=True)

    def _ingest_job(self, call: Call) -> Job:
        self._check_bulk()
        return self.jobs.get(call.params["job"], query=False)

    def create_query_job(self, call: Call) -> Response:
        self._check_bulk()
        return answer(self.jobs.create_query(call.json(), call.user, call.version))

    def query_jobs(self, call: Call) -> Response:
        self._check_bulk()
        return answer(self.jobs.listing(call.query, query=True, version=call.version))

    def query_job(self, call: Call) -> Response:
        return answer(self.jobs.info(self._query_job(call)))

    def change_query_job(self, call: Call) -> Response:
        return answer(self.jobs.change_state(self._query_job(call), str(call.json().get("state"))))

    def delete_query_job(self, call: Call) -> Response:
        self.jobs.delete(self._query_job(call))
        return no_content()

    def query_results(self, call: Call) -> Response:
        limit = _positive(call.query.get("maxRecords"), "maxRecords")
        path, rows, following = self.jobs.result_page(self._query_job(call), call.query.get("locator"), limit)
        headers = {"content-type": CSV, "Sforce-Locator": following, "Sforce-NumberOfRecords": str(rows)}
        return FileResponse(path, headers=headers, background=BackgroundTask(path.unlink, missing_ok=True))

    def query_result_pages(self, call: Call) -> Response:
        if float(call.version) < 58:
            raise not_found()
        limit = _positive(call.query.get("maxRecords"), "maxRecords")
        return answer(self.jobs.result_pages(self._query_job(call), call.query.get("locator"), call.version, limit))

    def create_ingest_job(self, call: Call) -> Response:
        self._check_bulk()
        return answer(self.jobs.create_ingest(call.json(), call.user, call.version))

    def ingest_jobs(self, call: Call) -> Response:
        self._check_bulk()
        return answer(self.jobs.listing(call.query, query=False, version=call.version))

    def ingest_job(self, call: Call) -> Response:
        return answer(self.jobs.info(self._ingest_job(call)))

    def change_ingest_job(self, call: Call) -> Response:
        return answer(self.jobs.change_state(self._ingest_job(call), str(call.json().get("state"))))

    def delete_ingest_job(self, call: Call) -> Response:
        self.jobs.delete(self._ingest_job(call))
        return no_content()

    def upload(self, call: Call) -> Response:
        if not call.request.headers.get("content-type", "").startswith("text/csv"):
            raise SalesforceError("INVALIDCONTENTTYPE", "The content type of the data is text/csv")
        self.jobs.upload(self._ingest_job(call), call.body)
        return Response(status_code=201)

    def ingest_results(self, kind: str) -> Callable[[Call], Response]:
        def handler(call: Call) -> Response:
            return Response(self.jobs.ingest_results(self._ingest_job(call), kind), headers={"content-type": CSV})

        return handler


def _saved(outcome: Outcome, *, upsert: bool = False) -> dict[str, Any]:
    """An outcome as sObject Collections show it; a failed record carries no id, so that order alone tells whose it is."""
    if outcome.errors:
        errors = [{"statusCode": code, "message": message, "fields": fields} for code, message, fields in outcome.errors]
        return {"success": False, "errors": errors}
    shown: dict[str, Any] = {"id": outcome.id, "success": True, "errors": []}
    return shown | {"created": outcome.created} if upsert else shown


def _batch_size(call: Call) -> int | None:
    found = re.search(r"batchSize\s*=\s*(\d+)", call.request.headers.get("Sforce-Query-Options", ""))
    return min(max(int(found[1]), 200), 2000) if found else None


def _positive(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise SalesforceError("API_ERROR", f"{name} must be a positive number")
    return int(text)


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.000+0000"


def _check_ids(found: list[tuple[Any, ...]]) -> None:
    if len(found) > MOST_IDS:
        raise SalesforceError("EXCEEDED_ID_LIMIT", "too many ids in the period: choose a shorter one")
