"""Records as JSON: found as ids, then rendered by DuckDB as text, so that a page costs the same with 800 deals or a million."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.simulator.clock import SimClock
from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType, Property
from connectors.simulator.hubspot.links import Links
from connectors.simulator.hubspot.records import Records
from connectors.simulator.hubspot.store import Store, literal, quote

VERSIONS = {"deals": 20, "companies": 20, "contacts": 45}  # versions of a property that a read gives
INLINE = 100  # associations of a kind that come with a record; there is a page more when it has more


@dataclass(frozen=True)
class Shape:
    """What of each record is wanted: property names as asked for (unknown ones are passed over), and association types."""

    properties: Sequence[str] = ()
    history: Sequence[str] = ()
    associations: Sequence[ObjectType] = field(default=())


class Pages:
    def __init__(self, store: Store, catalogue: Catalogue, records: Records, links: Links, clock: SimClock) -> None:
        self.store, self.catalogue, self.records, self.links, self.clock = store, catalogue, records, links, clock

    def listing(
        self, object_type: ObjectType, shape: Shape, *, after: int, limit: int, archived: bool
    ) -> tuple[list[str], int | None]:
        """One page in the order of ids, and the id to go on from, or None at the end. Keyset paging: nothing that is
        written or archived meanwhile shifts a page."""
        relation = self.records.relation(object_type)
        ids = [
            row[0]
            for row in self.store.rows(
                f"""select _id from {relation} where _id >= ? and _merged_into is null
                    and _archived_at is {'not null' if archived else 'null'} order by _id limit ?""",
                [after, limit + 1],
            )
        ]
        return self.render(object_type, ids[:limit], shape), (ids[limit] if len(ids) > limit else None)

    def render(
        self, object_type: ObjectType, ids: Sequence[int], shape: Shape, *, index: bool = False, fresh: bool = False
    ) -> list[str]:
        """JSON texts of records, in the order of `ids`. `index`: as search sees them; `fresh`: as their writer does."""
        if not ids:
            return []
        with self.store.lock:
            relation = object_type.table if fresh else self.records.relation(object_type, index=index)
            histories = self._known(object_type, shape.history)
            found = self._records(object_type, relation, ids, shape, histories)
            versions = self._versions(object_type, ids, histories) if histories else {}
            linked = self._linked(object_type, ids, shape.associations) if shape.associations else {}
        rendered = []
        for record_id in ids:
            if record_id not in found:
                continue
            head, tail, first_versions = found[record_id]
            parts = [head]
            if histories:
                # A value that was never written since the record was made has one version: the first.
                entries = (
                    f'"{prop.name}":{versions.get((record_id, prop.name), first)}'
                    for prop, first in zip(histories, first_versions, strict=True)
                )
                parts.append(f',"propertiesWithHistory":{{{",".join(entries)}}}')
            parts.append(tail)
            if record_id in linked:
                parts.append(f',"associations":{{{",".join(linked[record_id])}}}')
            rendered.append("".join(parts) + "}")
        return rendered

    def _known(self, object_type: ObjectType, names: Sequence[str]) -> list[Property]:
        return [object_type.properties[name] for name in sorted(set(names)) if name in object_type.properties]

    def _records(
        self, object_type: ObjectType, relation: str, ids: Sequence[int], shape: Shape, histories: Sequence[Property]
    ) -> dict[int, tuple[str, str, list[str]]]:
        """By id: JSON up to the properties, JSON from createdAt on, and the version that each of `histories` began with."""
        now = self.clock.now()
        names = [*(shape.properties or object_type.default), *object_type.always, *shape.history]
        asked = self._known(object_type, names)
        rates = self.catalogue.exchange_rate() if any(prop.formula for prop in asked) else None
        pairs = ", ".join(f"{literal(prop.name)}, {self.catalogue.text(object_type, prop, now, rates)}" for prop in asked)
        source = "coalesce(hs_object_source, 'CRM_UI')" if "hs_object_source" in object_type.properties else "'CRM_UI'"
        stamp = f"""',"timestamp":"' || iso(_created_at) || '","sourceType":"' || {source} || '"}}]'"""
        first = ", ".join(
            "'[]'"
            if prop.calculated or not prop.stored
            else f"coalesce('[{{\"value\":' || to_json({quote(prop.name)}) || {stamp}, '[]')"
            for prop in histories
        )
        rows = self.store.rows(
            f"""select _id, '{{"id":"' || _id || '","properties":' || json_object({pairs}),
                       ',"createdAt":"' || iso(_created_at) || '","updatedAt":"' || iso(_updated_at) || '"'
                       || coalesce(',"archived":true,"archivedAt":"' || iso(_archived_at) || '"', ',"archived":false'),
                       [{first}]
                from {relation} where {_among("_id", ids)}"""
        )
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def _versions(self, object_type: ObjectType, ids: Sequence[int], histories: Sequence[Property]) -> dict[tuple[int, str], str]:
        """JSON arrays of the newest versions, newest first, by record and property."""
        names = ", ".join(literal(prop.name) for prop in histories)
        rows = self.store.rows(
            f"""select object_id, property, '[' || array_to_string(list(
                  '{{"value":' || to_json(coalesce(value, '')) || ',"timestamp":"' || iso(written_at) || '","sourceType":"'
                  || source_type || '"' || coalesce(',"sourceId":' || to_json(source_id), '')
                  || coalesce(',"updatedByUserId":' || user_id, '') || '}}'
                  order by written_at desc, seq desc)[:{VERSIONS.get(object_type.name, 20)}], ',') || ']'
                from {object_type.history}
                where {_among("object_id", ids)} and property in ({names})
                  and (visible_at is null or visible_at <= timestamptz {literal(self.clock.now().isoformat())})
                group by object_id, property"""
        )
        return {(row[0], row[1]): row[2] for row in rows}

    def _linked(self, object_type: ObjectType, ids: Sequence[int], wanted: Sequence[ObjectType]) -> dict[int, list[str]]:
        """By record, one JSON member per kind of associated object."""
        kinds = ", ".join(literal(other.name) for other in wanted)
        keys = " ".join(f"when {literal(other.name)} then {literal(self.catalogue.api_name(other))}" for other in wanted)
        names = " ".join(
            f"when {literal(f'{other.name} {category} {type_id}')} then {literal(name)}"
            for other in wanted
            for category, type_id, name, *_ in self.links.types(object_type, other)
        )
        rows = self.store.rows(
            f"""with linked as (
                  select from_id, to_type, list(to_id order by to_id, type_id) as others,
                         list('{{"id":"' || to_id || '","type":' || to_json(case to_type || ' ' || category || ' ' || type_id {names} end)
                              || '}}' order by to_id, type_id) as entries
                  from association
                  where from_type = {literal(object_type.name)} and to_type in ({kinds}) and not hidden and {_among("from_id", ids)}
                  group by from_id, to_type)
                select from_id, '"' || (case to_type {keys} end) || '":{{"results":[' || array_to_string(entries[:{INLINE}], ',') || ']'
                       || coalesce(',"paging":{{"next":{{"after":"' || others[{INLINE} + 1] || '"}}}}', '') || '}}'
                from linked order by from_id, to_type"""
        )
        linked: dict[int, list[str]] = {}
        for record_id, member in rows:
            linked.setdefault(record_id, []).append(member)
        return linked


def _among(column: str, ids: Sequence[int]) -> str:
    """SQL: the column holds one of the ids. The bounds let zone maps skip what the list alone would not."""
    return f"{column} between {min(ids)} and {max(ids)} and {column} in ({', '.join(str(int(i)) for i in ids)})"
