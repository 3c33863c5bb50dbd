"""Associations between records: both directions, default types, the primary company, labels. None of it stamps a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType
from connectors.simulator.hubspot.errors import validation
from connectors.simulator.hubspot.store import Store

HUBSPOT = "HUBSPOT_DEFINED"
USER = "USER_DEFINED"
PAGE = 500  # associations of one record on a page
# (from, to, type id, name, label, type id of the other direction); the unlabelled one of a pair is its default
STANDARD_TYPES = (
    ("deals", "contacts", 3, "deal_to_contact", None, 4),
    ("contacts", "deals", 4, "contact_to_deal", None, 3),
    ("deals", "companies", 341, "deal_to_company_unlabeled", None, 342),
    ("companies", "deals", 342, "company_to_deal_unlabeled", None, 341),
    ("deals", "companies", 5, "deal_to_company", "Primary", 6),
    ("companies", "deals", 6, "company_to_deal", "Primary", 5),
    ("contacts", "companies", 279, "contact_to_company_unlabeled", None, 280),
    ("companies", "contacts", 280, "company_to_contact_unlabeled", None, 279),
    ("contacts", "companies", 1, "contact_to_company", "Primary", 2),
    ("companies", "contacts", 2, "company_to_contact", "Primary", 1),
)
PRIMARY = {("deals", "companies"): 5, ("contacts", "companies"): 1}


class Links:
    def __init__(self, store: Store, catalogue: Catalogue) -> None:
        self.store, self.catalogue = store, catalogue
        if not store.value("select count(*) from association_type"):
            for from_type, to_type, type_id, name, label, inverse in STANDARD_TYPES:
                store.run(
                    "insert into association_type values (?, ?, ?, ?, ?, ?, ?)",
                    [from_type, to_type, HUBSPOT, type_id, name, label, inverse],
                )

    def types(self, from_type: ObjectType, to_type: ObjectType) -> list[tuple[str, int, str, str | None, int]]:
        """(category, type id, name, label, inverse type id) of a pair, the default one first."""
        return [
            (row[0], row[1], row[2], row[3], row[4])
            for row in self.store.rows(
                """select category, type_id, name, label, inverse_type_id from association_type
                   where from_type = ? and to_type = ? order by label is not null, category, type_id""",
                [from_type.name, to_type.name],
            )
        ]

    def default_type(self, from_type: ObjectType, to_type: ObjectType) -> tuple[str, int]:
        for category, type_id, _, label, _ in self.types(from_type, to_type):
            if label is None:
                return category, type_id
        raise validation(f"No association types exist between {from_type.name} and {to_type.name}")

    def add_type(self, from_type: ObjectType, to_type: ObjectType, label: str | None, name: str | None = None) -> tuple[int, int]:
        """A user-defined association type in both directions; gives their ids."""
        with self.store.transaction():
            first = 1 + self.store.value("select coalesce(max(type_id), 0) from association_type where category = ?", [USER])
            ends = ((from_type, to_type, first, first + 1), (to_type, from_type, first + 1, first))
            for a, b, type_id, inverse in ends:
                called = name or (label or f"{a.singular}_to_{b.singular}").lower().replace(" ", "_")
                self.store.run(
                    "insert into association_type values (?, ?, ?, ?, ?, ?, ?)",
                    [a.name, b.name, USER, type_id, called, label, inverse],
                )
        return first, first + 1

    def label_type(self, from_type: ObjectType, to_type: ObjectType, label: str) -> tuple[str, int]:
        for category, type_id, _, known, _ in self.types(from_type, to_type):
            if known == label:
                return category, type_id
        return USER, self.add_type(from_type, to_type, label)[0]

    def link(
        self,
        from_type: ObjectType,
        from_id: int,
        to_type: ObjectType,
        to_id: int,
        specs: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Associate two records by the pair's default type and by `specs` (category, type id). Repeating it is no error.

        The first company of a deal or contact becomes its primary one; making another one primary takes that from the old.
        """
        known = {(category, type_id): inverse for category, type_id, _, _, inverse in self.types(from_type, to_type)}
        for category, type_id in specs:
            if (category, type_id) not in known:
                raise validation(f"Association type {category} {type_id} does not exist from {from_type.name} to {to_type.name}")
        if (to_type.name, from_type.name) in PRIMARY:
            inverted = [(category, known[(category, type_id)]) for category, type_id in specs]
            return self.link(to_type, to_id, from_type, from_id, inverted)
        wanted = {self.default_type(from_type, to_type), *specs}
        with self.store.transaction():
            primary = PRIMARY.get((from_type.name, to_type.name))
            if primary is not None:
                present = self.store.value(
                    """select to_id from association
                       where from_type = ? and from_id = ? and to_type = ? and category = ? and type_id = ?""",
                    [from_type.name, from_id, to_type.name, HUBSPOT, primary],
                )
                if present is None:
                    wanted.add((HUBSPOT, primary))
                elif (HUBSPOT, primary) in wanted and present != to_id:
                    self._drop_primary(from_type, from_id, to_type, primary)
            rows = []
            for category, type_id in wanted:
                rows.append([from_type.name, from_id, to_type.name, to_id, category, type_id])
                rows.append([to_type.name, to_id, from_type.name, from_id, category, known[(category, type_id)]])
            for row in rows:
                self.store.run(
                    """insert into association select ?, ?, ?, ?, ?, ?, false where not exists (
                         from association where from_type = ? and from_id = ? and to_type = ? and to_id = ?
                           and category = ? and type_id = ?)""",
                    row + row,
                )
            self.recount(from_type, [from_id])
            self.recount(to_type, [to_id])

    def _drop_primary(self, a: ObjectType, a_id: int, b: ObjectType, primary: int) -> None:
        inverse = next(inverse for _, type_id, _, _, inverse in self.types(a, b) if type_id == primary)
        self.store.run(
            """delete from association where category = ? and (
                 (from_type = ? and from_id = ? and to_type = ? and type_id = ?)
                 or (to_type = ? and to_id = ? and from_type = ? and type_id = ?))""",
            [HUBSPOT, a.name, a_id, b.name, primary, a.name, a_id, b.name, inverse],
        )

    def unlink(
        self,
        from_type: ObjectType,
        from_id: int,
        to_type: ObjectType,
        to_id: int,
        specs: Sequence[tuple[str, int]] | None = None,
    ) -> None:
        """Take the association away, or only the given types of it."""
        inverses = {(category, type_id): inverse for category, type_id, _, _, inverse in self.types(from_type, to_type)}
        ends = [from_type.name, from_id, to_type.name, to_id]
        back = [to_type.name, to_id, from_type.name, from_id]
        pair = "from_type = ? and from_id = ? and to_type = ? and to_id = ?"
        with self.store.transaction():
            if specs is None:
                self.store.run(f"delete from association where ({pair}) or ({pair})", ends + back)
            for category, type_id in specs or ():
                inverse = inverses.get((category, type_id))
                self.store.run(
                    f"delete from association where ({pair} and category = ? and type_id = ?) or ({pair} and category = ? and type_id = ?)",
                    [*ends, category, type_id, *back, category, inverse],
                )
            self.recount(from_type, [from_id])
            self.recount(to_type, [to_id])

    def hide(self, object_type: ObjectType, ids: Sequence[int], hidden: bool) -> None:
        """Follow an archived or restored record: its associations are out of sight until both ends are live."""
        listed = ", ".join(str(int(i)) for i in ids)
        if not listed:
            return
        touched = f"(from_type = ? and from_id in ({listed})) or (to_type = ? and to_id in ({listed}))"
        names = [object_type.name, object_type.name]
        with self.store.transaction():
            if hidden:
                self.store.run(f"update association set hidden = true where {touched}", names)
            else:
                gone = " union all ".join(
                    f"select '{t.name}' as type, _id from {t.table} where _archived_at is not null" for t in self.catalogue.types.values()
                )
                self.store.run(
                    f"""with gone as ({gone}) update association as a set hidden = false where ({touched})
                        and not exists (from gone where (gone.type = a.from_type and gone._id = a.from_id)
                                                     or (gone.type = a.to_type and gone._id = a.to_id))""",
                    names,
                )
            if object_type.name != "deals":
                deals = self.store.rows(
                    f"select distinct to_id from association where from_type = ? and from_id in ({listed}) and to_type = 'deals'",
                    [object_type.name],
                )
                self.recount(self.catalogue.types["deals"], [row[0] for row in deals])

    def recount(self, object_type: ObjectType, ids: Sequence[int]) -> None:
        """num_associated_contacts and the primary company of deals: recomputed without moving hs_lastmodifieddate."""
        if object_type.name != "deals" or not ids:
            return
        listed = ", ".join(str(int(i)) for i in ids)
        self.store.run(
            f"""with counted as (
                  select d._id,
                         count(distinct a.to_id) filter (a.to_type = 'contacts') as contacts,
                         any_value(a.to_id) filter (a.to_type = 'companies' and a.category = '{HUBSPOT}' and a.type_id = 5) as company
                  from object_deals d
                  left join association a on a.from_type = 'deals' and a.from_id = d._id and not a.hidden
                  where d._id in ({listed}) group by d._id)
                update object_deals as d set num_associated_contacts = c.contacts::varchar,
                       hs_primary_associated_company = c.company::varchar
                from counted c where c._id = d._id"""
        )

    def move(self, object_type: ObjectType, old: int, new: int) -> None:
        """Give the associations of a merged record to its survivor; what it has already stays single."""
        with self.store.transaction():
            primary = PRIMARY.get((object_type.name, "companies"), -1)
            self.store.run(
                """delete from association as a where a.from_type = ? and a.from_id = ? and (exists (
                     from association b where b.from_type = a.from_type and b.from_id = ? and b.to_type = a.to_type
                       and b.to_id = a.to_id and b.category = a.category and b.type_id = a.type_id)
                   or (a.category = ? and a.type_id = ? and exists (
                     from association b where b.from_type = a.from_type and b.from_id = ? and b.category = a.category
                       and b.type_id = a.type_id)))""",
                [object_type.name, old, new, HUBSPOT, primary, new],
            )
            # The other direction follows what is left of the first.
            self.store.run("delete from association where to_type = ? and to_id in (?, ?)", [object_type.name, old, new])
            self.store.run("update association set from_id = ? where from_type = ? and from_id = ?", [new, object_type.name, old])
            self.store.run(
                """insert into association
                   select a.to_type, a.to_id, a.from_type, a.from_id, a.category, t.inverse_type_id, a.hidden
                   from association a join association_type t
                     on t.from_type = a.from_type and t.to_type = a.to_type and t.category = a.category and t.type_id = a.type_id
                   where a.from_type = ? and a.from_id = ?""",
                [object_type.name, new],
            )
            self.recount(object_type, [new])

    def forget(self, object_type: ObjectType, record_id: int) -> None:
        with self.store.transaction():
            deals = self.store.rows(
                "select distinct to_id from association where from_type = ? and from_id = ? and to_type = 'deals'",
                [object_type.name, record_id],
            )
            self.store.run(
                "delete from association where (from_type = ? and from_id = ?) or (to_type = ? and to_id = ?)",
                [object_type.name, record_id, object_type.name, record_id],
            )
            self.recount(self.catalogue.types["deals"], [row[0] for row in deals])

    def read(
        self, from_type: ObjectType, wanted: Sequence[tuple[int, int]], to_type: ObjectType, limit: int = PAGE
    ) -> dict[int, tuple[list[dict[str, Any]], int | None]]:
        """Associations of records: id -> (v4's `to` entries, id to go on after or None). `wanted`: (id, after)."""
        listed = ", ".join(f"({int(i)}, {int(after)})" for i, after in wanted)
        rows = self.store.rows(
            f"""with wanted(id, after) as (values {listed}),
                linked as (
                  select a.from_id, a.to_id,
                         to_json(list({{'category': a.category, 'typeId': a.type_id, 'label': t.label}} order by a.type_id)) as types
                  from association a join wanted w on w.id = a.from_id and a.to_id > w.after
                  join association_type t on t.from_type = a.from_type and t.to_type = a.to_type
                       and t.category = a.category and t.type_id = a.type_id
                  where a.from_type = ? and a.to_type = ? and not a.hidden
                  group by a.from_id, a.to_id),
                numbered as (select *, row_number() over (partition by from_id order by to_id) as n from linked)
                select from_id, '[' || string_agg('{{"toObjectId":' || to_id || ',"associationTypes":' || types || '}}', ','
                                                  order by to_id) filter (n <= {int(limit)}) || ']',
                       max(to_id) filter (n = {int(limit)}), count(*)
                from numbered group by from_id""",
            [from_type.name, to_type.name],
        )
        return {
            from_id: (orjson.loads(entries), last if count > limit else None) for from_id, entries, last, count in rows
        }

    def labels(self, from_type: ObjectType, to_type: ObjectType) -> list[dict[str, Any]]:
        return [{"category": c, "typeId": t, "label": label} for c, t, _, label, _ in self.types(from_type, to_type)]

