"""How the simulated Salesforce fails when it is told to, as the real one does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import requests
from salesforce_sim_help import World, world
from simple_salesforce.exceptions import SalesforceRefusedRequest


@pytest.fixture(scope="module")
def w() -> Iterator[World]:
    with world() as w:
        yield w


def test_the_daily_limit_refuses_all_but_tokens(w: World) -> None:
    w.faults.arm("daily_limit")
    try:
        with pytest.raises(SalesforceRefusedRequest) as caught:
            w.sf.query("SELECT Id FROM User")
        assert caught.value.content == [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
        w.sign_in()
    finally:
        w.faults.clear()


def test_the_days_calls_can_run_out_by_themselves(w: World) -> None:
    limit, w.org.daily_limit = w.org.daily_limit, w.org.calls_today + 1
    try:
        assert w.raw.get(f"{w.data}/limits").json()["DailyApiRequests"]["Remaining"] == 0
        refused = w.raw.get(f"{w.data}/limits")
        assert refused.status_code == 403 and refused.json()[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED"
    finally:
        w.org.daily_limit = limit


def test_statuses_carry_salesforces_own_bodies(w: World) -> None:
    for status, code in ((401, "INVALID_SESSION_ID"), (503, "SERVER_UNAVAILABLE"), (500, "UNKNOWN_EXCEPTION")):
        w.faults.arm("status", status=status, path="query")
        answer = w.raw.get(f"{w.data}/query/", params={"q": "SELECT Id FROM User"})
        assert (answer.status_code, answer.json()[0]["errorCode"]) == (status, code)


def test_a_truncated_answer_and_a_dropped_connection(w: World) -> None:
    w.faults.arm("truncate", path="describe")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        w.raw.get(f"{w.data}/sobjects/Opportunity/describe")
    w.faults.arm("drop", path="limits")
    with pytest.raises(requests.ConnectionError):
        w.raw.get(f"{w.data}/limits")


def test_a_lost_answer_leaves_its_write_done(w: World) -> None:
    deal = w.org.create("Opportunity", {"Name": "Deal", "StageName": "Prospecting", "CloseDate": "2026-12-31"})
    w.faults.arm("drop", method="PATCH", applied=True)
    with pytest.raises(requests.ConnectionError):
        w.raw.patch(f"{w.data}/sobjects/Opportunity/{deal}", json={"NextStep": "done"})
    assert w.row(deal, "NextStep") == ("done",)


def test_a_truncated_page_of_bulk_results(w: World) -> None:
    job = w.bulk("SELECT Id, Name FROM User")["id"]
    w.faults.arm("truncate", path="results")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        w.raw.get(f"{w.data}/jobs/query/{job}/results")
    assert w.raw.get(f"{w.data}/jobs/query/{job}/results").headers["Sforce-NumberOfRecords"] == "3"


def test_others_use_up_the_days_calls_too(w: World) -> None:
    limit, w.org.daily_limit = w.org.daily_limit, w.org.calls_today + 1000
    try:
        w.org.use_calls(979)
        assert w.raw.get(f"{w.data}/limits").json()["DailyApiRequests"] == {"Max": w.org.daily_limit, "Remaining": 20}
        w.org.use_calls(50)
        assert w.raw.get(f"{w.data}/limits").status_code == 403
        w.clock.advance(timedelta(days=1))
        assert w.raw.get(f"{w.data}/limits").json()["DailyApiRequests"]["Remaining"] == w.org.daily_limit - 1
    finally:
        w.org.daily_limit = limit


def test_the_org_remembers_what_it_was_asked(w: World) -> None:
    w.org.request_log.clear()
    w.raw.get(f"{w.data}/limits")
    w.faults.arm("status", status=503, path="SELECT Id")
    w.raw.get(f"{w.data}/query/", params={"q": "SELECT Id FROM User"})
    asked = [(call.method, call.path.removeprefix("/services/data/v62.0"), call.status) for call in w.org.request_log.calls]
    assert asked == [("GET", "/limits", 200), ("GET", "/query/?q=SELECT Id FROM User", 503)]
    w.org.request_log.clear()
    assert w.org.request_log.total == 0 and not w.org.request_log.calls


def test_long_requests_are_refused_before_they_reach_the_api(w: World) -> None:
    def ask(length: int, **headers: str) -> requests.Response:
        ids = ", ".join(["'0065g0000000001'"] * (length // 25))
        return w.raw.get(f"{w.data}/query/", params={"q": f"SELECT Id FROM Opportunity WHERE Id IN ({ids})"}, headers=headers)

    before = w.org.calls_today
    assert ask(7_000).status_code == 200
    refused = ask(20_000)
    assert refused.status_code == 414 and refused.headers["Content-Type"].startswith("text/html")
    assert ask(7_000, Note="x" * 12_000).status_code == 431
    assert w.org.calls_today == before + 1
    long = {"operation": "query", "query": f"SELECT Id FROM Opportunity WHERE Name = '{'x' * 100_000}'"}
    assert "longer than 100000 characters" in w.raw.post(f"{w.data}/jobs/query", json=long).json()[0]["message"]


def test_the_limits_count_query_jobs(w: World) -> None:
    def left() -> int:
        return w.raw.get(f"{w.data}/limits").json()["DailyBulkV2QueryJobs"]["Remaining"]

    before = left()
    job = w.bulk("SELECT Id FROM User")["id"]
    w.raw.delete(f"{w.data}/jobs/query/{job}")
    assert left() == before - 1


def test_sessions_can_end_at_a_request_to_come(w: World) -> None:
    w.faults.arm("expire_tokens", after=1, path="limits")
    try:
        assert [w.raw.get(f"{w.data}/{path}").status_code for path in ("limits", "sobjects", "limits", "sobjects")] == [200, 200, 401, 401]
        assert not w.faults.armed()
    finally:
        w.start()
    assert w.raw.get(f"{w.data}/limits").status_code == 200


def test_each_request_can_be_watched_before_it_is_answered(w: World) -> None:
    seen: list[str] = []
    w.org.request_log.watch = lambda call: seen.append(f"{call.method} {call.route} {call.status}")
    try:
        w.raw.get(f"{w.data}/sobjects/User/describe")
    finally:
        w.org.request_log.watch = None
    assert seen == ["GET /services/data/v62.0/sobjects/{sobject}/describe 200"]
