"""Handlers: properties and their groups, pipelines and stages, schemas of custom objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.simulator.hubspot.call import Answer, Call
from connectors.simulator.hubspot.catalogue import ObjectType
from connectors.simulator.hubspot.errors import ApiError, validation
from connectors.simulator.hubspot.values import iso

MOST = 100


def _kind(call: Call, right: str = "read") -> ObjectType:
    kind = call.portal.catalogue.find(call.params["object_type"])
    either = f"crm.schemas.{kind.scope}.{right}"
    call.need(f"{either}|crm.objects.{kind.scope}.read" if right == "read" else either)
    return kind


def _gone(what: str) -> ApiError:
    return ApiError(404, f"{what} does not exist", "OBJECT_NOT_FOUND")


def listing(call: Call) -> Answer:
    """All properties but those that HubSpot keeps silent about (the time in each stage), which can be asked for by name."""
    kind = _kind(call)
    if call.flag("archived"):
        return Answer({"results": []})
    return Answer({"results": [prop.definition() for prop in kind.properties.values() if prop.listed]})


def read(call: Call) -> Answer:
    kind, name = _kind(call), call.params["name"]
    if name not in kind.properties or call.flag("archived"):
        raise _gone(f'Property "{name}"')
    return Answer(kind.properties[name].definition())


def create(call: Call) -> Answer:
    kind = _kind(call, "write")
    with call.portal.store.transaction():
        return Answer(call.portal.catalogue.create(kind, _object(call), call.now, None).definition(), 201)


def batch_create(call: Call) -> Answer:
    """Up to 100 new properties: those that exist already or are wrong are told in a 207, the others are made."""
    kind = _kind(call, "write")
    started, results, errors = call.now, [], []
    for given in _inputs(call):
        try:
            with call.portal.store.transaction():
                results.append(call.portal.catalogue.create(kind, given, call.now, None).definition())
        except ApiError as error:
            context = {"name": [str(given.get("name"))]}
            errors.append({"status": "error", "category": error.category, "message": error.message, "context": context})
    return _batch(call, results, errors, started, 201)


def batch_read(call: Call) -> Answer:
    kind = _kind(call)
    started, names = call.now, [str(one.get("name")) for one in _inputs(call)]
    results = [kind.properties[name].definition() for name in names if name in kind.properties]
    errors = [
        {
            "status": "error",
            "category": "OBJECT_NOT_FOUND",
            "message": f'Property "{name}" does not exist',
            "context": {"name": [name]},
        }
        for name in names
        if name not in kind.properties
    ]
    return _batch(call, results, errors, started)


def groups(call: Call) -> Answer:
    return Answer({"results": call.portal.catalogue.groups(_kind(call))})


def group(call: Call) -> Answer:
    for one in call.portal.catalogue.groups(_kind(call)):
        if one["name"] == call.params["group"]:
            return Answer(one)
    raise _gone(f"Property group {call.params['group']}")


def create_group(call: Call) -> Answer:
    kind, given = _kind(call, "write"), _object(call)
    if not given.get("name") or not given.get("label"):
        raise validation("Some required fields were not set: [name, label]")
    with call.portal.store.transaction():
        return Answer(call.portal.catalogue.add_group(kind, given["name"], given["label"]), 201)


def pipelines(call: Call) -> Answer:
    return Answer({"results": call.portal.pipelines.listing() if _kind(call).name == "deals" else []})


def pipeline(call: Call) -> Answer:
    found = call.portal.pipelines.listing(call.params["pipeline"]) if _kind(call).name == "deals" else []
    if not found:
        raise _gone(f"Pipeline {call.params['pipeline']}")
    return Answer(found[0])


def stages(call: Call) -> Answer:
    return Answer({"results": pipeline(call).body["stages"]})


def stage(call: Call) -> Answer:
    for one in pipeline(call).body["stages"]:
        if one["id"] == call.params["stage"]:
            return Answer(one)
    raise _gone(f"Stage {call.params['stage']}")


def schemas(call: Call) -> Answer:
    call.need("crm.schemas.custom.read")
    custom = [kind for kind in call.portal.catalogue.types.values() if kind.custom]
    return Answer({"results": [] if call.flag("archived") else [_schema(call, kind) for kind in custom]})


def schema(call: Call) -> Answer:
    call.need("crm.schemas.custom.read")
    return Answer(_schema(call, call.portal.catalogue.find(call.params["object_type"])))


def create_schema(call: Call) -> Answer:
    call.need("crm.schemas.custom.write")
    if "schemas" in call.portal.refused_types:
        raise ApiError(403, "This account's subscription does not include custom objects.", "FORBIDDEN")
    with call.portal.store.transaction():
        return Answer(_schema(call, call.portal.add_schema(_object(call))), 201)


def _schema(call: Call, kind: ObjectType) -> dict[str, Any]:
    links = call.portal.store.rows(
        "select to_type, type_id, name from association_type where from_type = ? order by type_id", [kind.name]
    )
    return {
        "id": kind.type_id,
        "objectTypeId": kind.type_id,
        "fullyQualifiedName": call.portal.catalogue.api_name(kind),
        "name": kind.name,
        "labels": {"singular": kind.label, "plural": kind.plural_label},
        "description": kind.description,
        "primaryDisplayProperty": kind.primary_display,
        "secondaryDisplayProperties": kind.secondary_display,
        "requiredProperties": kind.required,
        "searchableProperties": kind.searchable,
        "properties": [prop.definition() for prop in kind.properties.values() if prop.listed],
        "associations": [
            {
                "id": str(type_id),
                "name": name,
                "fromObjectTypeId": kind.type_id,
                "toObjectTypeId": call.portal.catalogue.types[to_type].type_id,
            }
            for to_type, type_id, name in links
        ],
        **({"createdAt": kind.createdAt, "updatedAt": kind.createdAt} if kind.createdAt else {}),
        "archived": False,
        "metaType": "PORTAL_SPECIFIC" if kind.custom else "HUBSPOT",
    }


def _object(call: Call) -> dict[str, Any]:
    if not isinstance(call.json, Mapping):
        raise validation("Invalid input JSON: an object is needed")
    return dict(call.json)


def _inputs(call: Call) -> list[dict[str, Any]]:
    inputs = _object(call).get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, Mapping) for one in inputs):
        raise validation("Invalid input JSON: inputs must be a list of objects")
    if len(inputs) > MOST:
        raise validation(f"The maximum number of inputs supported in a batch request is {MOST}; got {len(inputs)}.")
    return [dict(one) for one in inputs]


def _batch(call: Call, results: list[Any], errors: list[Any], started: Any, status: int = 200) -> Answer:
    body: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if errors:
        body |= {"numErrors": len(errors), "errors": errors}
    return Answer(body | {"startedAt": iso(started), "completedAt": iso(call.now)}, 207 if errors else status)
