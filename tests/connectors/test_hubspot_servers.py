"""Servers that speak HubSpot's API with less of it, or with answers that a portal gives rarely: a pull does what it can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hubspot_landing import Believed, lines, manifest
from hubspot_server import Answer, Server, answer_json, settings

from connectors import hubspot
from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.http import RetryPolicy

STAMP = "2026-11-20T10:00:00.000Z"
REFUSED = answer_json(404, {"status": "error", "message": "resource not found"})


class Portal:
    """Three deals behind the calls that a pull cannot do without; `answers` adds or replaces some by path."""

    def __init__(self, server: Server) -> None:
        self.deals: dict[str, dict[str, Any]] = {str(n): self.deal(str(n)) for n in (1, 2, 3)}
        self.answers: dict[str, Any] = {}
        server.script = [self.answer]

    @staticmethod
    def deal(key: str, **more: Any) -> dict[str, Any]:
        properties = {"dealname": f"Deal {key}", "hs_object_id": key, "hs_lastmodifieddate": STAMP}
        return {"id": key, "properties": properties, "createdAt": STAMP, "updatedAt": STAMP, "archived": False, **more}

    def answer(self, request: Any) -> Answer:
        url = urlsplit(request.path)
        given = self.answers.get(url.path)
        if given is not None:
            answer: Answer = given(request) if callable(given) else given
            return answer
        body = json.loads(request.body or b"{}")
        if url.path == "/crm/v3/objects/deals":
            archived = parse_qs(url.query)["archived"] == ["true"]
            return answer_json(200, {"results": [] if archived else list(self.deals.values())})
        if url.path == "/crm/v3/objects/deals/search":
            filters = [one for group in body["filterGroups"] for one in group["filters"]]
            above = max((int(one["value"]) for one in filters if one["operator"] == "GT"), default=0)
            found = [deal for key, deal in self.deals.items() if int(key) > above]
            return answer_json(200, {"total": len(found), "results": found})
        if url.path == "/crm/v3/objects/deals/batch/read":
            return answer_json(200, {"results": [self.deals[one["id"]] for one in body["inputs"] if one["id"] in self.deals]})
        if url.path == "/crm/v3/pipelines/deals":
            return answer_json(200, {"results": [{"id": "default", "label": "Sales", "stages": []}]})
        return REFUSED


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("connectors.hubspot.client.POLICY", RetryPolicy(tries=8, sleep=lambda seconds: None))
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def portal(server: Server) -> Portal:
    return Portal(server)


def _pull(server: Server, tmp_path: Path, run_id: str, believed: Believed | None = None) -> Path:
    known = believed.write_known(tmp_path / "known.ndjson") if believed else None
    since = believed.watermarks if believed else {}
    hubspot.pull(settings(server), run_id=run_id, landing=tmp_path, since=since, known=known)
    return tmp_path / "inbound" / run_id


def test_what_a_server_lacks_is_noticed_and_not_missed(server: Server, portal: Portal, tmp_path: Path) -> None:
    believed = Believed()
    directory = _pull(server, tmp_path, "first")
    believed.take(directory)
    assert believed.live.keys() == {"1", "2", "3"}
    for obj in ("account", "owners", "properties", "companies"):
        assert manifest(directory, obj)["notice"] and not manifest(directory, obj)["files"]
        assert not manifest(directory, obj)["complete"]
    assert "dealname" in next(lines(directory, "deals"))["properties"]

    portal.deals["4"] = portal.deal("4")
    directory = _pull(server, tmp_path, "second", believed)
    believed.take(directory)
    assert believed.live.keys() == {"1", "2", "3", "4"}
    assert "contacts are unknown" in manifest(directory, "deals.associations")["notice"]
    assert list(lines(directory, "deals.associations")) == []


@pytest.mark.parametrize("path", ["/crm/v3/owners/", "/crm/v3/owners"])
def test_owners_with_and_without_a_slash(server: Server, portal: Portal, tmp_path: Path, path: str) -> None:
    portal.answers[path] = answer_json(200, {"results": [{"id": "7", "archived": False}]})
    directory = _pull(server, tmp_path, "first")
    assert [line["id"] for line in lines(directory, "owners")] == ["7"]


def test_live_deals_in_the_listing_of_archived_ones_stay_alive(server: Server, portal: Portal, tmp_path: Path) -> None:
    portal.answers["/crm/v3/objects/deals"] = answer_json(200, {"results": list(portal.deals.values())})
    directory = _pull(server, tmp_path, "first")
    assert list(lines(directory, "deals.archived")) == []
    assert len(list(lines(directory, "deals"))) == 3


UNCOUNTED = answer_json(400, {"status": "error", "category": "VALIDATION_ERROR", "message": "filterGroups must not be empty"})
SEARCH, READ, LIST = ("/crm/v3/objects/deals" + rest for rest in ("/search", "/batch/read", ""))


def _with_search(portal: Portal, change: Any) -> None:
    """Have the portal's search answer what `change(body, usual answer)` makes of it."""
    usual = portal.answer

    def search(request: Any) -> Answer:
        del portal.answers[SEARCH]
        try:
            _, _, answer = usual(request)
        finally:
            portal.answers[SEARCH] = search
        changed: Answer = change(json.loads(request.body), json.loads(answer))
        return changed

    portal.answers[SEARCH] = search


