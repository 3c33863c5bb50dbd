"""The org's schema: objects and fields with everything that a describe says of them, and how each is kept in DuckDB.

Definitions of recorded objects come from `recorded/`, the others from `objects.py`; both give full describes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

RECORDED = Path(__file__).parent / "recorded"

# Salesforce type -> soapType of the describe; strings of every kind are xsd:string.
_SOAP = {
    "id": "tns:ID",
    "reference": "tns:ID",
    "boolean": "xsd:boolean",
    "int": "xsd:int",
    "double": "xsd:double",
    "currency": "xsd:double",
    "percent": "xsd:double",
    "date": "xsd:date",
    "datetime": "xsd:dateTime",
    "address": "urn:address",
    "anyType": "xsd:anyType",
}
TEXT_TYPES = {
    "string", "textarea", "picklist", "multipicklist", "combobox", "email", "phone", "url", "encryptedstring", "anyType",
}  # fmt: skip
NUMBER_TYPES = {"int", "double", "currency", "percent"}
COMPOUND_TYPES = {"address", "location"}


@cache
def _defaults() -> dict[str, Any]:
    return orjson.loads((RECORDED / "defaults.json").read_bytes())


def _fresh() -> dict[str, Any]:
    """The usual value of every key of a field's describe, lists of its own."""
    return {key: list(value) if isinstance(value, list) else value for key, value in _defaults().items()}


def picklist(values: Iterable[Any], default: str | None = None) -> list[dict[str, Any]]:
    """Entries of `picklistValues`, of values, [value, label] pairs or whole entries."""
    entries = []
    for value in values:
        if isinstance(value, Mapping):
            entries.append(dict(value))
            continue
        name, label = (value, value) if isinstance(value, str) else value
        entries.append({"active": True, "defaultValue": name == default, "label": label, "validFor": None, "value": name})
    return entries


@dataclass
class Field:
    """One field. `definition` is its entry in the describe.

    sql: how a value that is not stored is computed, as SQL in which {t} is the record's alias, {today} and {now} literals.
    formula: the text of a formula field, compiled into `sql` when the org takes the field up.
    hidden, locked: what field-level security leaves the API user: not even to read, or to read only.
    """

    definition: dict[str, Any]
    sql: str | None = None
    formula: str | None = None
    hidden: bool = False
    locked: bool = False

    @property
    def name(self) -> str:
        return self.definition["name"]

    @property
    def type(self) -> str:
        return self.definition["type"]

    @property
    def label(self) -> str:
        return self.definition["label"]

    @property
    def reference_to(self) -> list[str]:
        return self.definition["referenceTo"]

    @property
    def relationship(self) -> str | None:
        return self.definition["relationshipName"]

    @property
    def is_text(self) -> bool:
        return self.type in TEXT_TYPES

    @property
    def is_id(self) -> bool:
        return self.type in {"id", "reference"}

    @property
    def stored(self) -> bool:
        return self.sql is None and self.type not in COMPOUND_TYPES

    @property
    def sql_type(self) -> str:
        """The DuckDB type. Instants are TIMESTAMP in UTC at whole seconds, as Salesforce keeps them."""
        if self.type == "boolean":
            return "BOOLEAN"
        if self.type == "int":
            return "INTEGER"
        if self.type in {"double", "currency", "percent"}:
            scale = self.definition["scale"]
            return f"DECIMAL(18,{scale})" if scale <= 9 else "DOUBLE"
        return {"date": "DATE", "datetime": "TIMESTAMP"}.get(self.type, "VARCHAR")


def make_field(name: str, type: str, label: str | None = None, **keys: Any) -> Field:
    """A field with a whole describe entry: `keys` overrides any key of it, plus sql= and formula= of Field.

    `updateable`, `createable` and `nillable` default to True, as of a custom field.
    """
    sql, formula = keys.pop("sql", None), keys.pop("formula", None)
    definition = _fresh() | {
        "name": name,
        "type": type,
        "label": label or name.removesuffix("__c").replace("_", " "),
        "soapType": _SOAP.get(type, "xsd:string"),
        "custom": name.endswith("__c"),
        "permissionable": name.endswith("__c"),
    }
    if type in {"id", "reference"}:
        definition |= {"length": 18}
    elif type in {"currency", "double"}:
        definition |= {"precision": 18, "scale": 2, "groupable": False}
    elif type == "percent":
        definition |= {"precision": 3, "scale": 0, "groupable": False}
    elif type == "int":
        definition |= {"digits": 9}
    elif type == "boolean":
        definition |= {"nillable": False, "aggregatable": False, "defaultValue": False, "defaultedOnCreate": True}
    elif type in {"picklist", "multipicklist", "combobox"}:
        definition |= {"length": 255}
    elif type == "datetime":
        definition |= {"groupable": False}
    elif type in {"textarea", "anyType"}:
        definition |= {"aggregatable": False, "filterable": False, "groupable": False, "sortable": False}
    if sql is not None or formula is not None:
        definition |= {"createable": False, "updateable": False}
    if formula is not None:
        definition |= {"calculated": True, "calculatedFormula": formula}
    if "picklistValues" in keys:
        keys["picklistValues"] = picklist(keys["picklistValues"], keys.pop("default", None))
    if isinstance(keys.get("referenceTo"), str):
        keys["referenceTo"] = [keys["referenceTo"]]
    if len(keys.get("referenceTo", [])) > 1:
        definition |= {"namePointing": True, "polymorphicForeignKey": True}
    if unknown := keys.keys() - _defaults().keys():
        raise ValueError(f"A field's describe has no {', '.join(sorted(unknown))}")
    definition |= keys
    definition["byteLength"] = definition["length"] if type in {"id", "reference"} else definition["length"] * 3
    return Field(definition, sql, formula)


