"""Who may call the simulated HubSpot, how often, in which words it refuses, and how it fails when told to."""

from __future__ import annotations

import gzip
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta

import hubspot
import pytest
from hubspot.crm.deals.exceptions import ApiException, ForbiddenException, ServiceException, UnauthorizedException
from hubspot.oauth.exceptions import ApiException as OauthApiException
from hubspot_sim_help import Served, client_for, served
from urllib3.exceptions import HTTPError
from urllib3.util.retry import Retry


@pytest.fixture
def hub() -> Iterator[Served]:
    with served() as one:
        one.portal.create("deals", {"dealname": "Hansa"})
        yield one


def body_of(error: ApiException) -> dict:
    return json.loads(error.body)


def refresh(hub: Served, **changed: str) -> str:
    given = {
        "grant_type": "refresh_token",
        "client_id": "plumbline-demo",
        "client_secret": "demo-secret",
        "refresh_token": "demo-refresh-token",
    }
    return hubspot.HubSpot(host=hub.url).oauth.tokens_api.create(**(given | changed)).access_token


def test_an_unknown_token(hub: Served) -> None:
    with pytest.raises(UnauthorizedException) as refused:
        client_for(hub.url, "wrong").crm.deals.basic_api.get_page()
    body = body_of(refused.value)
    assert body["category"] == "INVALID_AUTHENTICATION"
    assert body["status"] == "error"
    assert body["correlationId"]


def test_oauth_tokens_live_half_an_hour(hub: Served) -> None:
    client = client_for(hub.url, refresh(hub))
    assert len(client.crm.deals.basic_api.get_page().results) == 1
    hub.clock.advance(timedelta(seconds=1805))
    with pytest.raises(UnauthorizedException) as refused:
        client.crm.deals.basic_api.get_page()
    assert body_of(refused.value)["category"] == "EXPIRED_AUTHENTICATION"
    assert "expired 5 second(s) ago" in body_of(refused.value)["message"]
    assert client_for(hub.url, refresh(hub)).crm.deals.basic_api.get_page().results


def test_tokens_can_be_expired_at_will(hub: Served) -> None:
    client = client_for(hub.url, refresh(hub))
    hub.faults.arm("expire_tokens")
    with pytest.raises(UnauthorizedException):
        client.crm.deals.basic_api.get_page()
    assert client_for(hub.url, refresh(hub)).crm.deals.basic_api.get_page().results


@pytest.mark.parametrize("wrong", ["grant_type", "client_id", "client_secret", "refresh_token"])
def test_what_does_not_match_gets_no_token(hub: Served, wrong: str) -> None:
    with pytest.raises(OauthApiException) as refused:
        refresh(hub, **{wrong: "other"})
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("scope", "method", "path", "body"),
    [
        ("crm.objects.owners.read", "GET", "/crm/v3/owners/", None),
        ("crm.objects.deals.read", "GET", "/crm/v3/objects/deals", None),
        ("crm.objects.contacts.read", "GET", "/crm/v3/objects/deals?associations=contacts", None),
        ("crm.objects.companies.read", "POST", "/crm/v4/associations/deals/companies/batch/read", {"inputs": [{"id": "1"}]}),
        ("crm.objects.deals.write", "POST", "/crm/v3/objects/deals/batch/update", {"inputs": [{"id": "1", "properties": {}}]}),
        ("crm.objects.custom.write", "POST", "/crm/v3/objects/plumbline_snapshot/batch/upsert", {"inputs": [{"id": "1"}]}),
        ("crm.schemas.custom.read", "GET", "/crm-object-schemas/v3/schemas", None),
        ("crm.schemas.deals.write", "POST", "/crm/v3/properties/deals", {"name": "x"}),
    ],
)
def test_a_missing_scope_is_named(hub: Served, scope: str, method: str, path: str, body: object) -> None:
    hub.portal.access.scopes.remove(scope)
    status, answer = hub.call(method, path, body)
    assert (status, answer["category"]) == (403, "MISSING_SCOPES")
    assert answer["errors"][0]["context"]["requiredGranularScopes"] == [scope]


