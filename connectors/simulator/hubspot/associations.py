"""Handlers: associations v4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.simulator.hubspot.call import Answer, Call
from connectors.simulator.hubspot.catalogue import ObjectType
from connectors.simulator.hubspot.errors import no_such_object, validation
from connectors.simulator.hubspot.links import PAGE
from connectors.simulator.hubspot.objects import number
from connectors.simulator.hubspot.values import iso

MOST_READ, MOST_WRITTEN = 1000, 2000
Spec = tuple[str, int]


def _ends(call: Call, right: str) -> tuple[ObjectType, ObjectType]:
    a, b = (call.portal.catalogue.find(call.params[name]) for name in ("object_type", "to_type"))
    call.need(f"crm.objects.{a.scope}.{right}", f"crm.objects.{b.scope}.{right}")
    return a, b


def listing(call: Call) -> Answer:
    a, b = _ends(call, "read")
    limit, after = call.whole("limit", PAGE, PAGE), number(call.one("after") or 0) or 0
    wanted = number(call.params["object_id"]) or -1
    with call.portal.store.lock:
        current = call.portal.records.live(a, [wanted]).get(wanted)
        if current is None:
            raise no_such_object(call.params["object_id"])
        to, onward = call.portal.links.read(a, [(current, after)], b, limit).get(current, ([], None))
    body: dict[str, Any] = {"results": to}
    if onward is not None:
        body["paging"] = {"next": {"after": str(onward), "link": call.link(str(onward))}}
    return Answer(body)


def batch_read(call: Call) -> Answer:
    """Associations of up to 1000 records. One that has none is an error of its own, so the status is 207 then."""
    a, b = _ends(call, "read")
    started = call.now
    inputs = _inputs(call, MOST_READ)
    wanted = [(number(one.get("id")) or -1, number(one.get("after") or 0) or 0) for one in inputs]
    with call.portal.store.lock:
        live = call.portal.records.live(a, [record_id for record_id, _ in wanted])
        asked = [(live[record_id], after) for record_id, after in wanted if record_id in live]
        found = call.portal.links.read(a, asked, b) if asked else {}
    results, errors = [], []
    for one, (record_id, _) in zip(inputs, wanted, strict=True):
        current = live.get(record_id)
        if current is None or current not in found:
            errors.append(
                {
                    "status": "error",
                    "category": "OBJECT_NOT_FOUND",
                    "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
                    "message": f"No {b.singular} is associated with {a.singular} {one.get('id')}.",
                    "context": {
                        "fromObjectId": [str(one.get("id"))],
                        "fromObjectType": [a.singular],
                        "toObjectType": [b.singular],
                    },
                }
            )
            continue
        to, onward = found[current]
        entry: dict[str, Any] = {"from": {"id": str(current)}, "to": to}
        if onward is not None:
            entry["paging"] = {"next": {"after": str(onward), "link": call.link(str(onward))}}
        results.append(entry)
    return _batch(call, results, errors, started)


def create(call: Call) -> Answer:
    a, b = _ends(call, "write")
    specs = _specs(call.json if isinstance(call.json, list) else [])
    with call.portal.store.transaction():
        from_id, to_id = _live(call, a, call.params["object_id"]), _live(call, b, call.params["to_id"])
        call.portal.links.link(a, from_id, b, to_id, specs)
    return Answer(_labelled(call, a, from_id, b, to_id), 201)


def create_default(call: Call) -> Answer:
    a, b = _ends(call, "write")
    started = call.now
    with call.portal.store.transaction():
        from_id, to_id = _live(call, a, call.params["object_id"]), _live(call, b, call.params["to_id"])
        call.portal.links.link(a, from_id, b, to_id)
    return _batch(call, _defaults(call, a, from_id, b, to_id), [], started)


def archive(call: Call) -> Answer:
    a, b = _ends(call, "write")
    call.portal.links.unlink(a, number(call.params["object_id"]) or -1, b, number(call.params["to_id"]) or -1)
    return Answer(status=204)


def batch_create(call: Call) -> Answer:
    a, b = _ends(call, "write")
    started = call.now
    results = []
    with call.portal.store.transaction():
        for one in _inputs(call, MOST_WRITTEN):
            from_id, to_id = _live(call, a, _id(one.get("from"))), _live(call, b, _id(one.get("to")))
            call.portal.links.link(a, from_id, b, to_id, _specs(one.get("types") or []))
            results.append(_labelled(call, a, from_id, b, to_id))
    return _batch(call, results, [], started, 201)


def batch_create_default(call: Call) -> Answer:
    a, b = _ends(call, "write")
    started = call.now
    results: list[dict[str, Any]] = []
    with call.portal.store.transaction():
        for one in _inputs(call, MOST_WRITTEN):
            from_id, to_id = _live(call, a, _id(one.get("from"))), _live(call, b, _id(one.get("to")))
            call.portal.links.link(a, from_id, b, to_id)
            results += _defaults(call, a, from_id, b, to_id)
    return _batch(call, results, [], started)


def batch_archive(call: Call) -> Answer:
    a, b = _ends(call, "write")
    with call.portal.store.transaction():
        for one in _inputs(call, MOST_WRITTEN):
            for to in one.get("to") or ():
                call.portal.links.unlink(a, number(_id(one.get("from"))) or -1, b, number(_id(to)) or -1)
    return Answer(status=204)


def batch_archive_labels(call: Call) -> Answer:
    a, b = _ends(call, "write")
    with call.portal.store.transaction():
        for one in _inputs(call, MOST_WRITTEN):
            specs = _specs(one.get("types") or [])
            call.portal.links.unlink(a, number(_id(one.get("from"))) or -1, b, number(_id(one.get("to"))) or -1, specs)
    return Answer(status=204)


def labels(call: Call) -> Answer:
    a, b = _ends(call, "read")
    return Answer({"results": call.portal.links.labels(a, b)})


def create_label(call: Call) -> Answer:
    a, b = _ends(call, "write")
    given = call.json or {}
    if not given.get("label") or not given.get("name"):
        raise validation("Some required fields were not set: [label, name]")
    with call.portal.store.transaction():
        there, back = call.portal.links.add_type(a, b, given["label"], given["name"])
    made = [{"category": "USER_DEFINED", "typeId": type_id, "label": given["label"]} for type_id in (there, back)]
    return Answer({"results": made})


def _inputs(call: Call, most: int) -> list[Mapping[str, Any]]:
    inputs = call.json.get("inputs") if isinstance(call.json, Mapping) else None
    if not isinstance(inputs, list) or not all(isinstance(one, Mapping) for one in inputs):
        raise validation("Invalid input JSON: inputs must be a list of objects")
    if len(inputs) > most:
        raise validation(f"The maximum number of inputs supported in a batch request is {most}; got {len(inputs)}.")
    return inputs


def _id(end: Any) -> Any:
    return end.get("id") if isinstance(end, Mapping) else None


def _live(call: Call, kind: ObjectType, object_id: Any) -> int:
    wanted = number(object_id) or -1
    current = call.portal.records.live(kind, [wanted]).get(wanted)
    if current is None:
        raise no_such_object(object_id)
    return current


def _specs(given: Sequence[Any]) -> list[Spec]:
    try:
        return [(str(one["associationCategory"]), int(one["associationTypeId"])) for one in given]
    except (KeyError, TypeError, ValueError):
        raise validation("Association types need associationCategory and associationTypeId") from None


def _labelled(call: Call, a: ObjectType, from_id: int, b: ObjectType, to_id: int) -> dict[str, Any]:
    to, _ = call.portal.links.read(a, [(from_id, to_id - 1)], b, 1).get(from_id, ([], None))
    names = [spec["label"] for entry in to for spec in entry["associationTypes"] if spec["label"]]
    return {
        "fromObjectTypeId": a.type_id,
        "fromObjectId": str(from_id),
        "toObjectTypeId": b.type_id,
        "toObjectId": str(to_id),
        "labels": names,
    }


def _defaults(call: Call, a: ObjectType, from_id: int, b: ObjectType, to_id: int) -> list[dict[str, Any]]:
    sides = ((a, from_id, b, to_id), (b, to_id, a, from_id))
    results = []
    for one, one_id, other, other_id in sides:
        category, type_id = call.portal.links.default_type(one, other)
        spec = {"associationCategory": category, "associationTypeId": type_id}
        results.append({"from": {"id": str(one_id)}, "to": {"id": str(other_id)}, "associationSpec": spec})
    return results


def _batch(call: Call, results: Sequence[Any], errors: Sequence[Any], started: Any, status: int = 200) -> Answer:
    body: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    body |= {"startedAt": iso(started), "completedAt": iso(call.now)}
    return Answer(body, 207 if errors else status)
