"""The portal's HTTP side: paths of /crm/v3, /crm/v4 and of the dated versions, with HubSpot's statuses and bodies.

A request passes authentication, rate limits and scopes, in this order, and only then meets its handler. Handlers are plain
functions that run in Starlette's thread pool; the state's lock puts them one after the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.simulator.http import instrument
from connectors.simulator.hubspot import routes
from connectors.simulator.hubspot.call import Call, Handler
from connectors.simulator.hubspot.errors import ApiError, fault_body, validation
from connectors.simulator.hubspot.portal import HubSpotPortal

DATED = re.compile(r"^20\d\d-(0[1-9]|1[0-2])$")
JSON = "application/json;charset=utf-8"
URI_MOST = 8192  # bytes of a request's URI; HubSpot names no number, 8 KB is where web servers in front of APIs begin to refuse


def build(portal: HubSpotPortal) -> Starlette:
    declared = [
        Route(path, _endpoint(portal, handler), methods=[method], include_in_schema=False)
        for method, path, handler in routes.table()
    ]
    app = Starlette(routes=declared, exception_handlers={HTTPException: _http_error, Exception: _internal_error})
    return instrument(app, clock=portal.clock, faults=portal.faults, error_body=fault_body, daily_limit_status=429)


def _endpoint(portal: HubSpotPortal, handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(partial(_serve, portal, handler, request, body))

    return endpoint


def _serve(portal: HubSpotPortal, handler: Handler, request: Request, body: bytes) -> Response:
    headers: dict[str, str] = {}
    path = request.url.path
    if len(request.scope["raw_path"]) + len(request.scope["query_string"]) + 1 > URI_MOST:  # the web server's answer: no JSON, no call counted
        return Response("<html><head><title>414 Request-URI Too Large</title></head></html>", 414, media_type="text/html")
    try:
        version = request.path_params.get("version")
        if version is not None and not DATED.match(version):
            raise ApiError(404, "resource not found")
        call = Call(
            portal,
            request.method,
            path,
            request.path_params,
            parse_qsl(request.url.query, keep_blank_values=True),
            request.url.netloc,
        )
        if not path.startswith("/oauth/"):
            portal.access.check(request.headers.get("authorization"))
            headers = portal.limits.take(call.now, portal.settings["timezone"], search=path.endswith("/search"))
        if request.method in ("POST", "PUT", "PATCH"):
            _read_body(call, request, body)
        if request.method != "GET" and not path.endswith(("/search", "/batch/read")):
            call.late = portal.faults.late_commit(request.method, path)
        portal.refresh()
        answer = handler(call)
    except ApiError as error:
        return Response(orjson.dumps(error.body()), error.status, {**headers, **error.headers}, media_type=JSON)
    if answer.body is None:
        return Response(b"", answer.status, headers)
    content = answer.body if isinstance(answer.body, str) else orjson.dumps(answer.body)
    return Response(content, answer.status, headers, media_type=JSON)


def _read_body(call: Call, request: Request, body: bytes) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded" and call.path.startswith("/oauth/"):
        call.form = dict(parse_qsl(body.decode("utf-8", "replace")))
        return
    if not body:
        return
    if kind != "application/json":
        raise ApiError(415, f"Unsupported Media Type: {kind or 'none'}", "VALIDATION_ERROR")
    try:
        call.json = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise validation(f"Invalid input JSON on line {error.lineno}, column {error.colno}: {error.msg}") from None


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "resource not found", 405: "HTTP 405 Method Not Allowed"}.get(status, "The request was refused.")
    return Response(orjson.dumps(ApiError(status, words).body()), status, media_type=JSON)


async def _internal_error(request: Request, error: Exception) -> Response:
    return Response(orjson.dumps(ApiError(500, "internal error").body()), 500, media_type=JSON)