def test_what_the_edition_lacks(hub: Served) -> None:
    hub.portal.refused_types.add("plumbline_snapshot")
    assert hub.call("GET", "/crm/v3/objects/plumbline_snapshot")[0] == 403
    with pytest.raises(ForbiddenException):
        hub.portal.access.scopes.remove("crm.objects.deals.read")
        hub.client.crm.deals.basic_api.get_page()


def test_ten_seconds_hold_so_many_calls_and_the_headers_count_them(hub: Served) -> None:
    hub.portal.limits.per_ten_seconds, hub.portal.limits.daily = 3, 650_000
    api = hub.client.crm.deals.basic_api
    left = []
    for _ in range(3):
        headers = api.get_page(_preload_content=False).headers
        left.append(tuple(headers[f"X-HubSpot-RateLimit-{name}"] for name in ("Max", "Remaining", "Interval-Milliseconds")))
    assert left == [("3", "2", "10000"), ("3", "1", "10000"), ("3", "0", "10000")]
    with pytest.raises(ApiException) as refused:
        api.get_page()
    assert refused.value.status == 429
    assert body_of(refused.value)["policyName"] == "TEN_SECONDLY_ROLLING"
    assert "Retry-After" not in refused.value.headers
    assert hub.client.crm.deals.search_api.do_search({}).total == 1, "search is counted apart"


def test_five_searches_a_second(hub: Served) -> None:
    hub.portal.limits.search_per_second = 5
    search = hub.client.crm.deals.search_api
    started = time.monotonic()
    answers = [search.do_search({}, _preload_content=False) for _ in range(5)]
    assert not [name for answer in answers for name in answer.headers if "ratelimit" in name.lower()], "search has no such headers"
    if time.monotonic() - started < 0.9:
        with pytest.raises(ApiException) as refused:
            search.do_search({})
        assert (refused.value.status, body_of(refused.value)["policyName"]) == (429, "SECONDLY")
    time.sleep(1.05)
    assert search.do_search({}).total == 1


def test_the_daily_limit_ends_at_midnight_of_the_account(hub: Served) -> None:
    hub.portal.limits.daily = 2
    api = hub.client.crm.deals.basic_api
    assert api.get_page(_preload_content=False).headers["X-HubSpot-RateLimit-Daily-Remaining"] == "1"
    api.get_page()
    with pytest.raises(ApiException) as refused:
        api.get_page()
    assert (refused.value.status, body_of(refused.value)["policyName"]) == (429, "DAILY")
    hub.clock.set(hub.clock.now().replace(hour=22, minute=59))  # 23:59 in Berlin
    with pytest.raises(ApiException):
        api.get_page()
    hub.clock.advance(timedelta(minutes=1))
    assert api.get_page().results


def test_the_real_limits_hold_by_default() -> None:
    with served(limits=True) as hub:
        limits = hub.portal.limits
        assert (limits.per_ten_seconds, limits.search_per_second, limits.daily) == (190, 5, 650_000)
        assert hub.client.crm.deals.basic_api.get_page(_preload_content=False).headers["X-HubSpot-RateLimit-Max"] == "190"
        used = hub.client.api_request({"path": "/account-info/v3/api-usage/daily/private-apps"}).json()["results"][0]
        assert (used["usageLimit"], used["currentUsage"]) == (650_000, 2)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/crm/v3/objects/deals/5", 404),
        ("GET", "/crm/v3/objects/deals/abc", 404),
        ("GET", "/crm/v3/nothing/here", 404),
        ("GET", "/crm/objects/latest/deals", 404),
        ("PUT", "/crm/v3/objects/deals", 405),
    ],
)
def test_errors_are_json_with_a_message(hub: Served, method: str, path: str, status: int) -> None:
    got, body = hub.call(method, path, {} if method == "PUT" else None)
    assert got == status
    assert body["status"] == "error"
    assert body["message"]
    assert body["correlationId"]


def test_bodies_must_be_json(hub: Served) -> None:
    def post(body: bytes, kind: str) -> tuple[int, dict]:
        headers = {"Authorization": "Bearer demo-token", "Content-Type": kind}
        request = urllib.request.Request(f"{hub.url}/crm/v3/objects/deals/search", body, headers, method="POST")  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)  # noqa: S310
        return refused.value.code, json.load(refused.value)

    assert post(b"{limit: 1}", "application/json")[0] == 400
    assert post(b"limit=1", "application/x-www-form-urlencoded")[0] == 415
    status, body = post(b"[1]", "application/json")
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")


