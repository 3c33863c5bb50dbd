"""The HubSpot client against a scripted server: what is retried, what is waited for, and what the user reads at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hubspot_server import TOKEN, Answer, Server, answer_json, settings

from connectors.errors import CrmAuthError, CrmError, CrmPermissionError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.http import RetryPolicy
from connectors.hubspot import pace
from connectors.hubspot.client import Client, Refusal
from connectors.hubspot.pace import Window
from connectors.hubspot.settings import HubSpotSettings


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(server: Server, waits: list[float]) -> Iterator[Client]:
    with Client(settings(server), RetryPolicy(tries=8, base=0.5, cap=20, sleep=waits.append)) as client:
        client.object = "deals"
        yield client


def _oauth(server: Server) -> HubSpotSettings:
    return settings(server, access_token=None, client_id="app", client_secret="app-secret", refresh_token="refresh-secret")


OK = answer_json(200, {"results": []})


def test_what_may_heal_is_asked_again(server: Server, client: Client, waits: list[float]) -> None:
    html = (502, {"Content-Type": "text/html"}, b"<html>caf\xe9</html>")  # not UTF-8, which the library would choke on
    server.script = [answer_json(503, {}), "drop", "truncate", html, answer_json(423, {}), OK]
    assert client.post("/crm/v3/objects/deals/batch/read", {"inputs": []}) == {"results": []}
    assert len(server.seen) == 6 == client.budget.calls["deals"]
    assert len(waits) == 5
    assert all(0.25 * 2**n <= wait <= 0.5 * 2**n for n, wait in enumerate(waits))


@pytest.mark.parametrize(
    ("policy", "headers", "at_least"),
    [("TEN_SECONDLY_ROLLING", {"Retry-After": "7"}, 7), ("TEN_SECONDLY_ROLLING", {}, 2.5), ("SECONDLY", {}, 1)],
)
def test_a_rate_limit_is_waited_out(
    server: Server, client: Client, waits: list[float], policy: str, headers: dict[str, str], at_least: float
) -> None:
    server.script = [answer_json(429, {"policyName": policy}, **headers), OK]
    client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 2
    assert waits[0] >= at_least
    assert client._calls._closed_until > 0, "the other threads go on asking"


def test_a_rate_limit_that_stays_ends_the_pull_with_words(server: Server, client: Client) -> None:
    server.script = [answer_json(429, {"policyName": "TEN_SECONDLY_ROLLING"})]
    with pytest.raises(CrmUnavailableError, match="TEN_SECONDLY_ROLLING") as caught:
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 8
    assert "requests_per_10s" in str(caught.value)


def test_a_wait_longer_than_a_run_may_take_is_not_waited(server: Server, client: Client, waits: list[float]) -> None:
    server.script = [answer_json(503, {}, **{"Retry-After": "86400"})]
    with pytest.raises(CrmUnavailableError):
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 1 and not waits


def test_the_daily_limit_is_never_asked_twice(server: Server, client: Client) -> None:
    server.script = [answer_json(429, {"policyName": "DAILY", "message": "You have reached your daily limit."})]
    with pytest.raises(CrmQuotaError, match="midnight") as caught:
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 1
    assert caught.value.source == "inbound" and caught.value.object == "deals"


def test_our_share_of_the_day_is_kept(server: Server, client: Client) -> None:
    daily = {"X-HubSpot-RateLimit-Daily": "20", "X-HubSpot-RateLimit-Daily-Remaining": "18"}
    server.script = [answer_json(200, {"results": []}, **daily)]
    with pytest.raises(CrmQuotaError, match="quota_share"):
        for _ in range(20):
            client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 5  # a quarter of 20
    assert (client.budget.daily_used, client.budget.daily_limit) == (2, 20)


def test_a_wrong_token_is_told_at_once_and_not_repeated(server: Server, client: Client) -> None:
    server.script = [answer_json(401, {"category": "INVALID_AUTHENTICATION", "message": f"Bearer {TOKEN} is wrong"})]
    with pytest.raises(CrmAuthError) as caught:
        client.get("/account-info/v3/details")
    assert len(server.seen) == 1
    assert TOKEN not in str(caught.value) and "access_token" in str(caught.value)


def test_a_token_that_worked_is_asked_once_more(server: Server, client: Client) -> None:
    refused = answer_json(401, {"category": "EXPIRED_AUTHENTICATION"})
    server.script = [OK, refused, OK, refused]
    client.get("/crm/v3/objects/deals")
    client.get("/crm/v3/objects/deals")
    with pytest.raises(CrmAuthError):
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 5


def test_a_missing_scope_is_named(server: Server, client: Client) -> None:
    context = {"requiredGranularScopes": ["crm.objects.deals.read"]}
    server.script = [answer_json(403, {"category": "MISSING_SCOPES", "errors": [{"message": "…", "context": context}]})]
    with pytest.raises(CrmPermissionError, match=r"crm\.objects\.deals\.read") as caught:
        client.get("/crm/v3/objects/deals")
    assert caught.value.code == "MISSING_SCOPES"
    assert len(server.seen) == 1


def test_a_web_page_is_not_an_answer(server: Server, client: Client) -> None:
    server.script = [(200, {"Content-Type": "text/html"}, b"<html>Sign in to the hotel's network</html>")]
    with pytest.raises(CrmProtocolError, match="base_url"):
        client.get("/crm/v3/objects/deals")


def test_a_redirect_does_not_take_the_token_elsewhere(server: Server, client: Client) -> None:
    server.script = [(302, {"Location": f"{server.url}/elsewhere"}, b""), OK]
    with pytest.raises(CrmProtocolError, match="302"):
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 1


def test_a_wrong_path_and_a_refused_request_differ(server: Server, client: Client) -> None:
    nowhere = (404, {"Content-Type": "text/html"}, b"nothing here")
    server.script = [nowhere, answer_json(400, {"status": "error", "category": "VALIDATION_ERROR"})]
    with pytest.raises(CrmProtocolError, match="api_version"):
        client.get("/crm/v9/objects/deals")
    with pytest.raises(Refusal) as refused:
        client.get("/crm/v3/objects/deals")
    assert refused.value.category == "VALIDATION_ERROR"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://no-such-host.invalid"])
def test_an_address_where_nobody_answers_is_told_soon(server: Server, waits: list[float], url: str) -> None:
    with Client(settings(server, base_url=url), RetryPolicy(sleep=waits.append)) as client, pytest.raises(CrmUnavailableError) as caught:
        client.get("/account-info/v3/details")
    assert len(waits) == 1
    assert url.split("//")[1] in str(caught.value)


def test_a_connection_that_breaks_later_gets_all_tries(server: Server, client: Client, waits: list[float]) -> None:
    server.script = [OK, "drop"]
    client.get("/crm/v3/objects/deals")
    with pytest.raises(CrmUnavailableError):
        client.get("/crm/v3/objects/deals")
    assert len(server.seen) == 1 + 8


def test_lists_travel_as_repeated_names_and_answers_compressed(server: Server, client: Client) -> None:
    accepted: list[str | None] = []

    def answer(request: Any) -> Answer:
        accepted.append(request.headers.get("Accept-Encoding"))
        return OK

    server.script = [answer]
    client.get("/crm/v3/objects/deals", {"properties": ["amount", "dealname"], "archived": False})
    assert server.seen[0][1] == "/crm/v3/objects/deals?properties=amount&properties=dealname&archived=false"
    assert accepted == ["gzip"]


# OAuth ----------------------------------------------------------------------------------------------------------------


class OAuthServer:
    """A portal that accepts the newest access token only."""

    def __init__(self, server: Server, expires_in: int = 1800) -> None:
        self.issued, self.valid, self.expires_in = 0, "", expires_in
        self._lock = threading.Lock()
        server.script = [self.answer]

    def answer(self, request: Any) -> Answer:
        with self._lock:
            if request.path == "/oauth/v1/token":
                self.issued += 1
                self.valid = f"access-{self.issued}"
                token = {"access_token": self.valid, "refresh_token": "refresh-secret", "expires_in": self.expires_in}
                return answer_json(200, token)
            if request.headers.get("Authorization") == f"Bearer {self.valid}":
                return OK
            return answer_json(401, {"category": "EXPIRED_AUTHENTICATION"})


def test_threads_share_one_renewal(server: Server) -> None:
    portal = OAuthServer(server)
    with Client(_oauth(server)) as client:
        client.get("/crm/v3/objects/deals")
        portal.valid = "revoked"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: client.get("/crm/v3/objects/deals"), range(40)))
    assert len(answers) == 40
    assert portal.issued == 2
    form = next(body for method, path, _, body in server.seen if path == "/oauth/v1/token")
    assert form == b"grant_type=refresh_token&client_id=app&client_secret=app-secret&refresh_token=refresh-secret"


def test_a_token_is_renewed_before_it_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    portal = OAuthServer(server)
    now = [1000.0]
    monkeypatch.setattr("connectors.hubspot.tokens.time.monotonic", lambda: now[0])
    with Client(_oauth(server)) as client:
        client.get("/crm/v3/objects/deals")
        now[0] += 1800 - 61
        client.get("/crm/v3/objects/deals")
        assert portal.issued == 1
        now[0] += 2
        client.get("/crm/v3/objects/deals")
    assert portal.issued == 2
    assert not [a for _, path, a, _ in server.seen if "objects" in path and a not in ("Bearer access-1", "Bearer access-2")]


def test_an_expired_token_after_other_trouble_is_still_renewed(server: Server, waits: list[float]) -> None:
    portal = OAuthServer(server)
    with Client(_oauth(server), RetryPolicy(tries=8, sleep=waits.append)) as client:
        client.get("/crm/v3/objects/deals")
        portal.valid = "revoked"
        server.script = [answer_json(503, {}), answer_json(503, {}), portal.answer]
        assert client.get("/crm/v3/objects/deals") == {"results": []}


def test_credentials_of_an_app_that_was_removed(server: Server) -> None:
    server.script = [answer_json(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token refresh-secret"})]
    with Client(_oauth(server)) as client, pytest.raises(CrmAuthError) as caught:
        client.get("/account-info/v3/details")
    assert "installed" in str(caught.value) and "refresh-secret" not in str(caught.value)


def test_no_error_tells_a_secret(server: Server, client: Client) -> None:
    errors = [{"message": TOKEN, "context": {"requiredScopes": []}}]
    leaky = {"message": f"token {TOKEN} was refused", "errors": errors, "policyName": "DAILY"}
    for status in (401, 403, 404, 418, 429):
        server.script = [answer_json(status, leaky)]
        with pytest.raises(CrmError) as caught:
            client.get("/crm/v3/objects/deals")
        assert TOKEN not in str(caught.value)
    refusal = Refusal(400, {**leaky, "category": "VALIDATION_ERROR"})
    assert TOKEN not in str(client.protocol_error(refusal))


# Pace -----------------------------------------------------------------------------------------------------------------


def test_no_ten_seconds_ever_hold_more_calls_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    made: list[float] = []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    window = Window(10, 10.0, sleep=sleep)
    for number in range(100):
        window.wait()
        made.append(now[0])
        now[0] += 0.05 * (number % 3)
        if number == 40:
            window.close(30)
            closed = now[0]
        if number == 60:
            window.allow(20, 10.0)
    assert made[41] >= closed + 30
    for at in made[:60]:
        assert sum(at <= other < at + 10.0 - 1e-9 for other in made[:60]) <= 10
    for at in made[60:]:
        assert sum(at <= other < at + 10.0 - 1e-9 for other in made[60:]) <= 20


def test_the_window_follows_what_the_portal_allows_unless_told(server: Server) -> None:
    server.script = [answer_json(200, {}, **{"X-HubSpot-RateLimit-Max": "190", "X-HubSpot-RateLimit-Interval-Milliseconds": "10000"})]
    for more, calls in (({}, 171), ({"requests_per_10s": 50}, 50)):
        with Client(settings(server, **more)) as client:
            client.get("/account-info/v3/details")
            assert client._calls.calls == calls
