"""The set-up that an admin's tools ask for by SOQL: definitions of objects and fields, and who may do what.

None of them is a table here: each is a view of the org as it stands, so that it never disagrees with the describes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from connectors.simulator.salesforce.catalogue import Field, SObject, make_object, system_field
from connectors.simulator.salesforce.compile import literal

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

NO_ID = "000000000000000AAA"  # what the platform answers as Id of a definition
TRACKABLE = 20  # fields of one object whose history can be tracked
# Objects with permissions of their own; contact roles and activities follow what they belong to.
PERMITTED = ["Account", "Contact", "Opportunity", "Plumbline_Snapshot__c"]
# How Setup names a field's type.
_NAMES = {
    "string": "Text({length})", "textarea": "Long Text Area({length})", "picklist": "Picklist", "multipicklist": "Picklist (Multi-Select)",
    "currency": "Currency({whole}, {scale})", "double": "Number({whole}, {scale})", "percent": "Percent({whole}, {scale})",
    "int": "Number({digits}, 0)", "boolean": "Checkbox", "date": "Date", "datetime": "Date/Time", "reference": "Lookup({to})",
    "email": "Email", "phone": "Phone", "url": "URL({length})", "combobox": "Picklist", "address": "Address",
}  # fmt: skip


def _view(name: str, prefix: str, fields: list[Field], label: str, **head: Any) -> SObject:
    o = make_object(name, prefix, fields, label=label, replicateable=False, retrieveable=False, **head)
    o.bulk = False
    return o


def _text(name: str, label: str | None = None, length: int = 255) -> Field:
    return system_field(name, "string", label or name, length=length)


def _flag(name: str) -> Field:
    return system_field(name, "boolean", name)


def access_objects() -> list[SObject]:
    """EntityDefinition, FieldDefinition, PermissionSet, PermissionSetAssignment and ObjectPermissions, without their sources."""
    record_id = system_field("Id", "id", "ID", nillable=False)
    entity = _view(
        "EntityDefinition", "4ie",
        [
            record_id, _text("DurableId"), _text("QualifiedApiName", "Qualified API Name"), _text("DeveloperName", "Developer Name"),
            _text("MasterLabel", "Master Label"), _text("Label"), _text("PluralLabel", "Plural Label"), _text("KeyPrefix", "Key Prefix", 3),
            _text("NamespacePrefix", "Namespace Prefix", 15), _flag("IsCustomizable"), _flag("IsQueryable"), _flag("IsReplicateable"),
            _flag("IsTriggerable"),
        ],
        "Object Definition",
    )  # fmt: skip
    entity.key = "DurableId"
    of_entity = system_field(
        "EntityDefinitionId", "reference", "Entity Definition ID", referenceTo="EntityDefinition", relationshipName="EntityDefinition"
    )
    definition = _view(
        "FieldDefinition", "4fe",
        [
            record_id, _text("DurableId"), _text("QualifiedApiName", "Qualified API Name"), of_entity,
            _text("DeveloperName", "Developer Name"), _text("MasterLabel", "Master Label"), _text("Label"), _text("DataType", "Data Type"),
            _text("NamespacePrefix", "Namespace Prefix", 15), _text("RelationshipName", "Relationship Name"),
            system_field("Length", "int", "Length"), system_field("Precision", "int", "Precision"), system_field("Scale", "int", "Scale"),
            _flag("IsCalculated"), _flag("IsNillable"), _flag("IsNameField"), _flag("IsIndexed"), _flag("IsFieldHistoryTracked"),
        ],
        "Field Definition",
    )  # fmt: skip
    definition.key, definition.needs = "DurableId", ("EntityDefinitionId", "DurableId")
    profile = system_field("ProfileId", "reference", "Profile ID", referenceTo="Profile", relationshipName="Profile")
    permission_set = _view(
        "PermissionSet", "0PS",
        [
            record_id, _text("Name", "Permission Set Name", 80), _text("Label", "Permission Set Label", 80), profile,
            _flag("IsOwnedByProfile"), _flag("IsCustom"), _flag("PermissionsApiEnabled"), _flag("PermissionsViewSetup"),
            _flag("PermissionsViewAllData"), _flag("PermissionsModifyAllData"),
        ],
        "Permission Set",
    )  # fmt: skip
    of_set = {"referenceTo": "PermissionSet"}
    assignment = _view(
        "PermissionSetAssignment", "0Pa",
        [
            record_id,
            system_field("PermissionSetId", "reference", "PermissionSet ID", relationshipName="PermissionSet", **of_set),
            system_field("AssigneeId", "reference", "Assignee ID", referenceTo="User", relationshipName="Assignee"),
            _flag("IsActive"),
        ],
        "Permission Set Assignment",
    )  # fmt: skip
    permissions = _view(
        "ObjectPermissions", "110",
        [
            record_id, system_field("ParentId", "reference", "Parent ID", relationshipName="Parent", **of_set),
            system_field("SobjectType", "picklist", "Sobject Type Name", length=40),
            *(_flag(f"Permissions{what}") for what in ("Read", "Create", "Edit", "Delete", "ViewAllRecords", "ModifyAllRecords")),
        ],
        "Object Permissions",
    )  # fmt: skip
    return [entity, definition, permission_set, assignment, permissions]


def attach(org: SalesforceOrg) -> None:
    """Give the objects the SQL of their views over this org."""
    for name, source in [
        ("EntityDefinition", _entities), ("FieldDefinition", _fields), ("PermissionSet", lambda _: _PERMISSION_SETS),
        ("PermissionSetAssignment", lambda _: _ASSIGNMENTS), ("ObjectPermissions", _object_permissions),
    ]:  # fmt: skip
        org.objects[name].source = lambda source=source: source(org)


def _values(rows: Iterable[dict[str, Any]], o: SObject) -> str:
    names = [f.name for f in o.stored()]
    listed = ", ".join(f"({', '.join(literal(row.get(name)) for name in names)})" for row in rows)
    typed = ", ".join(f'"{f.name}"::{f.sql_type} AS "{f.name}"' for f in o.stored())
    return f"""SELECT {typed} FROM (VALUES {listed}) v({', '.join(f'"{name}"' for name in names)})"""


def _entities(org: SalesforceOrg) -> str:
    rows = [
        {
            "Id": NO_ID, "DurableId": o.name, "QualifiedApiName": o.name, "DeveloperName": o.name.removesuffix("__c"),
            "MasterLabel": o.head["label"], "Label": o.head["label"], "PluralLabel": o.head["labelPlural"], "KeyPrefix": o.prefix,
            "IsCustomizable": o.head["layoutable"], "IsQueryable": o.head["queryable"], "IsReplicateable": o.head["replicateable"],
            "IsTriggerable": o.head["triggerable"],
        }
        for o in org.objects.values() if not o.hidden
    ]  # fmt: skip
    return _values(rows, org.objects["EntityDefinition"])


def _fields(org: SalesforceOrg) -> str:
    rows = []
    for o in org.objects.values():
        for f in o.visible() if not o.hidden else ():
            d = f.definition
            name = f.name if f.definition["custom"] or o.source else (f.name.removesuffix("Id") if f.type == "reference" else f.name)
            # A standard lookup's definition goes by the name of the relationship, its API name by that of the column.
            rows.append(
                {
                    "Id": NO_ID, "DurableId": f"{o.name}.{name}", "QualifiedApiName": f.name, "EntityDefinitionId": o.name,
                    "DeveloperName": f.name.removesuffix("__c"), "MasterLabel": f.label, "Label": f.label, "DataType": _data_type(f),
                    "RelationshipName": f.relationship, "Length": d["length"], "Precision": d["precision"], "Scale": d["scale"],
                    "IsCalculated": d["calculated"], "IsNillable": d["nillable"], "IsNameField": d["nameField"],
                    "IsIndexed": d["idLookup"] or d["externalId"],
                    "IsFieldHistoryTracked": o.name == "Opportunity" and f.name in org.tracked_fields,
                }
            )
    return _values(rows, org.objects["FieldDefinition"])


def _data_type(f: Field) -> str:
    d = f.definition
    name = _NAMES.get(f.type, f.type.capitalize()).format(
        length=d["length"], whole=d["precision"] - d["scale"], scale=d["scale"], digits=d["digits"], to=",".join(f.reference_to)
    )
    return f"Formula ({name.partition('(')[0]})" if f.formula is not None else name


# Every profile owns a permission set of its own, which all its users are assigned to.
_SET_ID = "sf_id18('0PS' || substr({}, 4, 12))"
_MAY_ALL = "\"Name\" = 'System Administrator'"
_PERMISSION_SETS = f"""
    SELECT {_SET_ID.format('"Id"')} AS "Id", 'X' || substr("Id", 1, 15) AS "Name", 'X' || substr("Id", 1, 15) AS "Label",
           "Id" AS "ProfileId", true AS "IsOwnedByProfile", true AS "IsCustom", true AS "PermissionsApiEnabled",
           {_MAY_ALL} AS "PermissionsViewSetup", {_MAY_ALL} AS "PermissionsViewAllData", {_MAY_ALL} AS "PermissionsModifyAllData"
    FROM "Profile"
