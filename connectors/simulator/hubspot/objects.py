"""Handlers: objects one by one, listed, searched, and in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from connectors.simulator.hubspot.call import Answer, Call
from connectors.simulator.hubspot.catalogue import ObjectType
from connectors.simulator.hubspot.errors import ApiError, InvalidValue, invalid_values, no_such_object, validation
from connectors.simulator.hubspot.pages import Shape
from connectors.simulator.hubspot.records import Source, Values
from connectors.simulator.hubspot.values import iso

MOST, MOST_WITH_HISTORY = 100, 50


def kind_of(call: Call, *rights: str) -> ObjectType:
    """The object type of the path, when the token may do that with it and the account has it."""
    kind = call.portal.catalogue.find(call.params["object_type"])
    call.need(*(f"crm.objects.{kind.scope}.{right}" for right in rights))
    if kind.name in call.portal.refused_types:
        raise ApiError(403, f"This account's subscription does not include {kind.name}.", "FORBIDDEN")
    return kind


def shape_of(call: Call) -> Shape:
    others = [call.portal.catalogue.find(name) for name in call.many("associations")]
    call.need(*(f"crm.objects.{other.scope}.read" for other in others))
    return Shape(call.many("properties"), call.many("propertiesWithHistory"), others)


def source_of(call: Call) -> Source:
    return Source("INTEGRATION", call.portal.settings["app_id"])


def number(object_id: Any) -> int | None:
    """An id that may exist: HubSpot's are whole numbers."""
    text = str(object_id)
    return int(text) if text.isdigit() and len(text) < 19 else None


def listing(call: Call) -> Answer:
    kind, shape = kind_of(call, "read"), shape_of(call)
    most = MOST_WITH_HISTORY if shape.history else MOST
    limit = call.whole("limit", 10, most)
    after = call.one("after") or "0"
    if not after.isdigit():
        raise validation(f"Invalid value for after: {after}", context={"after": [after]})
    found, onward = call.portal.pages.listing(
        kind, shape, after=int(after), limit=limit, archived=call.flag("archived")
    )
    paging = ""
    if onward is not None:
        paging = f',"paging":{orjson.dumps({"next": {"after": str(onward), "link": call.link(str(onward))}}).decode()}'
    return Answer(f'{{"results":[{",".join(found)}]{paging}}}')


def read(call: Call) -> Answer:
    kind, shape = kind_of(call, "read"), shape_of(call)
    records, given = call.portal.records, call.params["object_id"]
    with call.portal.store.lock:
        wanted = _by_id_property(call, kind, call.one("idProperty"), [given]).get(given) or -1
        if call.flag("archived"):
            current = _archived(call, kind, [wanted]).get(wanted)
        else:
            current = records.live(kind, [wanted]).get(wanted)
        if current is None:
            raise no_such_object(given)
        return Answer(call.portal.pages.render(kind, [current], shape)[0])


def _archived(call: Call, kind: ObjectType, ids: Sequence[int]) -> dict[int, int]:
    known = call.portal.records.resolve(kind, ids)
    listed = ", ".join(map(str, known.values())) or "null"
    gone = {
        row[0]
        for row in call.portal.store.rows(
            f"select _id from {call.portal.records.relation(kind)} where _id in ({listed}) and _archived_at is not null"
        )
    }
    return {asked: current for asked, current in known.items() if current in gone}


def _by_id_property(call: Call, kind: ObjectType, id_property: str | None, values: Sequence[str]) -> dict[str, int]:
    """What was given as ids -> record ids; by another unique property when one is named."""
    if id_property in (None, "", "hs_object_id"):
        return {value: record_id for value in values if (record_id := number(value)) is not None}
    prop = kind.properties.get(str(id_property))
    if prop is None or not prop.unique:
        raise validation(f"Property {id_property} of {kind.name} is not a unique identifier", context={"idProperty": [str(id_property)]})
    return call.portal.records.find(kind, prop, values)


