"""What the portal knows of its objects: types, properties, groups, and how each property is read in SQL.

Every object type has a wide table `object_<name>` with a text column per stored property and the record's own columns
`_id`, `_created_at`, `_updated_at`, `_archived_at`, `_merged_into`. Calculated properties with a formula are not stored:
they are read through their formula, so they change without a write, a stamp or a history.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import Any

import orjson

from connectors.simulator.hubspot.errors import ApiError, validation
from connectors.simulator.hubspot.store import Store, literal, quote

RECORD_COLUMNS = (
    "_id bigint, _created_at timestamptz, _updated_at timestamptz, _archived_at timestamptz, _merged_into bigint"
)
# A row as it was before a write that some readers are not to see yet; `_for`: all of them, or the search index alone.
UNSEEN_COLUMNS = "_visible_at timestamptz, _for varchar, _existed boolean, _seq bigint"
STANDARD = (("contacts", "contact", "0-1"), ("companies", "company", "0-2"), ("deals", "deal", "0-3"))
FIRST_ID = {"contacts": 21_400_000_000, "companies": 15_200_000_000, "deals": 9_800_000_000}
PROPERTY_TYPES = {
    "string": {"text", "textarea", "file", "html", "phonenumber"},
    "number": {"number", "calculation_equation", "calculation_rollup"},
    "bool": {"booleancheckbox", "calculation_equation"},
    "enumeration": {"select", "radio", "checkbox", "booleancheckbox", "calculation_equation"},
    "date": {"date", "calculation_equation"},
    "datetime": {"date", "calculation_equation"},
}
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
_WORD = re.compile(r"'[^']*'|[a-z_][a-z0-9_]*", re.IGNORECASE)


@dataclass
class Property:
    """One property. `formula`: SQL over other properties' names, `exchange_rate` and `now`, which makes it calculated.

    `system`/`typed`: SQL over the record's own columns. `listed`: False where the properties API keeps silent about it
    though it can be asked for by name. `default`: value of records that were never given one.
    """

    name: str
    label: str
    type: str
    fieldType: str
    groupName: str
    description: str = ""
    options: list[Any] = field(default_factory=list)
    displayOrder: int = -1
    hidden: bool = False
    unique: bool = False
    readOnly: bool = False
    calculated: bool = False
    listed: bool = True
    custom: bool = False
    externalOptions: bool = False
    showCurrencySymbol: bool = False
    formula: str | None = None
    system: str | None = None
    typed: str | None = None
    default: str | None = None
    createdAt: str | None = None
    updatedAt: str | None = None
    createdUserId: str | None = None

    @property
    def stored(self) -> bool:
        return self.formula is None and self.system is None

    @property
    def read_only(self) -> bool:
        return self.readOnly or self.calculated or not self.stored

    @property
    def option_values(self) -> list[str]:
        return [option["value"] for option in self.options]

    def definition(self) -> dict[str, Any]:
        """As the properties API gives it."""
        computed = self.calculated or self.formula is not None
        return {
            **({"createdAt": self.createdAt, "updatedAt": self.updatedAt} if self.createdAt else {}),
            "name": self.name,
            "label": self.label,
            "type": self.type,
            "fieldType": self.fieldType,
            "description": self.description,
            "groupName": self.groupName,
            "options": self.options,
            **({"createdUserId": self.createdUserId} if self.createdUserId else {}),
            "displayOrder": self.displayOrder,
            "calculated": computed,
            "externalOptions": self.externalOptions,
            "archived": False,
            "hasUniqueValue": self.unique,
            "hidden": self.hidden,
            **({"hubspotDefined": True} if not self.custom else {}),
            **({"showCurrencySymbol": True} if self.showCurrencySymbol else {}),
            **({"calculationFormula": self.formula} if self.custom and self.formula else {}),
            "modificationMetadata": {
                "archivable": self.custom,
                "readOnlyDefinition": not self.custom,
                **({"readOnlyOptions": not self.custom} if self.type == "enumeration" else {}),
                "readOnlyValue": self.read_only,
            },
            "formField": not self.read_only,
            "dataSensitivity": "non_sensitive",
        }


@dataclass
class ObjectType:
    """One object type: `name` as in paths (`deals`), `type_id` as `0-3` or `2-…` for custom ones."""

    name: str
    singular: str
    type_id: str
    custom: bool = False
    label: str = ""
    plural_label: str = ""
    description: str | None = None
    primary_display: str | None = None
    secondary_display: list[str] = field(default_factory=list)
    required: list[str] = field(default_factory=list)
    searchable: list[str] = field(default_factory=list)
    default: list[str] = field(default_factory=list)
    always: list[str] = field(default_factory=list)
    createdAt: str | None = None
    properties: dict[str, Property] = field(default_factory=dict)

    @property
    def table(self) -> str:
        return f"object_{self.name}"

    @property
    def history(self) -> str:
        return f"history_{self.name}"

    @property
    def unseen(self) -> str:
        return f"unseen_{self.name}"

    @property
    def scope(self) -> str:
        """The word for it in scopes: crm.objects.<scope>.read."""
        return "custom" if self.custom else self.name


@lru_cache(maxsize=1)
def standard() -> dict[str, Any]:
    return orjson.loads(resources.files(__package__).joinpath("properties.json").read_bytes())


def options_of(options: Any) -> list[dict[str, Any]]:
    """Options as the API gives them, from [value, label] pairs, bare values or the API's own objects."""
    out: list[dict[str, Any]] = []
    for position, given in enumerate(options or ()):
        if isinstance(given, dict):
            option = given
        else:
            value, label = (given, given) if isinstance(given, str) else given
            option = {"value": value, "label": label}
        out.append(
            {
                "label": option["label"],
                "value": option["value"],
                "displayOrder": option.get("displayOrder", position),
                "hidden": option.get("hidden", False),
            }
        )
    return out