def test_dated_versions_answer_as_v3_does(hub: Served) -> None:
    pairs = [
        ("/crm/v3/objects/deals", "/crm/objects/2026-09/deals"),
        ("/crm/v3/properties/deals", "/crm/properties/2026-09/deals"),
        ("/crm/v3/pipelines/deals", "/crm/pipelines/2026-09/deals"),
        ("/crm/v3/owners", "/crm/owners/2026-09"),
        ("/crm-object-schemas/v3/schemas", "/crm-object-schemas/2026-09/schemas"),
        ("/account-info/v3/details", "/account-info/2026-09/details"),
        ("/crm/v4/associations/deals/contacts/labels", "/crm/associations/2026-09/deals/contacts/labels"),
    ]
    for old, new in pairs:
        assert hub.call("GET", old) == hub.call("GET", new)
    status, body = hub.call("POST", "/crm/objects/2026-09/deals/search", {"limit": 1})
    assert (status, body["total"]) == (200, 1)


def test_answers_are_compressed_for_who_asks(hub: Served) -> None:
    for i in range(30):
        hub.portal.create("deals", {"dealname": f"Deal {i}"})
    request = urllib.request.Request(  # noqa: S310
        f"{hub.url}/crm/v3/objects/deals?limit=50", headers={"Authorization": "Bearer demo-token", "Accept-Encoding": "gzip"}
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(json.loads(gzip.decompress(answer.read()))["results"]) == 31


def test_failures_to_order(hub: Served) -> None:
    api = hub.client.crm.deals.basic_api
    hub.faults.arm("status", status=429, headers={"Retry-After": "1"})
    hub.faults.arm("status", status=503)
    hub.faults.arm("status", status=500)
    retrying = hubspot.HubSpot(
        access_token="demo-token",
        host=hub.url,
        retry=Retry(total=4, allowed_methods=None, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False),
    )
    assert len(retrying.crm.deals.basic_api.get_page().results) == 1
    for status, category in ((401, "EXPIRED_AUTHENTICATION"), (403, "MISSING_SCOPES"), (423, "LOCKED")):
        hub.faults.arm("status", status=status)
        with pytest.raises(ApiException) as refused:
            api.get_page()
        assert (refused.value.status, body_of(refused.value)["category"]) == (status, category)
    hub.faults.arm("status", status=502)
    with pytest.raises(ServiceException) as broken:
        api.get_page()
    assert "<html>" in broken.value.body, "the gateway speaks no JSON"
    hub.faults.arm("truncate", path="/objects/deals")
    no_retry = hubspot.HubSpot(access_token="demo-token", host=hub.url, retry=False)
    with pytest.raises(HTTPError):
        no_retry.crm.deals.basic_api.get_page()
    hub.faults.arm("daily_limit")
    for _ in range(2):
        with pytest.raises(ApiException) as refused:
            api.get_page()
        assert body_of(refused.value)["policyName"] == "DAILY"
    hub.faults.clear()
    assert api.get_page().results


def test_a_lost_answer_of_a_write_leaves_the_write_done(hub: Served) -> None:
    (deal,) = [one.id for one in hub.client.crm.deals.basic_api.get_page().results]
    hub.faults.arm("drop", applied=True, method="POST")
    no_retry = hubspot.HubSpot(access_token="demo-token", host=hub.url, retry=False)
    with pytest.raises(HTTPError):
        no_retry.crm.deals.batch_api.update({"inputs": [{"id": deal, "properties": {"plumbline_score": "15"}}]})
    assert hub.deal(deal, "plumbline_score")["plumbline_score"] == "15"


def test_many_threads_write_and_read(hub: Served) -> None:
    errors: list[Exception] = []

    def work(number: int) -> None:
        try:
            api = client_for(hub.url).crm.deals
            for i in range(5):
                made = api.basic_api.create({"properties": {"dealname": f"{number}/{i}"}})
                api.basic_api.update(made.id, {"properties": {"amount": str(i)}})
                assert api.basic_api.get_by_id(made.id, properties=["amount"]).properties["amount"] == str(i)
                api.basic_api.get_page(limit=100)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    ids = [row[0] for row in hub.portal.rows("select _id from object_deals")]
    assert len(ids) == len(set(ids)) == 31