@pytest.mark.parametrize("uncounted", [UNCOUNTED, answer_json(200, {"results": []})], ids=["refused", "no total"])
def test_a_search_that_cannot_count_finds_what_is_gone_all_the_same(
    server: Server, portal: Portal, tmp_path: Path, uncounted: Answer
) -> None:
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    _with_search(portal, lambda body, answer: answer_json(200, answer) if body["filterGroups"] else uncounted)
    del portal.deals["2"]
    directory = _pull(server, tmp_path, "second", believed)
    assert list(lines(directory, "deals.gone")) == [{"id": "2"}]
    assert len(list(lines(directory, "deals"))) == 2


def test_a_search_without_totals_is_read_to_its_end(server: Server, portal: Portal, tmp_path: Path) -> None:
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    portal.deals |= {str(n): portal.deal(str(n)) for n in range(4, 8)}
    _with_search(portal, lambda body, answer: answer_json(200, {"results": answer["results"][:2]}))
    assert {deal["id"] for deal in lines(_pull(server, tmp_path, "second", believed), "deals")} == {*"1234567"}


@pytest.mark.parametrize(
    "search",
    [
        lambda body, answer: REFUSED,
        lambda body, answer: UNCOUNTED,
        lambda body, answer: answer_json(200, {"total": answer["total"], "results": answer["results"][::-1][:2]}),
    ],
    ids=["missing", "refused", "unsorted"],
)
def test_where_search_is_of_no_use_everything_is_listed(server: Server, portal: Portal, tmp_path: Path, search: Any) -> None:
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    _with_search(portal, search)
    del portal.deals["2"]
    portal.deals["4"] = portal.deal("4")
    directory = _pull(server, tmp_path, "second", believed)
    told = manifest(directory, "deals")
    assert (told["mode"], told["complete"], "were listed" in told["notice"]) == ("full", True, True)
    assert {deal["id"] for deal in lines(directory, "deals")} == {"1", "3", "4"}


def test_a_server_without_past_values(server: Server, portal: Portal, tmp_path: Path) -> None:
    refused = answer_json(400, {"status": "error", "category": "VALIDATION_ERROR", "message": "Unrecognized field propertiesWithHistory"})
    usual = portal.answer

    def without_history(request: Any) -> Answer:
        if "propertiesWithHistory" in request.path or b"propertiesWithHistory" in (request.body or b""):
            return refused
        kept = portal.answers.copy()
        portal.answers.clear()
        answer = usual(request)
        portal.answers.update(kept)
        return answer

    portal.answers |= {LIST: without_history, READ: without_history}
    believed = Believed()
    for run_id in ("first", "second"):
        directory = _pull(server, tmp_path, run_id, believed if believed.live else None)
        assert {deal["id"] for deal in lines(directory, "deals")} == {"1", "2", "3"}
        assert list(lines(directory, "deals.history")) == []
        believed.take(directory)