def search(call: Call) -> Answer:
    kind = kind_of(call, "read")
    if not isinstance(call.json, Mapping):
        raise validation("Invalid input JSON: a search request is an object")
    total, found, onward = call.portal.searching.find(kind, call.json)
    paging = "" if onward is None else f',"paging":{{"next":{{"after":"{onward}"}}}}'
    return Answer(f'{{"total":{total},"results":[{",".join(found)}]{paging}}}')


def create(call: Call) -> Answer:
    kind = kind_of(call, "write")
    new = _create(call, kind, [call.json or {}])
    return Answer(_written(call, kind, new, [(call.json or {}).get("properties") or {}])[0], 201)


def batch_create(call: Call) -> Answer:
    kind = kind_of(call, "write")
    started = call.now
    inputs = _inputs(call, MOST)
    new = _create(call, kind, inputs)
    return _batch(call, _written(call, kind, new, [one.get("properties") or {} for one in inputs]), [], started, 201)


def _create(call: Call, kind: ObjectType, inputs: Sequence[Mapping[str, Any]]) -> list[int]:
    portal = call.portal
    with portal.store.transaction():
        checked = _check(call, kind, [one.get("properties") or {} for one in inputs])
        for values in checked:
            missing = [name for name in kind.required if not values.get(name)]
            if missing:
                raise validation(
                    f"Error creating {kind.singular.upper()}. Some required properties were not set.",
                    context={"properties": missing},
                )
        new = portal.records.create(kind, checked, source_of(call), late=call.late)
        for record_id, one in zip(new, inputs, strict=True):
            for association in one.get("associations") or ():
                _associate(call, kind, record_id, association)
    return new


def _associate(call: Call, kind: ObjectType, record_id: int, association: Mapping[str, Any]) -> None:
    """An association given with a new record names its type only; the type tells the other object's kind."""
    specs = [(str(t.get("associationCategory")), int(t.get("associationTypeId") or 0)) for t in association.get("types") or ()]
    if not specs:
        raise validation("Associations need at least one type")
    other = call.portal.store.value(
        "select to_type from association_type where from_type = ? and category = ? and type_id = ?", [kind.name, *specs[0]]
    )
    to_id = number((association.get("to") or {}).get("id"))
    if other is None:
        raise validation(f"Association type {specs[0][1]} does not exist from {kind.name}")
    to_kind = call.portal.catalogue.types[other]
    current = call.portal.records.live(to_kind, [to_id or -1])
    if not current:
        raise no_such_object(to_id)
    call.portal.links.link(kind, record_id, to_kind, current[to_id or -1], specs)


def update(call: Call) -> Answer:
    kind, given = kind_of(call, "write"), call.params["object_id"]
    with call.portal.store.transaction():
        wanted = _by_id_property(call, kind, call.one("idProperty"), [given]).get(given) or -1
        current = call.portal.records.live(kind, [wanted]).get(wanted)
        if current is None:
            raise no_such_object(given)
        properties = (call.json or {}).get("properties") or {}
        checked = _check(call, kind, [properties])
        call.portal.records.write(kind, [(current, checked[0])], source_of(call), late=call.late)
        return Answer(_written(call, kind, [current], [properties])[0])


def archive(call: Call) -> Answer:
    kind, given = kind_of(call, "write"), number(call.params["object_id"]) or -1
    with call.portal.store.transaction():
        known = call.portal.records.resolve(kind, [given])
        if not known:
            raise no_such_object(call.params["object_id"])
        live = call.portal.records.live(kind, [given])
        call.portal.records.archive(kind, list(live.values()), late=call.late)
    return Answer(status=204)


def batch_archive(call: Call) -> Answer:
    kind = kind_of(call, "write")
    with call.portal.store.transaction():
        wanted = [number(one.get("id")) or -1 for one in _inputs(call, MOST)]
        live = call.portal.records.live(kind, wanted)
        call.portal.records.archive(kind, list(live.values()), late=call.late)
    return Answer(status=204)


