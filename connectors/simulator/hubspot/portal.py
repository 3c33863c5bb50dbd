"""A simulated HubSpot portal: its state, what its people do by hand, and the app that serves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from starlette.applications import Starlette

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.hubspot.access import Access
from connectors.simulator.hubspot.catalogue import Catalogue, ObjectType, Property
from connectors.simulator.hubspot.errors import ApiError, invalid_values, no_such_object
from connectors.simulator.hubspot.limits import RateLimits
from connectors.simulator.hubspot.links import HUBSPOT, PRIMARY, Links
from connectors.simulator.hubspot.pages import Pages
from connectors.simulator.hubspot.pipelines import Pipelines
from connectors.simulator.hubspot.records import Records, Source
from connectors.simulator.hubspot.search import Search
from connectors.simulator.hubspot.store import Store, literal
from connectors.simulator.hubspot.values import iso

ACTIVITY_KINDS = ("call", "email", "meeting", "task", "note")
CONTACTING = ("call", "email", "meeting")
REFRESH = timedelta(minutes=15)
PLUMBLINE_GROUP = ("plumbline", "Plumbline")
PLUMBLINE_PROPERTIES: tuple[dict[str, Any], ...] = (
    {
        "name": "plumbline_status",
        "label": "Plumbline status",
        "type": "enumeration",
        "fieldType": "select",
        "options": [["clean", "Clean"], ["needs_attention", "Needs attention"], ["at_risk", "At risk"]],
    },
    {"name": "plumbline_score", "label": "Plumbline score", "type": "number", "fieldType": "number"},
    {"name": "plumbline_top_issue", "label": "Plumbline top issue", "type": "string", "fieldType": "text"},
    {"name": "plumbline_issues", "label": "Plumbline issues", "type": "string", "fieldType": "textarea"},
    {"name": "plumbline_flagged_since", "label": "Plumbline flagged since", "type": "date", "fieldType": "date"},
    {"name": "plumbline_snooze_until", "label": "Plumbline snooze until", "type": "date", "fieldType": "date"},
)
SNAPSHOT_SCHEMA: dict[str, Any] = {
    "name": "plumbline_snapshot",
    "labels": {"singular": "Pipeline snapshot", "plural": "Pipeline snapshots"},
    "primaryDisplayProperty": "snapshot_key",
    "requiredProperties": ["snapshot_key"],
    "searchableProperties": ["snapshot_key"],
    "associatedObjects": ["DEAL"],
    "properties": [
        {"name": "snapshot_key", "label": "Key", "type": "string", "fieldType": "text", "hasUniqueValue": True},
        {"name": "snapshot_date", "label": "Date", "type": "date", "fieldType": "date"},
        {"name": "pipeline", "label": "Pipeline", "type": "string", "fieldType": "text"},
        {"name": "stage", "label": "Stage", "type": "string", "fieldType": "text"},
        {"name": "owner_name", "label": "Owner", "type": "string", "fieldType": "text"},
        {"name": "deals", "label": "Deals", "type": "number", "fieldType": "number"},
        {"name": "amount", "label": "Amount", "type": "number", "fieldType": "number"},
        {"name": "weighted_amount", "label": "Weighted amount", "type": "number", "fieldType": "number"},
        {"name": "flagged_deals", "label": "Flagged deals", "type": "number", "fieldType": "number"},
        {"name": "flagged_amount", "label": "Flagged amount", "type": "number", "fieldType": "number"},
    ],
}


class HubSpotPortal:
    """One portal. Ids go in and out as text of 10 to 11 digits; values as text or Python's own (dates, numbers, None).

    Its people work through the methods (`create`, `update`, `archive`, …), each with the side effects of the real ones;
    programs work through `app()`. Attributes for tests and demos: `limits` (RateLimits), `access` (tokens and scopes),
    `index_lag` (seconds by which search trails), `merge_makes_new_record`, `refused_types` (object types that the account's
    edition lacks). Methods raise ApiError with HubSpot's own words.
    """

    def __init__(
        self,
        path: Path | None = None,
        clock: SimClock | None = None,
        faults: Faults | None = None,
        *,
        access_token: str | None = "demo-token",  # noqa: S107
        portal_id: int = 146_210_337,
        timezone: str = "Europe/Berlin",
        currency: str = "EUR",
        name: str = "Demo portal",
    ) -> None:
        self.clock, self.faults = clock or SimClock(), faults or Faults()
        self.store = Store(path)
        settings = dict(self.store.rows("select name, value from setting"))
        if not settings:
            settings = {"portal_id": str(portal_id), "timezone": timezone, "currency": currency, "name": name}
            settings["app_id"] = "19460027"
            for key, value in settings.items():
                self.store.run("insert into setting values (?, ?)", [key, value])
            self.store.run("insert into currency values (0, ?, 1.0, ?, ?)", [settings["currency"], self.clock.now(), self.clock.now()])
        self.settings = settings
        self.portal_id = int(settings["portal_id"])
        fresh = not self.store.value("select count(*) from object_type")
        self.catalogue = Catalogue(self.store, self.portal_id)
        self.pipelines = Pipelines(self.store, self.catalogue, self.clock)
        self.links = Links(self.store, self.catalogue)
        self.records = Records(self.store, self.catalogue, self.pipelines, self.links, self.clock, self.faults)
        self.pages = Pages(self.store, self.catalogue, self.records, self.links, self.clock)
        self.searching = Search(self.store, self.catalogue, self.records, self.pages, self.clock)
        self.limits = RateLimits()
        self.access = Access(self.clock, self.faults, access_token)
        self.refused_types: set[str] = set()
        self._refreshed: datetime | None = None
        if fresh:
            self._furnish()

    def _furnish(self) -> None:
        """What Plumbline's set-up made here: its deal properties, the snapshot object; and an admin's calculated property."""
        deals = self.catalogue.types["deals"]
        now = self.clock.now()
        self.catalogue.add_group(deals, *PLUMBLINE_GROUP)
        for given in PLUMBLINE_PROPERTIES:
            self.catalogue.create(deals, given | {"groupName": PLUMBLINE_GROUP[0]}, now, None)
        self.add_schema(SNAPSHOT_SCHEMA)
        self.add_property(
            "deals",
            "weighted_amount",
            "number",
            "calculation_equation",
            "Weighted amount (home)",
            calculated="amount_in_home_currency * hs_deal_stage_probability",
        )

    # Records

    def create(
        self,
        object_type: str,
        properties: Mapping[str, Any],
        associations: Iterable[Sequence[Any]] = (),
        *,
        source_type: str = "CRM_UI",
        user_id: int | None = None,
    ) -> str:
        """A new record, by a person. `associations`: (object type, id) or (object type, id, label) each. Returns its id."""
        kind = self.catalogue.find(object_type)
        with self.store.transaction():
            values = self._checked(kind, properties)
            new = self.records.create(kind, [values], Source(source_type, None, user_id), late=self.faults.late_commit())[0]
            for other in associations:
                self.associate(object_type, str(new), *other)
        return str(new)

    def update(
        self,
        object_type: str,
        record_id: str | int,
        properties: Mapping[str, Any],
        *,
        source_type: str = "CRM_UI",
        user_id: int | None = None,
    ) -> None:
        """Set properties of a live record; None clears one."""
        kind = self.catalogue.find(object_type)
        with self.store.transaction():
            current = self._live(kind, record_id)
            values = self._checked(kind, properties)
            self.records.write(
                kind, [(current, values)], Source(source_type, None, user_id), late=self.faults.late_commit()
            )

    def archive(self, object_type: str, record_id: str | int) -> None:
        """Into the recycling bin: out of lists and search, stamp unmoved, until restored (or for good after 90 days)."""
        kind = self.catalogue.find(object_type)
        with self.store.transaction():
            self.records.archive(kind, [self._live(kind, record_id)], late=self.faults.late_commit())

    def restore(self, object_type: str, record_id: str | int) -> None:
        """Back from the recycling bin, with its associations; the stamp does not move."""
        kind = self.catalogue.find(object_type)
        with self.store.transaction():
            known = self.store.value(f"select _archived_at is not null from {kind.table} where _id = ?", [int(record_id)])
            if not known:
                raise no_such_object(record_id)
            self.records.restore(kind, [int(record_id)])

    def empty_bin(self, days: int = 90) -> int:
        """Delete for good what was archived `days` ago or more, as HubSpot does. Returns how many records."""
        gone = 0
        for kind in self.catalogue.types.values():
            old = self.store.rows(
                f"select _id from {kind.table} where _archived_at <= ?", [self.clock.now() - timedelta(days=days)]
            )
            for (record_id,) in old:
                self.records.purge(kind, record_id)
            gone += len(old)
        return gone

    def purge(self, object_type: str, record_id: str | int) -> None:
        """Permanent deletion for privacy: nothing of the record is left, in no list."""
        kind = self.catalogue.find(object_type)
        if not self.store.value(f"select count(*) from {kind.table} where _id = ?", [int(record_id)]):
            raise no_such_object(record_id)
        self.records.purge(kind, int(record_id))

    def merge(self, object_type: str, primary: str | int, other: str | int, *, user_id: int | None = None) -> str:
        """Merge `other` into `primary`; returns the survivor's id (see `merge_makes_new_record`)."""
        kind = self.catalogue.find(object_type)
        source = Source("MERGE_OBJECTS", None, user_id)
        return str(self.records.merge(kind, int(primary), int(other), source, late=self.faults.late_commit()))

    def associate(self, from_type: str, from_id: str | int, to_type: str, to_id: str | int, label: str | None = None) -> None:
        """Associate two records; `label` "Primary" or any other word, made when it is new. No stamp moves."""
        a, b = self.catalogue.find(from_type), self.catalogue.find(to_type)
        specs = []
        if label == "Primary" and (a.name, b.name) in PRIMARY:
            specs = [(HUBSPOT, PRIMARY[(a.name, b.name)])]
        elif label:
            specs = [self.links.label_type(a, b, label)]
        self.links.link(a, self._live(a, from_id), b, self._live(b, to_id), specs)

    def dissociate(self, from_type: str, from_id: str | int, to_type: str, to_id: str | int) -> None:
        self.links.unlink(self.catalogue.find(from_type), int(from_id), self.catalogue.find(to_type), int(to_id))

    def log_activity(
        self,
        deal_id: str | int,
        kind: str,
        at: datetime | None = None,
        *,
        subject: str = "",
        owner_id: str | int | None = None,
        is_open: bool = False,
        user_id: int | None = None,
    ) -> str:
        """Log a call, email, meeting, task or note on a deal; moves its stamp. Returns the activity's id.

        at: when it happened or is to happen (a task: when it is due), now by default. is_open: a task not done yet.
        """
        if kind not in ACTIVITY_KINDS:
            raise ValueError(f"No kind of activity: {kind}. Known are {', '.join(ACTIVITY_KINDS)}")
        deals = self.catalogue.types["deals"]
        with self.store.transaction():
            now = self.clock.now()
            deal = self._live(deals, deal_id)
            new = 61_000_000_000 + 1 + int(self.store.value("select coalesce(max(id) - 61000000000, 0) from engagement"))
            owner = int(owner_id) if owner_id else None
            self.store.run(
                "insert into engagement values (?, ?, ?, ?, ?, ?, ?, ?)", [new, deal, kind, subject, owner, at or now, is_open, now]
            )
            self._apply_activities(deal, user_id)
        return str(new)

    def complete_activity(self, activity_id: str | int, *, user_id: int | None = None) -> None:
        """Finish an open task now."""
        with self.store.transaction():
            deal = self.store.value("select deal_id from engagement where id = ?", [int(activity_id)])
            if deal is None:
                raise no_such_object(activity_id)
            self.store.run(
                "update engagement set is_open = false, happens_at = ? where id = ?", [self.clock.now(), int(activity_id)]
            )
            self._apply_activities(deal, user_id)

    def _apply_activities(self, deal: int, user_id: int | None) -> None:
        now = self.clock.now()
        past = f"not is_open and happens_at <= timestamptz {literal(now.isoformat())}"
        ahead = f"happens_at > timestamptz {literal(now.isoformat())}"
        last, contacted, upcoming, notes, contacts, overdue = self.store.rows(
            f"""select max(happens_at) filter ({past}),
                       max(happens_at) filter ({past} and kind in {CONTACTING}),
                       min(happens_at) filter ({ahead}),
                       count(*) filter ({past}),
                       count(*) filter ({past} and kind in {CONTACTING}),
                       count(*) filter (is_open and kind = 'task' and not {ahead})
                from engagement where deal_id = ?""",
            [deal],
        )[0]
        values = {
            "notes_last_updated": iso(last) if last else None,
            "notes_last_contacted": iso(contacted) if contacted else None,
            "notes_next_activity_date": iso(upcoming) if upcoming else None,
            "num_notes": str(notes),
            "num_contacted_notes": str(contacts),
            "hs_number_of_overdue_tasks": str(overdue),
        }
        source = Source("ENGAGEMENTS", None, user_id)
        self.records.write(self.catalogue.types["deals"], [(deal, values)], source, late=self.faults.late_commit())

    def refresh(self) -> None:
        """Let time pass for what HubSpot recalculates by itself: the next activity of deals whose next one is past now.

        No stamp moves. The server calls this as the clock goes on.
        """
        now = self.clock.now()
        with self.store.transaction():
            if self._refreshed and timedelta(0) <= now - self._refreshed < REFRESH:
                return
            self._refreshed = now
            self.store.run(
                """with passed as (select _id from object_deals where notes_next_activity_date <= iso(?::timestamptz)),
                     ahead as (select deal_id, min(happens_at) filter (happens_at > ?) as upcoming,
                                      count(*) filter (is_open and kind = 'task' and happens_at < ?) as overdue
                               from engagement where deal_id in (select _id from passed) group by deal_id)
                   update object_deals as d
                   set notes_next_activity_date = iso(a.upcoming), hs_number_of_overdue_tasks = a.overdue::varchar
                   from ahead a where a.deal_id = d._id""",
                [now, now, now],
            )

    def _live(self, kind: ObjectType, record_id: str | int) -> int:
        current = self.records.live(kind, [int(record_id)])
        if not current:
            raise no_such_object(record_id)
        return current[int(record_id)]

    def _checked(self, kind: ObjectType, properties: Mapping[str, Any]) -> dict[str, str | None]:
        values, invalid = self.records.check(kind, properties, api=False)
        if invalid:
            raise invalid_values(invalid, self.portal_id)
        return values

    # What administrators do

    def add_property(
        self,
        object_type: str,
        name: str,
        type: str,
        field_type: str,
        label: str,
        options: Iterable[Any] | None = None,
        calculated: str | None = None,
        *,
        group: str | None = None,
        unique: bool = False,
    ) -> None:
        """A custom property. `options`: values or (value, label). `calculated`: SQL over other properties' names, with
        `exchange_rate` and `now`; its value then changes with them, without a stamp and without a history."""
        kind = self.catalogue.find(object_type)
        given: dict[str, Any] = {
            "name": name,
            "label": label,
            "type": type,
            "fieldType": field_type,
            "groupName": group or self.catalogue.groups(kind)[0]["name"],
            "options": list(options or ()),
            "hasUniqueValue": unique,
            "calculationFormula": calculated,
        }
        with self.store.lock:
            self.catalogue.create(kind, given, self.clock.now(), None)

    def remove_property(self, object_type: str, name: str) -> None:
        """Delete a custom property: neither its definition nor its values are told any more, and no record's stamp moves."""
        kind = self.catalogue.find(object_type)
        with self.store.lock:
            if not kind.properties[name].custom:
                raise ValueError(f"{name} is HubSpot's own")
            self.catalogue.remove(kind, kind.properties[name])

    def rename_property(self, object_type: str, name: str, label: str) -> None:
        kind = self.catalogue.find(object_type)
        with self.store.lock:
            prop = kind.properties[name]
            prop.label, prop.updatedAt = label, iso(self.clock.now())
            self.catalogue.change(kind, prop)

    def change_formula(self, object_type: str, name: str, calculated: str) -> None:
        """Edit a calculated property: all its values change at once and nothing says so."""
        kind = self.catalogue.find(object_type)
        with self.store.lock:
            prop = kind.properties[name]
            if prop.formula is None:
                raise ValueError(f"{name} is not calculated")
            prop.formula, prop.updatedAt = calculated, iso(self.clock.now())
            self.catalogue.change(kind, prop)

    def set_exchange_rate(self, code: str, rate: float) -> None:
        """Worth of one unit of a currency in the company currency from now on. The home amounts of open deals change at once, without
        a stamp; closed ones keep the rate at which they were closed."""
        now = self.clock.now()
        with self.store.transaction():
            self.store.run("insert into currency select coalesce(max(id), 0) + 1, ?, ?, ?, ? from currency", [code, rate, now, now])

    def exchange_rates(self) -> list[dict[str, Any]]:
        """Every rate that was ever set, as the currencies API gives it, the oldest first."""
        found = self.store.rows(
            "select id, code, rate, iso(effective_at), iso(created_at) from currency where code <> ? order by id", [self.settings["currency"]]
        )
        return [
            {
                "id": str(id_), "fromCurrencyCode": code, "toCurrencyCode": self.settings["currency"], "conversionRate": rate,
                "effectiveAt": effective, "createdAt": created, "updatedAt": created, "visibleInUI": True,
            }
            for id_, code, rate, effective, created in found
        ]  # fmt: skip

    def add_pipeline(self, pipeline: str, label: str, display_order: int | None = None) -> None:
        self.pipelines.add_pipeline(pipeline, label, display_order)

    def rename_pipeline(self, pipeline: str, label: str) -> None:
        self.pipelines.rename_pipeline(pipeline, label)

    def add_stage(
        self,
        pipeline: str,
        label: str,
        probability: float,
        is_closed: bool = False,
        display_order: int | None = None,
        *,
        stage_id: str | None = None,
    ) -> str:
        """A new stage, probability 0 to 1; returns its opaque id."""
        return self.pipelines.add_stage(pipeline, label, probability, is_closed, display_order, stage_id=stage_id)

    def rename_stage(self, pipeline: str, stage: str, label: str) -> None:
        """A new label; the id, and so every deal, stays as it is."""
        self.pipelines.change_stage(pipeline, stage, label=label)

    def change_stage(self, pipeline: str, stage: str, *, probability: float, is_closed: bool | None = None) -> None:
        """Another probability or closed flag: that is written to every deal in the stage, and moves their stamps."""
        changes: dict[str, Any] = {"probability": probability} | ({"is_closed": is_closed} if is_closed is not None else {})
        with self.store.transaction():
            self.pipelines.change_stage(pipeline, stage, **changes)
            known = self.pipelines.stage(pipeline, stage)
            if known:
                self.records.touch_stage(known)

    def archive_stage(self, pipeline: str, stage: str) -> None:
        """Take a stage out of use; deals in it keep it."""
        self.pipelines.change_stage(pipeline, stage, archived_at=self.clock.now())

    def add_owner(
        self,
        email: str,
        first_name: str,
        last_name: str,
        *,
        team: tuple[str, str] | None = None,
        type: str = "PERSON",
    ) -> str:
        """A user who may own records; `team`: (id, name). Returns the owner id (the user id is another number)."""
        with self.store.transaction():
            now = self.clock.now()
            owner_id, user_id = self.store.rows(
                "select coalesce(max(id), 79100000) + 17, coalesce(max(user_id), 9560000) + 13 from owner"
            )[0]
            team_id, team_name = team or (None, None)
            self.store.run(
                "insert into owner values (?, ?, ?, ?, ?, ?, ?, ?, null, ?, ?)",
                [owner_id, user_id, email, first_name, last_name, type, team_id, team_name, now, now],
            )
        return str(owner_id)

    def deactivate_owner(self, owner_id: str | int) -> None:
        """The user leaves. Their deals stay theirs."""
        now = self.clock.now()
        self.store.run("update owner set archived_at = ?, updated_at = ? where id = ?", [now, now, int(owner_id)])

    def reactivate_owner(self, owner_id: str | int) -> None:
        self.store.run("update owner set archived_at = null, updated_at = ? where id = ?", [self.clock.now(), int(owner_id)])

    def owners(self, *, archived: bool = False) -> list[dict[str, Any]]:
        """As the owners API gives them. A deactivated one has no userId any more, only userIdIncludingInactive."""
        rows = self.store.rows(
            """select id, user_id, email, first_name, last_name, type, team_id, team_name, created_at, updated_at
               from owner where (archived_at is not null) = ? order by id""",
            [archived],
        )
        return [
            {
                "id": str(owner_id),
                "email": email,
                "type": kind,
                "firstName": first,
                "lastName": last,
                **({} if archived else {"userId": user_id}),
                "userIdIncludingInactive": user_id,
                "createdAt": iso(created),
                "updatedAt": iso(updated),
                "archived": archived,
                **({"teams": [{"id": team_id, "name": team, "primary": True}]} if team_id else {}),
            }
            for owner_id, user_id, email, first, last, kind, team_id, team, created, updated in rows
        ]

    def add_schema(self, given: Mapping[str, Any]) -> ObjectType:
        """A custom object from a schema as the schemas API takes it; raises 400 or 409."""
        name = str(given.get("name") or "")
        labels = given.get("labels") or {}
        if not name.isidentifier() or name != name.lower() or not given.get("properties") or not labels.get("singular"):
            raise ApiError(400, "Some required fields were not set: [name, labels, properties]", "VALIDATION_ERROR")
        if name in self.catalogue.types:
            raise ApiError(409, f"An object type named {name} already exists", "CONFLICT")
        now = self.clock.now()
        with self.store.transaction():
            number = 48_210_000 + 1 + len(self.catalogue.types) * 367
            kind = ObjectType(
                name,
                name,
                f"2-{number}",
                custom=True,
                label=labels["singular"],
                plural_label=labels.get("plural") or labels["singular"],
                description=given.get("description"),
                primary_display=given.get("primaryDisplayProperty"),
                secondary_display=list(given.get("secondaryDisplayProperties") or ()),
                required=list(given.get("requiredProperties") or ()),
                searchable=list(given.get("searchableProperties") or ()),
                createdAt=iso(now),
            )
            self.catalogue.add_type(kind)
            for prop in given["properties"]:
                self.catalogue.create(kind, {"groupName": f"{name}_information", **prop}, now, None)
            for other in given.get("associatedObjects") or ():
                self.links.add_type(kind, self.catalogue.find(other), None)
        return kind

    # Looking in

    def get(self, object_type: str, record_id: str | int, properties: Sequence[str] = ()) -> dict[str, str | None] | None:
        """Property values of a record, archived or not; None when it is gone. All stored ones unless named."""
        kind = self.catalogue.find(object_type)
        known: list[Property] = [kind.properties[n] for n in properties] or [p for p in kind.properties.values() if p.stored]
        with self.store.lock:
            now = self.clock.now()
            columns = ", ".join(self.catalogue.text(kind, prop, now) for prop in known)
            current = self.records.resolve(kind, [int(record_id)]).get(int(record_id))
            rows = self.store.rows(f"select {columns} from {kind.table} where _id = ?", [current])
        return dict(zip((prop.name for prop in known), rows[0], strict=True)) if rows else None

    def rows(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Query the state itself: tables object_<type>, history_<type>, association, owner, stage, engagement, loaded."""
        return self.store.rows(sql, params)

    def object_id(self, kind: str, company_id: int) -> str | None:
        """The record that a row of the company tables became; kind account, contact, deal, person or activity."""
        found = self.store.value("select object_id from loaded where kind = ? and company_id = ?", [kind, company_id])
        return str(found) if found is not None else None

    def details(self) -> dict[str, Any]:
        """Account information."""
        offset = self.clock.now().astimezone(ZoneInfo(self.settings["timezone"])).utcoffset() or timedelta(0)
        minutes = int(offset.total_seconds() // 60)
        sign = "-" if minutes < 0 else "+"
        home = self.settings["currency"]
        others = [row[0] for row in self.store.rows("select distinct code from currency where code <> ? order by code", [home])]
        return {
            "portalId": self.portal_id,
            "accountType": "STANDARD",
            "timeZone": self.settings["timezone"],
            "companyCurrency": home,
            "additionalCurrencies": others,
            "utcOffset": f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}",
            "utcOffsetMilliseconds": int(offset.total_seconds() * 1000),
            "uiDomain": "app-eu1.hubspot.com",
            "dataHostingLocation": "eu1",
        }

    @property
    def index_lag(self) -> float:
        """Seconds of the simulator's clock by which the search index trails the records."""
        return self.records.index_lag

    @index_lag.setter
    def index_lag(self, seconds: float) -> None:
        self.records.index_lag = float(seconds)

    @property
    def merge_makes_new_record(self) -> bool:
        """Whether a merge makes a new record, both old ids retired, instead of keeping the primary's id."""
        return self.records.merge_makes_new_record

    @merge_makes_new_record.setter
    def merge_makes_new_record(self, value: bool) -> None:
        self.records.merge_makes_new_record = value

    def app(self) -> Starlette:
        """The portal as an HTTP app, faults and remote control included."""
        from connectors.simulator.hubspot.app import build

        return build(self)

    def close(self) -> None:
        self.store.close()
