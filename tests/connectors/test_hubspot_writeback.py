"""Write-back to HubSpot against answers in HubSpot's words that a simulated portal gives rarely or never."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubspot_server import Answer, Server, answer_json, settings

from connectors import hubspot
from connectors.errors import CrmPermissionError, CrmUnavailableError
from connectors.http import RetryPolicy


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("connectors.hubspot.client.POLICY", RetryPolicy(tries=8, sleep=lambda seconds: None))
    server = Server()
    yield server
    server.stop()


def _write(server: Server, tmp_path: Path, changes: dict[str, dict[str, Any]]) -> tuple[Any, dict[str, dict[str, Any]]]:
    source, results = tmp_path / "changes.ndjson", tmp_path / "results.ndjson"
    source.write_text("".join(json.dumps({"id": key, "fields": fields}) + "\n" for key, fields in changes.items()))
    try:
        result: Any = hubspot.write(settings(server), changes=source, results=results)
    except Exception as error:
        result = error
    answered = [json.loads(line) for line in results.read_text().splitlines()]
    assert len({line["id"] for line in answered}) == len(answered)
    return result, {line["id"]: line for line in answered}


def _portal(bad: dict[str, dict[str, Any]], sizes: list[int] | None = None) -> Any:
    """A portal that refuses a whole batch for any deal in `bad`, as HubSpot does for invalid values."""

    def answer(request: Any) -> Answer:
        inputs = json.loads(request.body)["inputs"]
        if sizes is not None:
            sizes.append(len(inputs))
        for one in inputs:
            if one["id"] in bad:
                return answer_json(400, {"status": "error", "category": "VALIDATION_ERROR", **bad[one["id"]]})
        return answer_json(200, {"status": "COMPLETE", "results": [{"id": one["id"]} for one in inputs]})

    return answer


def _embedded(code: str, name: str) -> dict[str, Any]:
    fault = [{"isValid": False, "message": f'"{name}" is wrong', "error": code, "name": name}]
    return {"message": f"Property values were not valid: {json.dumps(fault)}"}


def test_one_bad_value_costs_one_deal(server: Server, tmp_path: Path) -> None:
    sizes: list[int] = []
    server.script = [_portal({"137": _embedded("INVALID_OPTION", "plumbline_status")}, sizes)]
    result, answered = _write(server, tmp_path, {str(n): {"plumbline_status": "x"} for n in range(250)})
    assert (result.written, result.failed, result.calls) == (249, 1, len(sizes))
    assert answered["137"] == {
        "id": "137", "ok": False, "code": "INVALID_OPTION", "message": '"plumbline_status" is wrong',
    }
    assert len(sizes) <= 3 + 14 and max(sizes) == 100


def test_a_property_that_is_not_there_is_not_searched_for(server: Server, tmp_path: Path) -> None:
    bad = {str(n): _embedded("PROPERTY_DOESNT_EXIST", "plumbline_score") for n in range(0, 100, 2)}
    server.script = [_portal(bad)]
    changes = {str(n): {"plumbline_score" if n % 2 == 0 else "plumbline_status": "1"} for n in range(100)}
    result, answered = _write(server, tmp_path, changes)
    assert (result.written, result.failed, result.calls) == (50, 50, 2)
    assert answered["0"]["code"] == "PROPERTY_DOESNT_EXIST"


def test_each_record_of_a_207_has_its_own_outcome(server: Server, tmp_path: Path) -> None:
    error = {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "Could not get some DEAL objects", "context": {"ids": ["2"]}}
    server.script = [answer_json(207, {"status": "COMPLETE", "results": [{"id": "1"}, {"id": "99"}], "numErrors": 1, "errors": [error]})]
    result, answered = _write(server, tmp_path, {key: {"plumbline_status": "clean"} for key in "123"})
    assert (result.written, result.failed) == (1, 2)
    assert [answered[key]["code"] for key in "123"] == [None, "OBJECT_NOT_FOUND", "NO_ANSWER"]


def test_values_as_hubspot_takes_them(server: Server, tmp_path: Path) -> None:
    server.script = [_portal({})]
    _write(server, tmp_path, {"1": {"a": None, "b": 85, "c": True, "d": "2026-11-23", "e": "née"}})
    sent = json.loads(server.seen[0][3])["inputs"]
    assert sent == [{"id": "1", "properties": {"a": "", "b": "85", "c": "true", "d": "2026-11-23", "e": "née"}}]


def test_a_lost_answer_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    ok = _portal({})
    server.script = ["drop", "truncate", answer_json(503, {}), answer_json(429, {"policyName": "SECONDLY"}), ok]
    result, _ = _write(server, tmp_path, {"1": {"a": "1"}})
    assert result.written == 1 and len(server.seen) == 5


def test_what_was_acknowledged_before_the_end_is_kept(server: Server, tmp_path: Path) -> None:
    server.script = [_portal({}), _portal({}), answer_json(503, {})]
    result, answered = _write(server, tmp_path, {str(n): {"a": "1"} for n in range(300)})
    assert isinstance(result, CrmUnavailableError)
    assert len(answered) == 200 and all(line["ok"] for line in answered.values())


def test_a_token_that_may_not_write(server: Server, tmp_path: Path) -> None:
    context = {"requiredGranularScopes": ["crm.objects.deals.write"]}
    server.script = [answer_json(403, {"category": "MISSING_SCOPES", "errors": [{"context": context}]})]
    result, answered = _write(server, tmp_path, {"1": {"a": "1"}})
    assert isinstance(result, CrmPermissionError) and "crm.objects.deals.write" in str(result)
    assert answered == {}