class Catalogue:
    """All object types with their properties, kept in memory and in the store."""

    def __init__(self, store: Store, portal_id: int) -> None:
        self.store, self.portal_id = store, portal_id
        self.types: dict[str, ObjectType] = {}
        for _, definition in store.rows("select position, definition from object_type order by position"):
            object_type = ObjectType(**orjson.loads(definition))
            for (prop,) in store.rows(
                "select definition from property where object_type = ? order by position", [object_type.name]
            ):
                known = Property(**orjson.loads(prop))
                object_type.properties[known.name] = known
            self.types[object_type.name] = object_type
        if not self.types:
            for name, singular, type_id in STANDARD:
                self.add_type(ObjectType(name, singular, type_id, label=singular.title(), plural_label=name.title()))

    def add_type(self, object_type: ObjectType) -> None:
        """Make an object type with the properties that HubSpot gives it."""
        given = standard()["custom" if object_type.custom else object_type.name]
        object_type.default, object_type.always = given["default"], given["always"]
        object_type.searchable = object_type.searchable or given["searchable"]
        with self.store.transaction():
            definition = {name: value for name, value in asdict(object_type).items() if name != "properties"}
            first = FIRST_ID.get(object_type.name, 33_000_000_000 + len(self.types) * 1_000_000)
            self.store.run(
                "insert into object_type values (?, ?, ?, ?)",
                [len(self.types), object_type.name, orjson.dumps(definition).decode(), first],
            )
            first_group = (given["groups"] or [[f"{object_type.name}_information"]])[0][0]
            made = [
                Property(
                    **prop
                    | {
                        "groupName": first_group if object_type.custom else prop["groupName"],
                        "options": options_of(prop.get("options")),
                    }
                )
                for prop in given["properties"]
            ]
            columns = RECORD_COLUMNS + "".join(f", {_column(prop)}" for prop in made if prop.stored)
            self.store.run(f"create table {quote(object_type.table)} ({columns})")
            self.store.run(f"create table {quote(object_type.unseen)} ({UNSEEN_COLUMNS}, {columns})")
            self.store.run(
                f"""create table {quote(object_type.history)} (
                    object_id bigint, property varchar, value varchar, written_at timestamptz, seq bigint,
                    source_type varchar, source_id varchar, user_id bigint, visible_at timestamptz)"""
            )
            self.types[object_type.name] = object_type
            groups = given["groups"] or [[f"{object_type.name}_information", f"{object_type.label} information"]]
            for name, label in groups:
                self.add_group(object_type, name, label)
            for prop in made:
                self._enter(object_type, prop)

    def add(self, object_type: ObjectType, prop: Property) -> None:
        """Put a property into the catalogue, and its column into the tables."""
        with self.store.transaction():
            if prop.stored:
                for table in (object_type.table, object_type.unseen):
                    self.store.run(f"alter table {quote(table)} add column if not exists {_column(prop)}")
            self._enter(object_type, prop)

    def _enter(self, object_type: ObjectType, prop: Property) -> None:
        self.store.run(
            "insert into property values (?, ?, ?, ?)",
            [object_type.name, prop.name, len(object_type.properties), orjson.dumps(asdict(prop)).decode()],
        )
        object_type.properties[prop.name] = prop

    def change(self, object_type: ObjectType, prop: Property) -> None:
        self.store.run(
            "update property set definition = ? where object_type = ? and name = ?",
            [orjson.dumps(asdict(prop)).decode(), object_type.name, prop.name],
        )

    def remove(self, object_type: ObjectType, prop: Property) -> None:
        """Take a property out of the catalogue. Its column stays, empty: another property of this name finds it so."""
        with self.store.transaction():
            if prop.stored:
                for table in (object_type.table, object_type.unseen):
                    self.store.run(f"update {quote(table)} set {quote(prop.name)} = null")
            self.store.run("delete from property where object_type = ? and name = ?", [object_type.name, prop.name])
            del object_type.properties[prop.name]

    def groups(self, object_type: ObjectType) -> list[dict[str, Any]]:
        rows = self.store.rows(
            "select name, label, display_order from property_group where object_type = ? order by display_order",
            [object_type.name],
        )
        return [{"name": n, "label": label, "displayOrder": o, "archived": False} for n, label, o in rows]

    def add_group(self, object_type: ObjectType, name: str, label: str) -> dict[str, Any]:
        known = self.groups(object_type)
        if any(group["name"] == name for group in known):
            raise ApiError(409, f"A property group named '{name}' already exists.", "OBJECT_ALREADY_EXISTS")
        self.store.run("insert into property_group values (?, ?, ?, ?)", [object_type.name, name, label, len(known)])
        return {"name": name, "label": label, "displayOrder": len(known), "archived": False}

    def create(self, object_type: ObjectType, given: dict[str, Any], now: datetime, user_id: int | None) -> Property:
        """Make a custom property of what the API or a person gave; raises HubSpot's 400 or 409."""
        name = str(given.get("name") or "")
        missing = [key for key in ("name", "label", "type", "fieldType", "groupName") if not given.get(key)]
        if missing:
            raise validation(f"Some required fields were not set: [{', '.join(missing)}]")
        if not _NAME.match(name) or name.startswith("hs_"):
            raise validation(f'Property name "{name}" is invalid: it must be lower case, start with a letter and not with hs_')
        if name in object_type.properties:
            raise ApiError(409, f"A property named '{name}' already exists.", "OBJECT_ALREADY_EXISTS")
        if given["fieldType"] not in PROPERTY_TYPES.get(given["type"], set()):
            raise validation(f"Invalid combination of type '{given['type']}' and fieldType '{given['fieldType']}'")
        if given["groupName"] not in {group["name"] for group in self.groups(object_type)}:
            raise validation(f"Property group '{given['groupName']}' does not exist")
        stamp = _iso(now)
        prop = Property(
            name=name,
            label=given["label"],
            type=given["type"],
            fieldType=given["fieldType"],
            groupName=given["groupName"],
            description=given.get("description") or "",
            options=options_of(given.get("options")),
            displayOrder=given.get("displayOrder", -1),
            hidden=bool(given.get("hidden")),
            unique=bool(given.get("hasUniqueValue")),
            custom=True,
            formula=given.get("calculationFormula"),
            createdAt=stamp,
            updatedAt=stamp,
            createdUserId=str(user_id) if user_id else None,
        )
        if prop.type == "bool" and not prop.options:
            prop.options = options_of([["true", "Yes"], ["false", "No"]])
        self.add(object_type, prop)
        return prop

    def find(self, name: str) -> ObjectType:
        """An object type by any name that paths may hold: deals, deal, 0-3, 2-…, p<portal>_<name>, p_<name>."""
        wanted = name.lower()
        for object_type in self.types.values():
            names = {object_type.name, object_type.singular, object_type.type_id}
            if object_type.custom:
                names |= {f"p{self.portal_id}_{object_type.name}", f"p_{object_type.name}"}
            if wanted in names:
                return object_type
        raise validation(f"Unable to infer object type from: {name}")

    def api_name(self, object_type: ObjectType) -> str:
        """The fully qualified name of a custom object, the plain one of a standard object."""
        return f"p{self.portal_id}_{object_type.name}" if object_type.custom else object_type.name

    # Reading a property in SQL

    def text(self, object_type: ObjectType, prop: Property, now: datetime, rates: str | None = None) -> str:
        """SQL for the property's value as HubSpot delivers it: text or null. rates: `exchange_rate()`, where many are asked for."""
        if prop.system:
            return prop.system
        if prop.formula is None:
            return quote(prop.name)
        value = self.typed(object_type, prop, now, rates)
        if prop.type == "number":
            return f"plain({value})"
        if prop.type == "datetime":
            return f"iso({value})"
        return f"({value})::varchar"

    def typed(self, object_type: ObjectType, prop: Property, now: datetime, rates: str | None = None) -> str:
        """SQL for the property's value to compare and calculate with: number, instant, date, boolean or text."""
        if prop.typed:
            return prop.typed
        if prop.formula is not None:
            return f"({self._formula(object_type, prop.formula, now, rates)})"
        column = quote(prop.name)
        cast = {"number": "double", "datetime": "timestamptz", "date": "date", "bool": "boolean"}.get(prop.type)
        return f"try_cast({column} as {cast})" if cast else column

    def _formula(self, object_type: ObjectType, formula: str, now: datetime, rates: str | None) -> str:
        def word(match: re.Match[str]) -> str:
            text = match.group()
            if text == "now":
                return f"timestamptz {literal(now.isoformat())}"
            if text == "exchange_rate":
                return rates or self.exchange_rate()
            known = object_type.properties.get(text)
            return self.typed(object_type, known, now, rates) if known else text

        return _WORD.sub(word, formula)

    def exchange_rate(self) -> str:
        """SQL for what a unit of the deal's currency is worth in the company's: by the latest rate for an open deal, which so follows
        every new one, and by that of the time of closing for a closed one. Before the first rate, that one."""
        rates: dict[str, list[tuple[str, float]]] = {}
        for code, since, rate in self.store.rows("select code, iso(effective_at), rate from currency order by code, effective_at desc, id desc"):
            rates.setdefault(code, []).append((since, rate))
        closed_at = "if(coalesce(hs_is_closed, '') = 'true', hs_v2_date_entered_current_stage, null)::timestamptz"
        cases = ""
        for code, told in rates.items():
            before = "".join(f" when {closed_at} >= timestamptz {literal(since)} then {rate!r}" for since, rate in told[:-1])
            latest = f"case when {closed_at} is null then {told[0][1]!r}{before} else {told[-1][1]!r} end" if before else repr(told[0][1])
            cases += f" when {literal(code)} then {latest}"
        return f"(case deal_currency_code{cases} else 1.0 end)" if cases else "1.0"


def _column(prop: Property) -> str:
    default = f" default {literal(prop.default)}" if prop.default is not None else ""
    return f"{quote(prop.name)} varchar{default}"


def _iso(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"