def batch_read(call: Call) -> Answer:
    kind = kind_of(call, "read")
    started = call.now
    asked = call.json if isinstance(call.json, Mapping) else {}
    shape = Shape(asked.get("properties") or (), asked.get("propertiesWithHistory") or ())
    inputs = [str(one.get("id")) for one in _inputs(call, MOST_WITH_HISTORY if shape.history else MOST)]
    with call.portal.store.lock:
        wanted = _by_id_property(call, kind, asked.get("idProperty"), inputs)
        if call.flag("archived"):
            found = _archived(call, kind, list(wanted.values()))
        else:
            found = call.portal.records.live(kind, wanted.values())
        unknown = [value for value in dict.fromkeys(inputs) if wanted.get(value, -1) not in found]
        current = sorted({found[record_id] for record_id in wanted.values() if record_id in found})
        results = call.portal.pages.render(kind, current, shape)
    return _batch(call, results, _unknown(kind, unknown, "get"), started)


def batch_update(call: Call) -> Answer:
    """Sets properties of up to 100 records: unknown ids are told in a 207, one invalid value refuses the entire batch."""
    kind = kind_of(call, "write")
    started = call.now
    inputs = _inputs(call, MOST)
    with call.portal.store.transaction():
        ids = _resolve_inputs(call, kind, inputs)
        checked = _check(call, kind, [one.get("properties") or {} for one in inputs])
        live = call.portal.records.live(kind, [record_id for record_id in ids if record_id is not None])
        changes: list[tuple[int, Values]] = []
        written: list[Mapping[str, Any]] = []
        unknown: list[str] = []
        for one, record_id, values in zip(inputs, ids, checked, strict=True):
            current = live.get(record_id) if record_id is not None else None
            if current is None:
                unknown.append(str(one.get("id")))
            elif any(current == taken for taken, _ in changes):
                raise validation(f"Duplicate IDs found in batch input: [{current}]. IDs must be unique", context={"ids": [str(current)]})
            else:
                changes.append((current, values))
                written.append(one.get("properties") or {})
        if changes:
            call.portal.records.write(kind, changes, source_of(call), late=call.late)
        results = _written(call, kind, [record_id for record_id, _ in changes], written)
    return _batch(call, results, _unknown(kind, unknown, "update"), started)


def batch_upsert(call: Call) -> Answer:
    """Creates or updates by a unique property. Here an invalid value is told per record, in a 207."""
    kind = kind_of(call, "write")
    started = call.now
    inputs = _inputs(call, MOST)
    results: list[str] = []
    errors: list[dict[str, Any]] = []
    seen: set[tuple[str, str]] = set()
    for one in inputs:
        id_property, value = str(one.get("idProperty") or "hs_object_id"), str(one.get("id"))
        if (id_property, value.lower()) in seen:
            raise validation(f"Duplicate IDs found in batch input: [{value}]. IDs must be unique", context={"ids": [value]})
        seen.add((id_property, value.lower()))
    for one in inputs:
        id_property, value = str(one.get("idProperty") or "hs_object_id"), str(one.get("id"))
        properties = one.get("properties") or {}
        try:
            with call.portal.store.transaction():
                wanted = _by_id_property(call, kind, id_property, [value])
                live = call.portal.records.live(kind, wanted.values())
                values = _check(call, kind, [properties])[0]
                current = live.get(wanted.get(value, -1))
                if current is not None:
                    call.portal.records.write(kind, [(current, values)], source_of(call), late=call.late)
                elif id_property == "hs_object_id":
                    errors += _unknown(kind, [value], "update")
                    continue
                else:
                    keyed = values | {id_property: value}
                    current = call.portal.records.create(kind, [keyed], source_of(call), late=call.late)[0]
                text = _written(call, kind, [current], [{**properties, id_property: value}])[0]
                results.append(f'{text[:-1]},"new":{"false" if live else "true"}}}')
        except ApiError as error:
            errors.append(
                {
                    "status": "error",
                    "category": error.category,
                    "message": error.message,
                    "context": {"id": [value]},
                    "errors": error.rest.get("errors", []),
                }
            )
    return _batch(call, results, errors, started)