"""
_ASSIGNMENTS = f"""
    SELECT sf_id18('0Pa' || substr("Id", 4, 12)) AS "Id", {_SET_ID.format('"ProfileId"')} AS "PermissionSetId", "Id" AS "AssigneeId",
           "IsActive"
    FROM "User"
"""


def _object_permissions(org: SalesforceOrg) -> str:
    """Admins may all; the profiles of those who come by the API what `set_read_only`, `set_view_all` and `hide_object` leave."""
    rows = []
    for place, name in enumerate(PERMITTED):
        o = org.objects[name]
        seen = f"({_MAY_ALL} OR {literal(org.view_all)})"
        write = f"({_MAY_ALL} OR {literal(not o.read_only)})"
        rows.append(
            f"""SELECT sf_id18('110{place}' || substr("Id", 5, 11)) AS "Id", {_SET_ID.format('"Id"')} AS "ParentId",
                '{name}' AS "SobjectType", true AS "PermissionsRead", {write} AS "PermissionsCreate", {write} AS "PermissionsEdit",
                {write} AS "PermissionsDelete", {seen} AS "PermissionsViewAllRecords", {_MAY_ALL} AS "PermissionsModifyAllRecords"
                FROM "Profile" WHERE {literal(not o.hidden)}"""
        )
    return " UNION ALL ".join(rows)