def system_field(name: str, type: str, label: str | None = None, **keys: Any) -> Field:
    """A field that users do not write."""
    return make_field(name, type, label, **{"createable": False, "updateable": False} | keys)


def stamps(*, deletable: bool = True) -> list[Field]:
    """Id, (IsDeleted,) created, last modified and SystemModstamp: what nearly every object has."""
    user = {"referenceTo": "User", "nillable": False, "defaultedOnCreate": True}
    when = {"nillable": False, "defaultedOnCreate": True}
    return [
        system_field("Id", "id", "Record ID", nillable=False, defaultedOnCreate=True, idLookup=True),
        *([system_field("IsDeleted", "boolean", "Deleted")] if deletable else []),
        system_field("CreatedDate", "datetime", "Created Date", **when),
        system_field("CreatedById", "reference", "Created By ID", relationshipName="CreatedBy", **user),
        system_field("LastModifiedDate", "datetime", "Last Modified Date", **when),
        system_field("LastModifiedById", "reference", "Last Modified By ID", relationshipName="LastModifiedBy", **user),
        system_field("SystemModstamp", "datetime", "System Modstamp", **when),
    ]


@dataclass
class SObject:
    """One object: the head of its describe, its fields by name in order, and the relationships that lead to it.

    hidden, read_only: what the API user's permissions leave of it.
    source: for objects that are no table of the org but a view of its set-up: gives the view's SQL. key: what lookups to it hold.
    needs: fields of which a query must filter one. bulk: whether the Bulk API serves it.
    """

    head: dict[str, Any]
    fields: dict[str, Field]
    children: list[dict[str, Any]] = field(default_factory=list)
    hidden: bool = False
    read_only: bool = False
    source: Callable[[], str] | None = None
    key: str = "Id"
    needs: tuple[str, ...] = ()
    bulk: bool = True

    def __post_init__(self) -> None:
        self._by_lower = {name.lower(): f for name, f in self.fields.items()}

    @property
    def name(self) -> str:
        return self.head["name"]

    @property
    def prefix(self) -> str:
        return self.head["keyPrefix"]

    @property
    def soft_deletes(self) -> bool:
        return "IsDeleted" in self.fields

    def add(self, new: Field) -> None:
        self.fields[new.name] = new
        self._by_lower[new.name.lower()] = new

    def remove(self, name: str) -> None:
        del self.fields[name], self._by_lower[name.lower()]

    @property
    def relation(self) -> str:
        """What stands in a FROM clause for it."""
        return f'"{self.name}"' if self.source is None else f"({self.source()})"

    def field(self, name: str, *, hidden: bool = False) -> Field | None:
        """The visible field of that name, in whatever case it is written; with `hidden` those too that the API user may not see."""
        found = self._by_lower.get(name.lower())
        return None if found is None or (found.hidden and not hidden) else found

    def stored(self) -> list[Field]:
        return [f for f in self.fields.values() if f.stored]

    def visible(self) -> list[Field]:
        return [f for f in self.fields.values() if not f.hidden]

    def parent(self, relationship: str, *, hidden: bool = False) -> Field | None:
        """The lookup behind a relationship name such as Owner, Account or What."""
        wanted = relationship.lower()
        fields = self.fields.values() if hidden else self.visible()
        return next((f for f in fields if f.relationship and f.relationship.lower() == wanted), None)

    def child(self, relationship: str) -> dict[str, Any] | None:
        wanted = relationship.lower()
        return next((c for c in self.children if c["relationshipName"] and c["relationshipName"].lower() == wanted), None)

    def urls(self, version: str, *, whole: bool = False, base: str = "") -> dict[str, str]:
        path = f"/services/data/v{version}/sobjects/{self.name}"
        urls = {"rowTemplate": f"{path}/{{ID}}", "describe": f"{path}/describe", "sobject": path}
        if self.head["layoutable"]:
            urls |= {"compactLayouts": f"{path}/describe/compactLayouts", "layouts": f"{path}/describe/layouts"}
            urls |= {"approvalLayouts": f"{path}/describe/approvalLayouts", "quickActions": f"{path}/quickActions"}
            urls |= {"listviews": f"{path}/listviews"}
        if whole and self.head["layoutable"]:
            urls |= {"uiDetailTemplate": f"{base}/{{ID}}", "uiEditTemplate": f"{base}/{{ID}}/e"}
            urls |= {"uiNewRecord": f"{base}/{self.prefix}/e"}
        return urls

    def summary(self, version: str) -> dict[str, Any]:
        """Its entry in the list of `/sobjects`."""
        return {key: self.head[key] for key in _SUMMARY_KEYS} | self._rights(_SUMMARY_KEYS) | {"urls": self.urls(version)}

    def _rights(self, keys: Iterable[str]) -> dict[str, bool]:
        """Flags that the user's permissions take away."""
        return dict.fromkeys(WRITES.intersection(keys), False) if self.read_only else {}

    def _shown(self, f: Field) -> dict[str, Any]:
        return f.definition | {"createable": False, "updateable": False} if self.read_only or f.locked else f.definition

    def describe(self, version: str, base: str) -> dict[str, Any]:
        """The answer of `/sobjects/X/describe`, keys in alphabetical order, without fields that the user may not see."""
        whole = self.head | self._rights(self.head) | {
            "actionOverrides": [],
            "childRelationships": self.children,
            "fields": [self._shown(f) for f in self.visible()],
            "namedLayoutInfos": [],
            "urls": self.urls(version, whole=True, base=base),
        }
        return {key: whole[key] for key in sorted(whole)}