def test_a_server_without_a_listing_of_archived_deals(server: Server, portal: Portal, tmp_path: Path) -> None:
    usual = portal.answer

    def live_only(request: Any) -> Answer:
        if "archived=true" in request.path:
            return UNCOUNTED
        del portal.answers[LIST]
        answer = usual(request)
        portal.answers[LIST] = live_only
        return answer

    portal.answers[LIST] = live_only
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    del portal.deals["2"]
    directory = _pull(server, tmp_path, "second", believed)
    assert list(lines(directory, "deals.gone")) == [{"id": "2"}]
    assert "not listed" in manifest(directory, "deals.archived")["notice"]


def test_owners_who_left_may_be_unknown_without_losing_the_others(server: Server, portal: Portal, tmp_path: Path) -> None:
    def owners(request: Any) -> Answer:
        archived = parse_qs(urlsplit(request.path).query)["archived"] == ["true"]
        return UNCOUNTED if archived else answer_json(200, {"results": [{"id": "7", "archived": False}]})

    portal.answers["/crm/v3/owners/"] = owners
    directory = _pull(server, tmp_path, "first")
    assert [owner["id"] for owner in lines(directory, "owners")] == ["7"]
    assert "owners who left are unknown" in manifest(directory, "owners")["notice"]
    assert not manifest(directory, "owners")["complete"]


def test_only_listed_properties_are_announced_but_all_standard_ones_are_asked_for(server: Server, portal: Portal, tmp_path: Path) -> None:
    portal.answers["/crm/v3/properties/deals"] = answer_json(200, {"results": [{"name": "dealname", "type": "string", "label": "Name"}]})
    asked: list[str] = []
    usual = portal.answer

    def listing(request: Any) -> Answer:
        asked.extend(parse_qs(urlsplit(request.path).query)["properties"])
        del portal.answers[LIST]
        answer = usual(request)
        portal.answers[LIST] = listing
        return answer

    portal.answers[LIST] = listing
    assert [field["name"] for field in manifest(_pull(server, tmp_path, "first"), "deals")["fields"]] == ["dealname"]
    assert {"dealname", "notes_last_updated", "hs_next_step"} <= set(asked)


def test_a_listing_that_shows_no_associations_is_not_taken_for_none(server: Server, portal: Portal, tmp_path: Path) -> None:
    def contacts(request: Any) -> Answer:
        return answer_json(200, {"results": [{"from": {"id": "1"}, "to": [{"toObjectId": 31, "associationTypes": []}]}]})

    portal.answers["/crm/v4/associations/deals/contacts/batch/read"] = contacts
    links = {line["id"]: line["contacts"] for line in lines(_pull(server, tmp_path, "first"), "deals.associations")}
    assert links == {"1": [{"id": "31", "labels": []}], "2": [], "3": []}


def test_inline_associations_that_are_cut_are_read_whole(server: Server, portal: Portal, tmp_path: Path) -> None:
    cut = {"results": [{"id": "31", "type": "deal_to_contact"}], "paging": {"next": {"after": "31"}}}
    portal.deals["2"]["associations"] = {"contacts": cut}
    pages = iter([
        {"from": {"id": "2"}, "to": [{"toObjectId": 31, "associationTypes": []}], "paging": {"next": {"after": "32"}}},
        {"from": {"id": "2"}, "to": [{"toObjectId": 32, "associationTypes": []}]},
    ])
    portal.answers["/crm/v4/associations/deals/contacts/batch/read"] = lambda request: answer_json(200, {"results": [next(pages)]})
    none = {"category": "OBJECT_NOT_FOUND", "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND", "context": {"fromObjectId": ["2"]}}
    portal.answers["/crm/v4/associations/deals/companies/batch/read"] = answer_json(207, {"results": [], "numErrors": 1, "errors": [none]})
    directory = _pull(server, tmp_path, "first")
    contacts = [{"id": "31", "labels": []}, {"id": "32", "labels": []}]
    assert list(lines(directory, "deals.associations")) == [{"id": "2", "contacts": contacts, "companies": []}]


