"""Records and what happens to them: writes with their side effects, archive and restore, merge, privacy deletion.

A write of properties moves the record's stamp and adds to its property history, whoever writes. Archiving, restoring,
associations and calculated properties move nothing. That is HubSpot's way, and why a stamp alone is no safe cursor.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType, Property
from connectors.simulator.hubspot.errors import ApiError, InvalidValue, invalid_values, no_such_object, validation
from connectors.simulator.hubspot.links import Links
from connectors.simulator.hubspot.pipelines import Pipelines, Stage
from connectors.simulator.hubspot.store import Store, literal, quote
from connectors.simulator.hubspot.values import iso, normalise, probability_text

Values = dict[str, str | None]
DEAL_STATE = ("pipeline", "dealstage", "closedate", "hs_v2_date_entered_current_stage", "hubspot_owner_id")


@dataclass(frozen=True)
class Source:
    """Who wrote, as property history tells it: CRM_UI with the user, INTEGRATION with the app's id, and so on."""

    type: str = "CRM_UI"
    id: str | None = None
    user_id: int | None = None


class Records:
    def __init__(
        self, store: Store, catalogue: Catalogue, pipelines: Pipelines, links: Links, clock: SimClock, faults: Faults
    ) -> None:
        self.store, self.catalogue, self.pipelines, self.links = store, catalogue, pipelines, links
        self.clock, self.faults = clock, faults
        self.index_lag = 0.0
        self.merge_makes_new_record = False
        self._sequence = 0
        self._pending: dict[str, datetime] = {}
        for object_type in catalogue.types.values():
            latest = store.value(f"select max(_visible_at) from {object_type.unseen}")
            if latest:
                self._pending[object_type.name] = latest

    # What readers see

    def relation(self, object_type: ObjectType, *, index: bool = False) -> str:
        """SQL of the rows that a reader sees now. `index`: as the search index has them, which may lag behind.

        A row that was written late is shown as it was before, until its instant comes.
        """
        latest = self._pending.get(object_type.name)
        if latest is None:
            return object_type.table
        now = self.clock.now()
        if now >= latest:
            self.store.run(f"delete from {object_type.unseen}")
            del self._pending[object_type.name]
            return object_type.table
        pending = f"_visible_at > timestamptz {literal(now.isoformat())}" + ("" if index else " and _for = 'all'")
        return f"""(
            select * from {object_type.table} where _id not in (select _id from {object_type.unseen} where {pending})
            union all by name
            select * exclude (_visible_at, _for, _existed, _seq) from (
              from {object_type.unseen} where {pending} qualify row_number() over (partition by _id order by _seq) = 1)
            where _existed)"""

    def _remember(self, object_type: ObjectType, ids: Sequence[int], late: float | None, *, created: bool = False) -> None:
        """Keep the rows as they are, for readers who are not to see the coming write yet."""
        now = self.clock.now()
        delays = [("all", late)] if late else []
        if self.index_lag > 0:
            delays.append(("index", self.index_lag + (late or 0.0)))
        for reader, seconds in delays:
            visible_at = now + timedelta(seconds=float(seconds or 0))
            before = f"select _id from {object_type.table}" if created else f"select * from {object_type.table}"
            self.store.run(
                f"""insert into {object_type.unseen} by name
                    select *, ?::timestamptz as _visible_at, ? as _for, ? as _existed, ?::bigint as _seq
                    from ({before} where _id in ({_listed(ids)}))""",
                [visible_at, reader, not created, self._next()],
            )
            self._pending[object_type.name] = max(visible_at, self._pending.get(object_type.name, visible_at))

    def resolve(self, object_type: ObjectType, ids: Iterable[int]) -> dict[int, int]:
        """Known ids -> the ids of the records that they are today: a merged one is its survivor."""
        wanted = list(dict.fromkeys(ids))
        known: dict[int, int] = {}
        step = {i: i for i in wanted}
        while step:
            found = dict(
                self.store.rows(
                    f"select _id, _merged_into from {object_type.table} where _id in ({_listed(set(step.values()))})"
                )
            )
            onward: dict[int, int] = {}
            for asked, current in step.items():
                if current not in found:
                    continue
                if found[current] is None:
                    known[asked] = current
                else:
                    onward[asked] = found[current]
            step = onward
        return {asked: known[asked] for asked in wanted if asked in known}

    def live(self, object_type: ObjectType, ids: Iterable[int]) -> dict[int, int]:
        """As `resolve`, of the records that are not archived."""
        known = self.resolve(object_type, ids)
        if not known:
            return {}
        rows = self.store.rows(
            f"select _id from {self.relation(object_type)} where _archived_at is null and _id in ({_listed(set(known.values()))})"
        )
        live = {row[0] for row in rows}
        return {asked: current for asked, current in known.items() if current in live}

    def find(self, object_type: ObjectType, prop: Property, values: Sequence[str]) -> dict[str, int]:
        """Value of a unique property -> id of the live record that has it."""
        column = self.catalogue.text(object_type, prop, self.clock.now())
        listed = ", ".join(literal(value.lower()) for value in values)
        rows = self.store.rows(
            f"""select lower({column}), _id from {object_type.table}
                where lower({column}) in ({listed}) and _archived_at is null and _merged_into is null"""
        )
        found = dict(rows)
        return {value: found[value.lower()] for value in values if value.lower() in found}

    # Writing

    def check(self, object_type: ObjectType, given: Mapping[str, Any], *, api: bool) -> tuple[Values, list[tuple[str, InvalidValue]]]:
        """Values as they will be kept, and what is wrong with the others. In the API null means "leave it", '' clears."""
        values: Values = {}
        invalid: list[tuple[str, InvalidValue]] = []
        for name, value in given.items():
            if api and value is None:
                continue
            prop = object_type.properties.get(name)
            if prop is None:
                invalid.append((name, InvalidValue("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')))
            elif prop.read_only:
                message = f'"{name}" is a read only property; its value cannot be set.'
                invalid.append((name, InvalidValue("READ_ONLY_VALUE", message)))
            else:
                try:
                    values[name] = normalise(prop, value, self._external)
                except InvalidValue as error:
                    invalid.append((name, error))
        return values, invalid

    def _external(self, prop: Property) -> set[str] | None:
        if prop.name == "dealstage":
            return {stage.id for stage in self.pipelines.stages() if not stage.archived}
        if prop.name == "pipeline":
            return self.pipelines.pipeline_ids()
        if prop.name == "hubspot_owner_id":
            return {str(row[0]) for row in self.store.rows("select id from owner")}
        if prop.name == "deal_currency_code":
            return {str(row[0]) for row in self.store.rows("select code from currency")}
        return None

    def create(
        self,
        object_type: ObjectType,
        given: Sequence[Values],
        source: Source,
        *,
        late: float | None = None,
    ) -> list[int]:
        """New records of checked values; gives their ids, in order."""
        with self.store.transaction():
            now = self.clock.now()
            ids = []
            for _ in given:
                ids.append(self._new_id(object_type, now))
            if late or self.index_lag:
                self._remember(object_type, ids, late, created=True)
            complete = [self._defaults(object_type, values, source, now) for values in given]
            self.write(object_type, list(zip(ids, complete, strict=True)), source, created_at=now, late=late)
            return ids

    def _new_id(self, object_type: ObjectType, now: datetime) -> int:
        new = int(self.store.value("select next_id from object_type where name = ?", [object_type.name]))
        self.store.run("update object_type set next_id = ? where name = ?", [new + 1 + new * 7919 % 97, object_type.name])
        self.store.run(f"insert into {object_type.table} (_id, _created_at, _updated_at) values (?, ?, ?)", [new, now, now])
        return new

    def _defaults(self, object_type: ObjectType, values: Values, source: Source, now: datetime) -> Values:
        values = dict(values)
        if "createdate" in object_type.properties:
            values.setdefault("createdate", iso(now))
        if object_type.name == "deals":
            values["pipeline"] = values.get("pipeline") or "default"
            values["dealstage"] = values.get("dealstage") or self.pipelines.first_stage(str(values["pipeline"]))
            values.setdefault("hs_object_source", source.type)
            if source.user_id:
                values.setdefault("hs_created_by_user_id", str(source.user_id))
            if source.type == "CRM_UI" and "closedate" not in values:  # the form proposes the last day of the month
                day = calendar.monthrange(now.year, now.month)[1]
                values["closedate"] = iso(now.replace(day=day))
        return values

    def write(
        self,
        object_type: ObjectType,
        changes: Sequence[tuple[int, Values]],
        source: Source,
        *,
        created_at: datetime | None = None,
        late: float | None = None,
    ) -> datetime:
        """Set checked properties of records that are there, with all that follows from it. Gives the stamp of the write.

        Raises HubSpot's 400 when a stage is not one of the deal's pipeline or a unique value is taken.
        """
        with self.store.transaction():
            now, created = created_at or self.clock.now(), created_at is not None
            ids = [record_id for record_id, _ in changes]
            if not created and (late or self.index_lag):
                self._remember(object_type, ids, late)
            self._unique(object_type, changes)
            names = sorted({name for _, values in changes for name in values})
            state = DEAL_STATE if object_type.name == "deals" else ()
            before = self._values(object_type, ids, [*dict.fromkeys([*names, *state])])
            complete: list[tuple[int, Values]] = []
            for record_id, values in changes:
                followed = dict(values)
                if object_type.name == "deals":
                    self._follow_stage(record_id, before[record_id], followed, now, created)
                    if followed.get("hubspot_owner_id") != before[record_id].get("hubspot_owner_id") and "hubspot_owner_id" in followed:
                        followed["hubspot_owner_assigneddate"] = iso(now) if followed["hubspot_owner_id"] else None
                if source.user_id:
                    followed["hs_updated_by_user_id"] = str(source.user_id)
                complete.append((record_id, followed))
            more = sorted({name for _, values in complete for name in values} - set(names) - set(state))
            if more:
                for record_id, values in self._values(object_type, ids, more).items():
                    before[record_id] |= values
            self._set(object_type, complete, now)
            self._note(object_type, complete, before, source, now, late)
            return now

    def _unique(self, object_type: ObjectType, changes: Sequence[tuple[int, Values]]) -> None:
        for name, prop in object_type.properties.items():
            if not prop.unique or prop.system:
                continue
            wanted = {str(values[name]): record_id for record_id, values in changes if values.get(name)}
            taken = self.find(object_type, prop, list(wanted)) if wanted else {}
            for value, owner in taken.items():
                if owner == wanted[value]:
                    continue
                if name == "email":
                    raise ApiError(409, f"Contact already exists. Existing ID: {owner}", "CONFLICT")
                message = f"Cannot set {name} to {value}: the value is unique and belongs to {owner} already."
                raise invalid_values([(name, InvalidValue("CONFLICTING_UNIQUE_VALUE", message))], self.catalogue.portal_id)

    def _values(self, object_type: ObjectType, ids: Sequence[int], names: Sequence[str]) -> dict[int, Values]:
        columns = "".join(f", {quote(name)}" for name in names)
        rows = self.store.rows(f"select _id{columns} from {object_type.table} where _id in ({_listed(ids)})")
        return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}

    def _follow_stage(self, record_id: int, before: Values, values: Values, now: datetime, created: bool) -> None:
        """What a stage brings with it: probability, closed flags, the times in stages, the close date of a closed deal."""
        if "dealstage" not in values and "pipeline" not in values:
            return
        pipeline = values.get("pipeline", before["pipeline"])
        stage_id = values.get("dealstage", before["dealstage"])
        stage = self.pipelines.stage(pipeline, stage_id)
        if stage is None:
            allowed = ", ".join(known.id for known in self.pipelines.stages(pipeline) if not known.archived)
            message = f"{stage_id} was not one of the allowed options: [{allowed}]"
            raise invalid_values([("dealstage", InvalidValue("INVALID_OPTION", message))], self.catalogue.portal_id)
        old = None if created else self.pipelines.stage(before["pipeline"], before["dealstage"])
        if not created and (before["pipeline"], before["dealstage"]) == (pipeline, stage_id):
            return
        values |= stage_values(stage)
        values["hs_v2_date_entered_current_stage"] = values[f"hs_v2_date_entered_{stage.id}"] = iso(now)
        values[f"hs_v2_date_exited_{stage.id}"] = values[f"hs_v2_latest_time_in_{stage.id}"] = None
        if before["dealstage"] and not created:
            entered = before["hs_v2_date_entered_current_stage"]
            spent = int((now - datetime.fromisoformat(entered)).total_seconds() * 1000) if entered else 0
            total = f"hs_v2_cumulative_time_in_{before['dealstage']}"
            if total in self.catalogue.types["deals"].properties:
                past = self._values(self.catalogue.types["deals"], [record_id], [total])[record_id][total]
                values[total] = str(int(past or 0) + spent)
                values[f"hs_v2_latest_time_in_{before['dealstage']}"] = str(spent)
                values[f"hs_v2_date_exited_{before['dealstage']}"] = iso(now)
        if stage.is_closed and not (old and old.is_closed) and "closedate" not in values:
            values["closedate"] = iso(now)

    def _set(self, object_type: ObjectType, changes: Sequence[tuple[int, Values]], now: datetime) -> None:
        names = sorted({name for _, values in changes for name in values})
        sets = "".join(
            f""", {quote(name)} = case when json_exists(c.v, '$."{name}"') then c.v ->> '$."{name}"' else o.{quote(name)} end"""
            for name in names
        )
        given = orjson.dumps([{"id": record_id, "v": values} for record_id, values in changes]).decode()
        self.store.run(
            f"""update {object_type.table} as o set _updated_at = $1{sets}
                from (select unnest(from_json($2, '[{{"id":"BIGINT","v":"JSON"}}]'), recursive := true)) c where o._id = c.id""",
            [now, given],
        )

    def _note(
        self,
        object_type: ObjectType,
        changes: Sequence[tuple[int, Values]],
        before: dict[int, Values],
        source: Source,
        now: datetime,
        late: float | None,
    ) -> None:
        """Property history. A value that was never written since it was made gets its first entry now, dated to creation."""
        changed = [
            (record_id, name, value)
            for record_id, values in changes
            for name, value in values.items()
            if before[record_id].get(name) != value and not object_type.properties[name].calculated
        ]
        if not changed:
            return
        unpacked = """(select unnest(from_json(?, '[{"id":"BIGINT","p":"VARCHAR","v":"VARCHAR"}]'), recursive := true))"""
        first = [(record_id, name, before[record_id].get(name)) for record_id, name, _ in changed]
        first = [entry for entry in first if entry[2] is not None]
        if first:
            self.store.run(
                f"""insert into {object_type.history}
                    select c.id, c.p, c.v, o._created_at, 0, 'CRM_UI', null, null, null
                    from {unpacked} c join {object_type.table} o on o._id = c.id
                    where not exists (from {object_type.history} h where h.object_id = c.id and h.property = c.p)""",
                [_entries(first)],
            )
        source_id = source.id or (f"userId:{source.user_id}" if source.user_id else None)
        visible_at = now + timedelta(seconds=late) if late else None
        self.store.run(
            f"insert into {object_type.history} select c.id, c.p, c.v, ?, ?, ?, ?, ?, ? from {unpacked} c",
            [now, seq := self._next(), source.type, source_id, source.user_id, visible_at, _entries(changed)],
        )
        if object_type.name in self._pending:  # nobody reads of a record's past what the record itself does not show yet
            self.store.run(
                f"""update {object_type.history} as h set visible_at = greatest(h.visible_at, p.visible_at)
                    from (select _id, max(_visible_at) as visible_at from {object_type.unseen} where _for = 'all' and _visible_at > ? group by _id) p
                    where p._id = h.object_id and h.seq = ?""",
                [now, seq],
            )

    def touch_stage(self, stage: Stage) -> None:
        """Bring an edited stage's probability and flags to its deals; that moves their stamps, as HubSpot does."""
        values = stage_values(stage)
        sets = ", ".join(f"{name} = {literal(value or '')}" for name, value in values.items())
        self.store.run(
            f"update object_deals set {sets}, _updated_at = ? where pipeline = ? and dealstage = ?",
            [self.clock.now(), stage.pipeline, stage.id],
        )

    # Out of sight and back

    def archive(self, object_type: ObjectType, ids: Sequence[int], *, late: float | None = None) -> None:
        with self.store.transaction():
            if late or self.index_lag:
                self._remember(object_type, ids, late)
            self.store.run(
                f"update {object_type.table} set _archived_at = ? where _id in ({_listed(ids)}) and _archived_at is null",
                [self.clock.now()],
            )
            self.links.hide(object_type, ids, hidden=True)

    def restore(self, object_type: ObjectType, ids: Sequence[int]) -> None:
        with self.store.transaction():
            if self.index_lag:
                self._remember(object_type, ids, None)
            self.store.run(f"update {object_type.table} set _archived_at = null where _id in ({_listed(ids)})")
            self.links.hide(object_type, ids, hidden=False)
            self.links.recount(object_type, ids)

    def purge(self, object_type: ObjectType, record_id: int) -> None:
        """Deletion for privacy: the record, its history and associations are gone at once and for good."""
        with self.store.transaction():
            for table, key in ((object_type.table, "_id"), (object_type.unseen, "_id"), (object_type.history, "object_id")):
                self.store.run(f"delete from {table} where {key} = ?", [record_id])
            if object_type.name == "deals":
                self.store.run("delete from engagement where deal_id = ?", [record_id])
            self.links.forget(object_type, record_id)

    def merge(self, object_type: ObjectType, primary: int, other: int, source: Source, *, late: float | None = None) -> int:
        """Merge `other` into `primary`; gives the id of the survivor.

        The survivor keeps the primary's values and takes the other's where it has none. It keeps the primary's id too, or
        is a new record when `merge_makes_new_record` is set: then both old ids are listed in hs_merged_object_ids.
        """
        if primary == other:
            raise validation("Cannot merge an object with itself", context={"id": [str(primary)]})
        with self.store.transaction():
            live = self.live(object_type, [primary, other])
            for wanted in (primary, other):
                if live.get(wanted) != wanted:
                    raise no_such_object(wanted)
            stored = [prop.name for prop in object_type.properties.values() if prop.stored]
            values = self._values(object_type, [primary, other], stored)
            if late or self.index_lag:
                self._remember(object_type, [primary, other], late)
            now = self.clock.now()
            adopted: Values = {
                name: values[other][name]
                for name in stored
                if values[primary][name] is None and values[other][name] is not None and not name.startswith("hs_v2_")
            }
            losers = [other]
            survivor = primary
            if self.merge_makes_new_record:
                survivor = self._copy(object_type, primary, now)
                losers = [primary, other]
            merged = [known for r in (primary, other) for known in (values[r]["hs_merged_object_ids"] or "").split(";") if known]
            adopted["hs_merged_object_ids"] = ";".join(dict.fromkeys([*merged, *map(str, losers)]))
            for loser in losers:
                self.links.move(object_type, loser, survivor)
                self.store.run(f"update {object_type.table} set _merged_into = ? where _id = ?", [survivor, loser])
                if object_type.name == "deals":
                    self.store.run("update engagement set deal_id = ? where deal_id = ?", [survivor, loser])
            self.write(object_type, [(survivor, adopted)], Source("MERGE_OBJECTS", source.id, source.user_id))
            return survivor

    def _copy(self, object_type: ObjectType, original: int, now: datetime) -> int:
        """A new record with the values and the history of an old one."""
        new = self._new_id(object_type, now)
        self.store.run(f"delete from {object_type.table} where _id = ?", [new])
        self.store.run(
            f"""insert into {object_type.table} by name
                select * replace (? as _id, ? as _updated_at) from {object_type.table} where _id = ?""",
            [new, now, original],
        )
        self.store.run(
            f"insert into {object_type.history} select * replace (? as object_id) from {object_type.history} where object_id = ?",
            [new, original],
        )
        return new

    def _next(self) -> int:
        """Rising numbers that put writes of one millisecond in order, over restarts too."""
        self._sequence = max(self._sequence + 1, time.time_ns())
        return self._sequence


def stage_values(stage: Stage) -> Values:
    return {
        "hs_deal_stage_probability": probability_text(stage.probability),
        "hs_is_closed": str(stage.is_closed).lower(),
        "hs_is_closed_won": str(stage.is_won).lower(),
        "hs_is_closed_lost": str(stage.is_lost).lower(),
    }


def _entries(entries: Sequence[tuple[int, str, str | None]]) -> str:
    return orjson.dumps([{"id": record_id, "p": name, "v": value} for record_id, name, value in entries]).decode()


def _listed(ids: Iterable[int]) -> str:
    return ", ".join(str(int(i)) for i in ids) or "null"