def merge(call: Call) -> Answer:
    kind = kind_of(call, "write")
    body = call.json or {}
    primary, other = number(body.get("primaryObjectId")), number(body.get("objectIdToMerge"))
    if primary is None or other is None:
        raise validation("Some required fields were not set: [primaryObjectId, objectIdToMerge]")
    with call.portal.store.transaction():
        survivor = call.portal.records.merge(kind, primary, other, source_of(call), late=call.late)
        return Answer(call.portal.pages.render(kind, [survivor], Shape(["hs_merged_object_ids", *kind.default]))[0])


def gdpr_delete(call: Call) -> Answer:
    kind = kind_of(call, "write")
    body = call.json or {}
    with call.portal.store.transaction():
        value = str(body.get("objectId") or "")
        wanted = _by_id_property(call, kind, body.get("idProperty"), [value]).get(value) or -1
        for current in call.portal.records.resolve(kind, [wanted]).values():
            call.portal.records.purge(kind, current)
    return Answer(status=204)


# Shared


def _inputs(call: Call, most: int) -> list[Mapping[str, Any]]:
    inputs = call.json.get("inputs") if isinstance(call.json, Mapping) else None
    if not isinstance(inputs, list) or not all(isinstance(one, Mapping) for one in inputs):
        raise validation("Invalid input JSON: inputs must be a list of objects")
    if not inputs:
        raise validation("The batch has no inputs", context={"inputs": ["0"]})
    if len(inputs) > most:
        raise validation(f"The maximum number of inputs supported in a batch request is {most}; got {len(inputs)}.")
    return inputs


def _resolve_inputs(call: Call, kind: ObjectType, inputs: Sequence[Mapping[str, Any]]) -> list[int | None]:
    by_property: dict[str, list[str]] = {}
    for one in inputs:
        by_property.setdefault(str(one.get("idProperty") or "hs_object_id"), []).append(str(one.get("id")))
    found = {name: _by_id_property(call, kind, name, values) for name, values in by_property.items()}
    return [found[str(one.get("idProperty") or "hs_object_id")].get(str(one.get("id"))) for one in inputs]


def _check(call: Call, kind: ObjectType, given: Sequence[Mapping[str, Any]]) -> list[Values]:
    """All given values checked; raises the 400 for all that are wrong, whichever record they are of."""
    checked: list[Values] = []
    wrong: list[tuple[str, InvalidValue]] = []
    for properties in given:
        values, invalid = call.portal.records.check(kind, properties, api=True)
        checked.append(values)
        wrong += invalid
    if wrong:
        raise invalid_values(wrong, call.portal.portal_id)
    return checked


def _written(call: Call, kind: ObjectType, ids: Sequence[int], given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Records after a write, with the properties that were written."""
    names = dict.fromkeys(name for properties in given for name in properties)
    shape = Shape([*names, *kind.default])
    # A write answers with what it wrote, even while others cannot see it yet.
    return call.portal.pages.render(kind, ids, shape, fresh=True)


def _unknown(kind: ObjectType, ids: Sequence[str], verb: str) -> list[dict[str, Any]]:
    if not ids:
        return []
    message = f"Could not {verb} some {kind.name} objects, they may be deleted or not exist. Check that ids are valid."
    return [{"status": "error", "category": "OBJECT_NOT_FOUND", "message": message, "context": {"ids": list(ids)}}]


def _batch(call: Call, results: Sequence[str], errors: Sequence[Mapping[str, Any]], started: Any, status: int = 200) -> Answer:
    told = ""
    if errors:
        told = f',"numErrors":{len(errors)},"errors":{orjson.dumps(list(errors)).decode()}'
    stamps = f'"startedAt":"{iso(started)}","completedAt":"{iso(call.now)}"'
    return Answer(f'{{"status":"COMPLETE","results":[{",".join(results)}]{told},{stamps}}}', 207 if errors else status)

