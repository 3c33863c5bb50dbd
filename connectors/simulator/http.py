"""What both simulated CRMs share as HTTP servers: serving on loopback, failing on demand, counting, and remote control.

`instrument(app, ...)` puts the middleware around a server's own Starlette app, `serve(app)` runs it on a daemon thread.
Handlers may be plain functions: Starlette runs those in its thread pool.

Remote control, for rehearsals from another process, never counted and never failing::

    GET, POST, DELETE /__simulator__/faults     POST takes {"kind": ..., "times": ..., "after": ..., "path": ..., ...}
    GET, POST         /__simulator__/clock      POST takes any of {"now": ISO 8601, "advance_seconds": n, "frozen": true}
    GET, DELETE       /__simulator__/requests   counts by "METHOD route" and by status
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote_plus

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Fault, Faults

CONTROL = "/__simulator__/"
TRANSPORT = "plumbline.transport"  # key in the ASGI scope

ErrorBody = Callable[[int, Fault], tuple[Mapping[str, str], Any]]


@dataclass(frozen=True)
class Call:
    """One answered (or dropped: status 0) request. `path` is decoded and holds the query string."""

    at: datetime
    method: str
    path: str
    route: str
    status: int


class RequestLog:
    """Every request that a server got, control calls left out. `counts` is by "METHOD route", `calls` the last ones in order.

    watch: called with each request when its answer is ready, before the first byte of it is sent: a rehearsal may kill the client.
    """

    def __init__(self, keep: int = 20_000) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.calls: deque[Call] = deque(maxlen=keep)
        self.watch: Callable[[Call], None] | None = None

    def add(self, call: Call) -> None:
        with self._lock:
            self.counts[f"{call.method} {call.route}"] += 1
            self.statuses[call.status] += 1
            self.calls.append(call)
        if self.watch is not None:
            self.watch(call)

    def clear(self) -> None:
        with self._lock:
            self.counts.clear()
            self.statuses.clear()
            self.calls.clear()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {
                "total": sum(self.counts.values()),
                "counts": dict(self.counts),
                "statuses": {str(status): n for status, n in self.statuses.items()},
            }


def instrument(
    app: Starlette,
    *,
    clock: SimClock,
    faults: Faults,
    error_body: ErrorBody,
    daily_limit_status: int = 429,
    outside_daily_limit: str | None = None,
    log: RequestLog | None = None,
) -> Starlette:
    """Put faults, Date header, gzip, request log and remote control around `app`, and return it.

    error_body: called as `(status, fault)` for the CRM's own answer; gives headers and a body (bytes, text or anything JSON).
    daily_limit_status: what the CRM answers when the day's calls are used up (Salesforce 403, HubSpot 429).
    outside_daily_limit: path prefix that the daily limit does not touch (Salesforce's token endpoint).
    log: where requests are noted; default: a log of its own. `app.state.requests` is the RequestLog.
    """
    app.state.requests = log or RequestLog()
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=1)
    # Added last, so outermost: a truncated answer must be cut after compression, with the length that the client was told.
    app.add_middleware(
        _Instrument,
        clock=clock,
        faults=faults,
        log=app.state.requests,
        error_body=error_body,
        daily_limit_status=daily_limit_status,
        outside_daily_limit=outside_daily_limit,
    )
    return app


class _Instrument:
    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: SimClock,
        faults: Faults,
        log: RequestLog,
        error_body: ErrorBody,
        daily_limit_status: int,
        outside_daily_limit: str | None,
    ) -> None:
        self.app, self.clock, self.faults, self.log, self.error_body = app, clock, faults, log, error_body
        self.daily_limit_status, self.outside_daily_limit = daily_limit_status, outside_daily_limit
        self.control = _control(clock, faults, log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"]
        if path.startswith(CONTROL):
            return await self.control(scope, receive, send)

        query = unquote_plus(scope["query_string"].decode("latin-1"))
        full_path = f"{path}?{query}" if query else path

        def record(status: int) -> None:
            self.log.add(Call(self.clock.now(), scope["method"], full_path, _route(scope), status))

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                record(message["status"])
                headers = MutableHeaders(scope=message)
                headers.setdefault("Date", format_datetime(self.clock.now(), usegmt=True))
            await send(message)

        fault = self.faults.next(scope["method"], full_path)
        kind = fault.kind if fault else None
        if kind == "daily_limit" and self.outside_daily_limit and path.startswith(self.outside_daily_limit):
            kind = None
        if fault is None or kind is None:
            await self.app(scope, receive, send_on)
        elif kind == "slow":
            await asyncio.sleep(float(fault.detail["seconds"]))
            await self.app(scope, receive, send_on)
        elif kind == "drop":
            if fault.detail.get("applied"):
                await self._answer(scope, receive)
            else:
                await _drain(receive)
            record(0)
            await _close(scope, receive)
        elif kind == "truncate":
            start, body = await self._answer(scope, receive)
            record(start["status"])
            if len(body) >= 2:
                headers = MutableHeaders(scope=start)
                headers["Content-Length"] = str(len(body))
                headers.setdefault("Date", format_datetime(self.clock.now(), usegmt=True))
                del headers["Transfer-Encoding"]
                await send(start)
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _close(scope, receive)
        else:
            await _drain(receive)
            status = self.daily_limit_status if kind == "daily_limit" else int(fault.detail["status"])
            headers_, content = self.error_body(status, fault)
            merged = {"content-type": "application/json;charset=UTF-8"}
            for given in (headers_, fault.detail.get("headers") or {}):
                merged |= {name.lower(): str(value) for name, value in given.items()}
            if fault.detail.get("body") is not None:
                content = fault.detail["body"]
            await Response(_bytes(content), status, merged)(scope, receive, send_on)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """Let the app do its work and hold back what it answers."""
        start: Message = {}
        body = bytearray()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.app(scope, receive, hold)
        return start, bytes(body)


def _route(scope: Scope) -> str:
    """The path with its parameters named instead of filled in, so that calls can be counted by what they are."""
    names = {str(value): name for name, value in scope.get("path_params", {}).items()}
    return "/".join(f"{{{names[part]}}}" if part in names else part for part in scope["path"].split("/"))


def _bytes(content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.encode() if isinstance(content, str) else orjson.dumps(content)


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _close(scope: Scope, receive: Receive) -> None:
    """Close the connection under the answer, and wait until uvicorn knows, so that it sends nothing of its own."""
    transport: asyncio.Transport = scope[TRANSPORT]
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


def _control(clock: SimClock, faults: Faults, log: RequestLog) -> Starlette:
    def answer(content: Any, status: int = 200) -> Response:
        return Response(orjson.dumps(content), status, media_type="application/json")

    async def faults_(request: Request) -> Response:
        if request.method == "POST":
            try:
                faults.arm(**await request.json())
            except (TypeError, ValueError) as error:
                return answer({"error": str(error)}, 400)
        elif request.method == "DELETE":
            faults.clear()
        return answer([asdict(fault) for fault in faults.armed()])

    async def clock_(request: Request) -> Response:
        if request.method == "POST":
            try:
                wanted = await request.json()
                if "frozen" in wanted:
                    (clock.freeze if wanted["frozen"] else clock.run)()
                if "now" in wanted:
                    clock.set(datetime.fromisoformat(wanted["now"]))
                if "advance_seconds" in wanted:
                    clock.advance(timedelta(seconds=float(wanted["advance_seconds"])))
            except (TypeError, ValueError) as error:
                return answer({"error": str(error)}, 400)
        return answer({"now": clock.now().isoformat(timespec="milliseconds"), "frozen": clock.frozen})

    async def requests_(request: Request) -> Response:
        if request.method == "DELETE":
            log.clear()
        return answer(log.as_dict())

    return Starlette(
        routes=[
            Route(f"{CONTROL}faults", faults_, methods=["GET", "POST", "DELETE"]),
            Route(f"{CONTROL}clock", clock_, methods=["GET", "POST"]),
            Route(f"{CONTROL}requests", requests_, methods=["GET", "DELETE"]),
        ]
    )


class _Protocol(H11Protocol):
    """HTTP/1.1 that hands its transport to the app: to break a connection one must hold it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


class _Server(uvicorn.Server):
    """A uvicorn that leaves when told, not at its next tick, and that touches no signal handlers."""

    async def main_loop(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        if not self.should_exit:
            await self._leave.wait()

    def leave(self) -> None:
        self.should_exit = True
        with contextlib.suppress(AttributeError, RuntimeError):  # not yet in its loop, or out of it already
            self._loop.call_soon_threadsafe(self._leave.set)


@dataclass
class RunningServer:
    """A server on its thread. `url` has no trailing slash. Stops when told or with its process; also a context manager."""

    app: Starlette
    url: str
    port: int
    _server: _Server
    _thread: threading.Thread

    def stop(self) -> None:
        self._server.leave()
        self._thread.join(timeout=10)

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def serve(app: Starlette, port: int = 0) -> RunningServer:
    """Serve `app` on loopback from a daemon thread; returns when it answers. Port 0 takes a free one.

    Raises OSError when the port is taken.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off only then, and 40 ms an answer is what it would cost.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except OSError:
        listening.close()
        raise
    server = _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,  # told by the simulator's clock
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=256 * 1024,  # a long SOQL text travels in the URL
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="simulator-http", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("The simulator's HTTP server stopped before it had started")
        time.sleep(0.002)
    bound = listening.getsockname()[1]
    return RunningServer(app, f"http://127.0.0.1:{bound}", bound, server, thread)