def test_deals_whose_associations_could_not_be_told_are_left_as_they_were(server: Server, portal: Portal, tmp_path: Path) -> None:
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    busy = {"category": "SERVER_ERROR", "context": {"fromObjectId": ["2"]}}
    for kind in ("contacts", "companies"):
        portal.answers[f"/crm/v4/associations/deals/{kind}/batch/read"] = answer_json(207, {"results": [], "errors": [busy]})
    directory = _pull(server, tmp_path, "second", believed)
    assert [line["id"] for line in lines(directory, "deals.associations")] == ["1", "3"]
    assert "next run" in manifest(directory, "deals.associations")["notice"]


def test_contacts_that_may_not_be_read_are_unknown_not_none(server: Server, portal: Portal, tmp_path: Path) -> None:
    usual = portal.answer
    scope = {"errors": [{"context": {"requiredGranularScopes": ["crm.objects.contacts.read"]}}], "category": "MISSING_SCOPES"}

    def listing(request: Any) -> Answer:
        if "associations=" in request.path:
            return answer_json(403, scope)
        del portal.answers["/crm/v3/objects/deals"]
        answer = usual(request)
        portal.answers["/crm/v3/objects/deals"] = listing
        return answer

    portal.answers["/crm/v3/objects/deals"] = listing
    directory = _pull(server, tmp_path, "first")
    assert [line["associations"] for line in lines(directory, "deals")] == [None] * 3
    assert "crm.objects.contacts.read" in manifest(directory, "deals")["notice"]


def test_a_survivor_in_place_of_a_merged_deal_is_not_taken_for_it(server: Server, portal: Portal, tmp_path: Path) -> None:
    believed = Believed()
    believed.take(_pull(server, tmp_path, "first"))
    believed.deleted["9"] = {}
    usual = portal.answer

    def batch(request: Any) -> Answer:
        inputs = json.loads(request.body)["inputs"]
        if [one["id"] for one in inputs] == ["9"]:
            return answer_json(200, {"results": [portal.deals["1"]]})
        del portal.answers["/crm/v3/objects/deals/batch/read"]
        answer = usual(request)
        portal.answers["/crm/v3/objects/deals/batch/read"] = batch
        return answer

    portal.answers["/crm/v3/objects/deals/batch/read"] = batch
    directory = _pull(server, tmp_path, "second", believed)
    assert sorted(line["id"] for line in lines(directory, "deals")) == ["1", "2", "3"]


def test_a_listing_that_goes_round_in_circles_ends(server: Server, portal: Portal, tmp_path: Path) -> None:
    page = {"results": list(portal.deals.values()), "paging": {"next": {"after": "3"}}}
    portal.answers["/crm/v3/objects/deals"] = answer_json(200, page)
    with pytest.raises(CrmProtocolError, match="same page"):
        _pull(server, tmp_path, "first")


def test_without_pipelines_there_is_no_pull(server: Server, portal: Portal, tmp_path: Path) -> None:
    portal.answers["/crm/v3/pipelines/deals"] = answer_json(403, {"category": "MISSING_SCOPES"})
    with pytest.raises(CrmPermissionError, match="pipelines"):
        _pull(server, tmp_path, "first")
    assert not (tmp_path / "inbound" / "first" / "pull.json").exists()
