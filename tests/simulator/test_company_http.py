"""The shared HTTP part of the simulators, seen by a real client over a real socket."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest
import requests
import urllib3
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import instrument, serve

START = datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=UTC)


class _Http(requests.Session):
    """Every call on a connection of its own, none for ever."""

    def request(self, *args, **kwargs):
        kwargs["headers"] = {"Connection": "close"} | (kwargs.get("headers") or {})
        return super().request(*args, **{"timeout": 10} | kwargs)


http = _Http()


class Crm:
    def __init__(self):
        self.clock, self.faults, self.written = SimClock(START), Faults(), []
        app = Starlette(
            routes=[
                Route("/things/{id}", lambda r: JSONResponse({"id": r.path_params["id"]})),
                Route("/big", lambda r: JSONResponse(["word"] * 5000)),
                Route("/stream", lambda r: StreamingResponse(iter([b"a" * 700, b"b" * 700]))),
                Route("/peer", lambda r: PlainTextResponse(str(r.client.port))),
                Route("/write", self.write, methods=["POST"]),
            ]
        )
        instrument(
            app, clock=self.clock, faults=self.faults, error_body=self.error_body,
            daily_limit_status=403, outside_daily_limit="/things",
        )
        self.server = serve(app)
        self.url, self.requests = self.server.url, app.state.requests

    def write(self, request):
        self.written.append(1)
        return JSONResponse({"ok": True})

    @staticmethod
    def error_body(status, fault):
        return {"X-Crm": "yes"}, [{"errorCode": f"{fault.kind}-{status}"}]


@pytest.fixture
def crm():
    crm = Crm()
    yield crm
    crm.server.stop()


def test_clock_runs_freezes_and_jumps():
    clock = SimClock(START)
    first = clock.now()
    assert first.microsecond == 123000 and first.tzinfo is UTC
    time.sleep(0.01)
    assert clock.now() > first
    clock.freeze()
    held = clock.now()
    time.sleep(0.005)
    assert clock.now() == held
    clock.advance(timedelta(days=1))
    assert clock.now() == held + timedelta(days=1)
    clock.run()
    clock.set(START - timedelta(days=9))
    assert timedelta(0) <= clock.now() - (START - timedelta(days=9)) + timedelta(milliseconds=1) < timedelta(seconds=1)
    with pytest.raises(ValueError, match="time zone"):
        clock.set(datetime(2026, 1, 1))


def test_date_header_is_the_simulated_clock_and_connections_are_kept(crm):
    with requests.Session() as session:
        answers = [session.get(f"{crm.url}/peer", timeout=10) for _ in range(3)]
    assert len({a.text for a in answers}) == 1
    assert abs(parsedate_to_datetime(answers[0].headers["Date"]) - START) < timedelta(seconds=3)


def test_gzip_only_for_clients_that_take_it(crm):
    assert http.get(f"{crm.url}/big").headers["Content-Encoding"] == "gzip"
    plain = http.get(f"{crm.url}/big", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers and len(plain.json()) == 5000


def test_status_fault_gives_the_crms_own_body_then_passes(crm):
    crm.faults.arm("status", status=503, times=2, after=1, path="^/things", headers={"Retry-After": "1"})
    answers = [http.get(f"{crm.url}/things/{n}") for n in range(4)]
    assert [a.status_code for a in answers] == [200, 503, 503, 200]
    assert answers[1].json() == [{"errorCode": "status-503"}]
    assert answers[1].headers["X-Crm"] == "yes" and answers[1].headers["Retry-After"] == "1"
    assert crm.requests.counts["GET /things/{id}"] == 2  # the failed ones never reached a route
    assert crm.requests.statuses == {200: 2, 503: 2} and crm.requests.total == 4


def test_fault_matches_decoded_query_and_method(crm):
    crm.faults.arm("status", status=400, path=r"FROM Opportunity\b", method="get")
    assert http.post(f"{crm.url}/write?q=FROM+Opportunity").status_code == 200
    assert http.get(f"{crm.url}/big?q=SELECT+Id+FROM+OpportunityX").status_code == 200
    assert http.get(f"{crm.url}/big?q=SELECT%20Id%20FROM%20Opportunity").status_code == 400


def test_drop_closes_without_an_answer(crm):
    crm.faults.arm("drop", path="/write")
    with pytest.raises(requests.ConnectionError):
        http.post(f"{crm.url}/write", data=b"x" * 100_000)
    assert crm.written == [] and crm.requests.statuses[0] == 1
    crm.faults.arm("drop", path="/write", applied=True)
    with pytest.raises(requests.ConnectionError):
        http.post(f"{crm.url}/write")
    assert crm.written == [1]
    assert http.post(f"{crm.url}/write").status_code == 200


@pytest.mark.parametrize("path", ["/big", "/stream"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_truncated_answer_is_seen_as_incomplete(crm, path, encoding):
    crm.faults.arm("truncate", path=path)
    with http.get(f"{crm.url}{path}", headers={"Accept-Encoding": encoding}, stream=True) as answer:
        assert answer.status_code == 200
        promised = int(answer.headers["Content-Length"])
        with pytest.raises(urllib3.exceptions.ProtocolError, match="IncompleteRead") as broken:
            answer.raw.read(decode_content=False)
        assert len(broken.value.args[1].partial) == promised // 2
    assert http.get(f"{crm.url}{path}").ok


def test_slow_and_daily_limit(crm):
    crm.faults.arm("slow", seconds=0.15)
    started = time.monotonic()
    assert http.get(f"{crm.url}/big").ok
    assert time.monotonic() - started >= 0.15
    crm.faults.arm("daily_limit")
    assert [http.get(f"{crm.url}/big").status_code for _ in range(3)] == [403] * 3
    assert http.get(f"{crm.url}/big").json() == [{"errorCode": "daily_limit-403"}]
    assert http.get(f"{crm.url}/things/1").ok
    crm.faults.clear()
    assert http.get(f"{crm.url}/big").ok


def test_late_commit_and_expired_tokens_are_for_the_server_to_ask():
    faults = Faults()
    faults.arm("late_commit", seconds=90, times=2)
    assert faults.next("POST", "/x") is None
    assert [faults.late_commit() for _ in range(3)] == [90.0, 90.0, None]
    faults.arm("expire_tokens")
    assert faults.token_generation == 1 and faults.armed() == []


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "flood"}, {"kind": "slow"}, {"kind": "drop", "seconds": 3}, {"kind": "status", "status": 500, "path": "("}],
)
def test_wrong_fault_is_refused(wrong):
    with pytest.raises(ValueError):
        Faults().arm(**wrong)


def test_remote_control(crm):
    control = f"{crm.url}/__simulator__"
    assert http.post(f"{control}/faults", json={"kind": "status", "status": 401, "times": 1}).ok
    assert [f["kind"] for f in http.get(f"{control}/faults").json()] == ["status"]
    assert http.get(f"{crm.url}/big").status_code == 401
    assert http.post(f"{control}/faults", json={"kind": "flood"}).status_code == 400
    assert http.post(f"{control}/faults", json={"kind": "drop", "path": "("}).status_code == 400
    http.post(f"{control}/faults", json={"kind": "daily_limit"})
    assert http.delete(f"{control}/faults").json() == []
    moved = http.post(f"{control}/clock", json={"now": "2027-01-01T00:00:00Z", "frozen": True}).json()
    assert moved == {"now": "2027-01-01T00:00:00.000+00:00", "frozen": True}
    assert http.get(f"{crm.url}/big").headers["Date"] == "Fri, 01 Jan 2027 00:00:00 GMT"
    assert http.get(f"{control}/requests").json()["total"] == 2
    assert http.delete(f"{control}/requests").json()["total"] == 0


def test_a_taken_port_is_said_at_once(crm):
    with pytest.raises(OSError):
        serve(Starlette(), port=crm.server.port)
