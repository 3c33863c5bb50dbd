"""Records as JSON: found as ids, then rendered by DuckDB as text, so that a page costs the same with 800 deals or a million."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from connectors.simulator.clock import SimClock
from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType, Property
from connectors.simulator.hubspot.records import Records
from connectors.simulator.hubspot.store import Store, literal

VERSIONS = {"deals": 20, "companies": 20, "contacts": 45}  # versions of a property that a read gives
INLINE = 100  # associations of a kind that come with a record; there is a page more when it has more


@dataclass(frozen=True)
class Shape:
    """What of each record is wanted: property names as asked for (unknown ones are passed over), and association types."""

    properties: Sequence[str] = ()
    history: Sequence[str] = ()
    associations: Sequence[ObjectType] = field(default=())


class Pages:
    def __init__(self, store: Store, catalogue: Catalogue, records: Records, clock: SimClock) -> None:
        self.store, self.catalogue, self.records, self.clock = store, catalogue, records, clock

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
            return [row[0] for row in self.store.rows(self._sql(object_type, relation, ids, shape))]

    def _sql(self, object_type: ObjectType, relation: str, ids: Sequence[int], shape: Shape) -> str:
        now = self.clock.now()
        history = self._known(object_type, shape.history)
        asked = self._known(object_type, [*(shape.properties or object_type.default), *object_type.always, *shape.history])
        asked.sort(key=lambda prop: prop.name)
        pairs = ", ".join(f"{literal(prop.name)}, {self.catalogue.text(object_type, prop, now)}" for prop in asked)
        listed = ", ".join(str(int(i)) for i in ids)
        # The bounds let zone maps skip what the list of ids alone would not.
        ctes = [
            f"wanted as (select unnest([{listed}]) as id, generate_subscripts([{listed}], 1) as position)",
            f"""page as (from {relation}
                where _id between {min(ids)} and {max(ids)} and _id in ({listed}))""",
        ]
        ctes.append(
            f"""record as (select _id,
                '{{"id":"' || _id || '","properties":' || json_object({pairs}) as head,
                ',"createdAt":"' || iso(_created_at) || '","updatedAt":"' || iso(_updated_at) || '"'
                || coalesce(',"archived":true,"archivedAt":"' || iso(_archived_at) || '"', ',"archived":false') as tail
                from page)"""
        )
        text, joins = ["r.head"], ["join record r on r._id = w.id"]
        if history:
            ctes += self._history(object_type, history, ids)
            text.append("""coalesce(',"propertiesWithHistory":' || h.entries, '')""")
            joins.append("left join histories h on h._id = r._id")
        text.append("r.tail")
        if shape.associations:
            ctes += self._associations(object_type, shape.associations, ids)
            text.append("""coalesce(',"associations":' || l.entries, '')""")
            joins.append("left join linked l on l.from_id = r._id")
        return f"with {', '.join(ctes)} select {' || '.join(text)} || '}}' from wanted w {' '.join(joins)} order by w.position"

    def _known(self, object_type: ObjectType, names: Sequence[str]) -> list[Property]:
        return [object_type.properties[name] for name in dict.fromkeys(names) if name in object_type.properties]

    def _history(self, object_type: ObjectType, history: Sequence[Property], ids: Sequence[int]) -> list[str]:
        now = self.clock.now()
        structs = ", ".join(
            f"{{'property': {literal(prop.name)}, 'value': {self.catalogue.text(object_type, prop, now)}, "
            f"'calculated': {str(not prop.stored or prop.calculated).lower()}}}"
            for prop in history
        )
        names = ", ".join(literal(prop.name) for prop in history)
        listed = ", ".join(str(int(i)) for i in ids)
        source = "hs_object_source" if "hs_object_source" in object_type.properties else "null"
        return [
            f"asked as (select _id, _created_at, {source} as source, unnest([{structs}], recursive := true) from page)",
            f"""version as (
                select object_id, property, coalesce(value, '') as value, written_at, seq, source_type, source_id, user_id
                from {object_type.history}
                where object_id between {min(ids)} and {max(ids)} and object_id in ({listed}) and property in ({names})
                  and (visible_at is null or visible_at <= timestamptz {literal(now.isoformat())})
                qualify row_number() over (partition by object_id, property order by written_at desc, seq desc)
                        <= {VERSIONS.get(object_type.name, 20)})""",
            """entry as (
                select object_id, property, '[' || string_agg(
                  '{"value":' || to_json(value) || ',"timestamp":"' || iso(written_at) || '","sourceType":"' || source_type || '"'
                  || coalesce(',"sourceId":' || to_json(source_id), '') || coalesce(',"updatedByUserId":' || user_id, '') || '}',
                  ',' order by written_at desc, seq desc) || ']' as entries
                from version group by object_id, property)""",
            # A value that was never written since the record was made has one version: the first.
            """histories as (
                select a._id, '{' || string_agg('"' || a.property || '":' || coalesce(e.entries,
                  case when a.value is null or a.calculated then '[]' else
                    '[{"value":' || to_json(a.value) || ',"timestamp":"' || iso(a._created_at) || '","sourceType":"'
                    || coalesce(a.source, 'CRM_UI') || '"}]' end), ',' order by a.property) || '}' as entries
                from asked a left join entry e on e.object_id = a._id and e.property = a.property group by a._id)""",
        ]

    def _associations(self, object_type: ObjectType, wanted: Sequence[ObjectType], ids: Sequence[int]) -> list[str]:
        names = ", ".join(literal(other.name) for other in wanted)
        keys = "".join(f" when {literal(other.name)} then {literal(self.catalogue.api_name(other))}" for other in wanted)
        listed = ", ".join(str(int(i)) for i in ids)
        return [
            f"""numbered as (
                select a.from_id, a.to_type, a.to_id, t.name, t.type_id,
                       row_number() over (partition by a.from_id, a.to_type order by a.to_id, t.type_id) as n
                from association a join association_type t on t.from_type = a.from_type and t.to_type = a.to_type
                     and t.category = a.category and t.type_id = a.type_id
                where a.from_type = {literal(object_type.name)} and a.to_type in ({names}) and not a.hidden
                  and a.from_id between {min(ids)} and {max(ids)} and a.from_id in ({listed}))""",
            f"""link as (
                select from_id, to_type, '{{"results":[' || string_agg('{{"id":"' || to_id || '","type":"' || name || '"}}', ','
                         order by n) filter (n <= {INLINE}) || ']'
                       || coalesce(',"paging":{{"next":{{"after":"' || any_value(to_id) filter (n = {INLINE} + 1) || '"}}}}', '')
                       || '}}' as entries
                from numbered group by from_id, to_type)""",
            f"""linked as (
                select from_id, '{{' || string_agg('"' || (case to_type{keys} end) || '":' || entries, ','
                                                   order by to_type) || '}}' as entries
                from link group by from_id)""",
        ]
