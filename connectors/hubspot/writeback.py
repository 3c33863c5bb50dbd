"""Deal properties written in batches, with an outcome for each deal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from connectors.errors import CrmProtocolError
from connectors.http import scrub
from connectors.hubspot.client import Client, Refusal
from connectors.hubspot.objects import DEALS, PAGE
from connectors.hubspot.settings import HubSpotSettings
from connectors.limits import Budget
from connectors.writing import Outcome, Results, WriteResult, read_changes

# A property that cannot be written is no deal's fault: every deal that would set it fails alike, and halving would ask for each.
PROPERTY_FAULTS = frozenset({"PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE", "CALCULATED_PROPERTY"})

Input = dict[str, Any]  # one element of a batch: {"id", "properties"}


def write(
    settings: HubSpotSettings, *, changes: Path, results: Path, budget: Budget | None = None, progress: Callable[[str], None] | None = None
) -> WriteResult:
    """Send each line of `changes`, append its outcome to `results`. null clears a property.

    100 deals a call. HubSpot refuses a whole batch for one value that it does not take; the batch is then halved until the deals
    at fault stand alone, so that the others are written. An update may be sent twice without harm, so lost answers are asked
    again. Raises CrmError when the portal cannot be reached, refuses the token or the day's calls are used up: `results` then
    holds every outcome that HubSpot has acknowledged, and a batch under way may have been written.
    """
    say = progress or (lambda words: None)
    with Client(settings, budget=budget) as client, Results(results) as out:
        client.object, spent = DEALS.name, client.budget.total
        for number, batch in enumerate(_batches(changes), 1):
            for outcomes in _written(client, batch):
                out.add(outcomes)
            if number % 10 == 0:
                say(f"{client.source}: {out.written:,} deals written, {out.failed:,} refused …")
        return WriteResult(out.written, out.failed, client.budget.total - spent)


def _batches(changes: Path) -> Iterator[list[Input]]:
    batch: list[Input] = []
    for change in read_changes(changes):
        batch.append({"id": str(change["id"]), "properties": {name: _text(value) for name, value in change["fields"].items()}})
        if len(batch) == PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _text(value: Any) -> str:
    """A value as HubSpot takes it: text always, and an empty text clears."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _written(client: Client, batch: list[Input]) -> Iterator[list[Outcome]]:
    """The outcomes of a batch, as answers arrive. Calls itself with halves: some 14 calls for one bad deal among 100."""
    try:
        answer = client.post(client.paths.objects(DEALS.name) + "/batch/update", {"inputs": batch})
    except Refusal as refusal:
        if refusal.status == 404 and refusal.category != "OBJECT_NOT_FOUND":  # the path, not the deals
            raise client.protocol_error(refusal) from None
        yield from _refused(client, batch, refusal)
        return
    results = answer.get("results")
    if not isinstance(results, list):
        raise CrmProtocolError(
            "the answer to an update holds no results", source=client.source, obj=client.object,
            fix="Check base_url: it must be HubSpot's API. Some deals may have been written.",
        )
    done = {str(record.get("id")) for record in results}
    failed = {key: error for error in answer.get("errors") or [] for key in _named_ids(error)}
    outcomes = []
    for one in batch:
        key = one["id"]
        if key in failed:
            outcomes.append(_failure(client, key, failed[key]))
        elif key in done:
            outcomes.append(Outcome(key, True))
        else:
            unanswered = "HubSpot did not answer for this deal: it may have been merged into another"
            outcomes.append(Outcome(key, False, "NO_ANSWER", unanswered))
    yield outcomes


def _refused(client: Client, batch: list[Input], refusal: Refusal) -> Iterator[list[Outcome]]:
    if len(batch) == 1:
        yield [_failure(client, batch[0]["id"], refusal.body)]
        return
    hopeless = _unwritable(refusal.body)
    blamed = [one for one in batch if hopeless & one["properties"].keys()]
    rest = [one for one in batch if not hopeless & one["properties"].keys()]
    if blamed:
        yield [_failure(client, one["id"], refusal.body) for one in blamed]
        if rest:
            yield from _written(client, rest)
        return
    half = len(batch) // 2
    yield from _written(client, batch[:half])
    yield from _written(client, batch[half:])


def _named_ids(error: Mapping[str, Any]) -> list[str]:
    """The ids that an error of a 207 speaks of."""
    context = error.get("context") or {}
    ids = [key for name in ("ids", "id") for key in context.get(name) or []]
    return [str(key) for key in ids] or ([str(error["id"])] if error.get("id") else [])


def _faults(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What HubSpot found wrong with which property: from `errors`, or from the JSON at the end of the message, where older
    answers put it (`Property values were not valid: [{"isValid": false, "error": …, "name": …}]`)."""
    faults = [
        {"error": error.get("code") or error.get("error"), "message": error.get("message"), "names": _names(error)}
        for error in body.get("errors") or [] if isinstance(error, dict)
    ]
    if embedded := re.search(r"\[\s*\{.*\}\s*\]", str(body.get("message") or ""), re.DOTALL):
        try:
            listed = orjson.loads(embedded[0])
        except orjson.JSONDecodeError:
            listed = []
        faults += [
            {"error": error.get("error"), "message": error.get("message"), "names": [str(error["name"])] if error.get("name") else []}
            for error in listed if isinstance(error, dict)
        ]
    return faults


def _names(error: Mapping[str, Any]) -> list[str]:
    context = error.get("context") or {}
    named = context.get("propertyName") or context.get("name") or error.get("in") or []
    return [str(name) for name in (named if isinstance(named, list) else [named])]


def _unwritable(body: Mapping[str, Any]) -> set[str]:
    """Properties that no deal can be given."""
    return {name for fault in _faults(body) if fault["error"] in PROPERTY_FAULTS for name in fault["names"]}


def _failure(client: Client, key: str, body: Mapping[str, Any]) -> Outcome:
    faults = [fault for fault in _faults(body) if fault["error"] or fault["message"]]
    code = next((str(fault["error"]) for fault in faults if fault["error"]), None) or str(body.get("category") or "REFUSED")
    message = next((str(fault["message"]) for fault in faults if fault["message"]), None) or str(body.get("message") or "no reason given")
    return Outcome(key, False, code, scrub(message, *client.settings.secrets))