def make_object(
    name: str, prefix: str, fields: list[Field], *, label: str | None = None, plural: str | None = None,
    can: Iterable[str] = (), **head: Any,
) -> SObject:  # fmt: skip
    """An object with a whole describe: `can` names the flags of it that are true, `head` gives other keys."""
    head |= dict.fromkeys(can, True)
    label = label or name
    defaults: dict[str, Any] = dict.fromkeys(_FLAGS, False) | dict.fromkeys(_NULLS)
    defaults |= {"queryable": True, "replicateable": True, "retrieveable": True, "sobjectDescribeOption": "FULL"}
    defaults |= {"recordTypeInfos": [], "supportedScopes": [{"label": f"All {plural or label}", "name": "everything"}]}
    if unknown := head.keys() - defaults.keys():
        raise ValueError(f"A describe has no {', '.join(sorted(unknown))}")
    whole = defaults | {"name": name, "keyPrefix": prefix, "label": label, "labelPlural": plural or f"{label}s"}
    return SObject(whole | {"custom": name.endswith("__c")} | head, {f.name: f for f in fields})


def recorded_object(name: str, *, without: Iterable[str] = ()) -> SObject:
    """An object as a real org describes it, see `recorded/README.md`."""
    source = orjson.loads((RECORDED / f"{name}.json").read_bytes())
    skip = set(without)
    fields = {}
    for entry in source["fields"]:
        definition = _fresh() | entry
        definition["picklistValues"] = picklist(definition["picklistValues"])
        if definition["name"] not in skip:
            fields[definition["name"]] = Field(definition)
    head = dict.fromkeys(_NULLS) | source["object"] | {"sobjectDescribeOption": "FULL"}  # older recordings have fewer keys
    return SObject(head, fields, source["childRelationships"])


_FLAGS = [
    "activateable", "compactLayoutable", "createable", "custom", "customSetting", "deepCloneable", "deletable",
    "deprecatedAndHidden", "feedEnabled", "hasSubtypes", "isInterface", "isSubtype", "layoutable", "mergeable", "mruEnabled",
    "queryable", "replicateable", "retrieveable", "searchLayoutable", "searchable", "triggerable", "undeletable", "updateable",
]  # fmt: skip
WRITES = {"createable", "deletable", "mergeable", "undeletable", "updateable"}
_NULLS = [
    "associateEntityType", "associateParentEntity", "defaultImplementation", "extendedBy", "extendsInterfaces", "implementedBy",
    "implementsInterfaces", "listviewable", "lookupLayoutable", "networkScopeFieldName", "sobjectDescribeOption",
    "recordTypeInfos", "supportedScopes",
]  # fmt: skip
_SUMMARY_KEYS = [
    "activateable", "associateEntityType", "associateParentEntity", "createable", "custom", "customSetting", "deepCloneable",
    "deletable", "deprecatedAndHidden", "feedEnabled", "hasSubtypes", "isInterface", "isSubtype", "keyPrefix", "label",
    "labelPlural", "layoutable", "mergeable", "mruEnabled", "name", "queryable", "replicateable", "retrieveable", "searchable",
    "triggerable", "undeletable", "updateable",
]  # fmt: skip
