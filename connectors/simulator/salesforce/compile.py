"""From a SOQL syntax tree to DuckDB SQL, and from the rows of that to the text of JSON records and CSV lines, again in SQL.

Salesforce's logic has two values: a comparison with an empty field is false, and != and NOT are its plain opposites.
DuckDB's has three, so comparisons under != and NOT are made two-valued here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from typing import Literal as OneOf
from zoneinfo import ZoneInfo

from connectors.simulator.salesforce import soql
from connectors.simulator.salesforce.catalogue import COMPOUND_TYPES, NUMBER_TYPES, Field, SObject, make_field
from connectors.simulator.salesforce.dates import day_range
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.ids import to_18
from connectors.simulator.salesforce.soql import Call, Comparison, Literal, Logic, Macro, Name, Select, TypeOf

_APPEND_C = "Please reference your WSDL or the describe call for the appropriate names."
AGGREGATES = {"COUNT", "COUNT_DISTINCT", "SUM", "MIN", "MAX", "AVG"}
_DATE_PARTS = {
    "CALENDAR_YEAR": "year({x})",
    "CALENDAR_QUARTER": "quarter({x})",
    "CALENDAR_MONTH": "month({x})",
    "DAY_IN_MONTH": "day({x})",
    "DAY_IN_WEEK": "(dayofweek({x}) + 1)",
    "DAY_IN_YEAR": "dayofyear({x})",
    "WEEK_IN_YEAR": "week({x})",
    "HOUR_IN_DAY": "hour({x})",
    "DAY_ONLY": "({x})::DATE",
}
# What may be read through a polymorphic lookup such as What or Who: the fields of Salesforce's Name object.
_NAME_FIELDS = {"id": "Id", "name": "Name", "type": "Type", "isactive": "IsActive", "email": "Email", "title": "Title"}


def literal(value: Any) -> str:
    """A Python value as a DuckDB literal."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.astimezone(UTC).replace(tzinfo=None, microsecond=0)}'"
    if isinstance(value, date):
        return f"DATE '{value}'"
    if isinstance(value, (int, Decimal)):
        return format(value, "f") if isinstance(value, Decimal) else str(value)
    return "'" + str(value).replace("'", "''") + "'"


@dataclass(frozen=True)
class Context:
    """What a query is compiled against: the schema and the org's present."""

    objects: Mapping[str, SObject]
    now: datetime
    zone: ZoneInfo
    fiscal_month: int = 1
    corporate_rate: Decimal = Decimal(1)
    sharing: Mapping[str, str] = field(default_factory=dict)  # per object a condition on {t}: what of it the user may see

    @property
    def today(self) -> date:
        return self.now.astimezone(self.zone).date()

    def sobject(self, name: str) -> SObject | None:
        wanted = name.lower()
        found = next((o for n, o in self.objects.items() if n.lower() == wanted), None)
        return None if found is None or found.hidden else found

    def fill(self, sql: str, alias: str) -> str:
        """The SQL of a computed field with its record's alias and the present filled in."""
        return (
            sql.replace("{t}", alias)
            .replace("{today}", literal(self.today))
            .replace("{now}", literal(self.now))
            .replace("{fiscal_month}", str(self.fiscal_month))
        )

    def value(self, f: Field, alias: str) -> str:
        """SQL of a field's value in the record behind `alias`."""
        if f.type in COMPOUND_TYPES:
            return _address(f, alias)
        return self.fill(f.sql, alias) if f.sql is not None else f'{alias}."{f.name}"'


def _address(f: Field, alias: str) -> str:
    stem = f.name.removesuffix("Address")
    parts = ["City", "Country", "GeocodeAccuracy", "Latitude", "Longitude", "PostalCode", "State", "Street"]
    keys = ", ".join(f"""'{part[0].lower()}{part[1:]}', {alias}."{stem}{part}\"""" for part in parts)
    filled = ", ".join(f'{alias}."{stem}{part}"' for part in ("City", "Country", "PostalCode", "State", "Street"))
    return f"CASE WHEN coalesce({filled}) IS NOT NULL THEN json_object({keys})::VARCHAR END"


# --- values as text ---------------------------------------------------------------------------------------------------


def json_text(f: Field, x: str) -> str:
    """SQL of a value as JSON text, as the REST API writes it: decimals as Java's doubles, instants with +0000."""
    return f"coalesce({_json_value(f, x)}, 'null')"


def _json_value(f: Field, x: str) -> str:
    if f.type in {"boolean", "int"} | COMPOUND_TYPES:
        return f"{x}::VARCHAR"
    if f.type in NUMBER_TYPES:
        return f"java_double({x})"
    if f.type == "datetime":
        return f"strftime({x}, '\"%Y-%m-%dT%H:%M:%S.000+0000\"')"
    if f.type == "anyType":
        return x  # JSON already
    if f.is_id or f.type == "date":
        return f"'\"' || {x} || '\"'"
    return f"to_json({x})::VARCHAR"


def csv_text(f: Field, x: str) -> str:
    """SQL of a value as the Bulk API writes it: everything quoted, nothing for null, instants with Z."""
    if f.type in NUMBER_TYPES and f.type != "int":
        text = f"java_double({x})"
    elif f.type == "datetime":
        text = f"strftime({x}, '%Y-%m-%dT%H:%M:%S.000Z')"
    elif f.type == "anyType":
        text = f"replace(CASE WHEN {x} LIKE '\"%' THEN {x} ->> '$' ELSE {x} END, '\"', '\"\"')"
    elif f.is_text:
        text = f"replace({x}, '\"', '\"\"')"
    else:
        text = f"{x}::VARCHAR"
    return f"'\"' || coalesce({text}, '') || '\"'"


# --- what a query returns ---------------------------------------------------------------------------------------------


@dataclass
class Leaf:
    name: str
    column: str
    field: Field


@dataclass
class Parent:
    """A nested parent record: `sobject` None where the lookup is polymorphic."""

    name: str
    id_column: str
    sobject: str | None
    nodes: list[Node] = field(default_factory=list)


@dataclass
class Typed:
    """A polymorphic parent under TYPEOF: what is shown of it by the kind of record. branches: key prefix, object, nodes."""

    name: str
    id_column: str
    branches: list[tuple[str, str, list[Node]]]
    otherwise: list[Node] | None


@dataclass
class Child:
    """The result of a subquery, already JSON text in `column`."""

    name: str
    column: str


Node = Leaf | Parent | Typed | Child


@dataclass
class Compiled:
    """A compiled query. `sql` gives one row per record with the columns that the nodes name, in the query's order."""

    kind: OneOf["records", "count", "aggregate"]
    sobject: SObject
    sql: str
    nodes: list[Node]
    limit: int | None

    def leaves(self) -> list[tuple[str, Leaf]]:
        """The fields with their dotted names: the columns of a CSV."""

        def walk(nodes: list[Node], path: str) -> list[tuple[str, Leaf]]:
            out: list[tuple[str, Leaf]] = []
            for node in nodes:
                if isinstance(node, Leaf):
                    out.append((path + node.name, node))
                elif isinstance(node, Parent):
                    out += walk(node.nodes, f"{path}{node.name}.")
            return out

        return walk(self.nodes, "")

    def json_row(self, objects: Mapping[str, SObject], version: str, alias: str = "r") -> str:
        """SQL of one record's JSON text over rows of `sql` under `alias`."""
        return _json_record(self.sobject.name if self.kind == "records" else None, "_id", self.nodes, objects, version, alias)


def _attributes(sobject: str | None, id_column: str, objects: Mapping[str, SObject], version: str, alias: str) -> str:
    """SQL of the opening of a record up to its attributes."""
    if sobject is None:  # polymorphic: the kind of record is told by the id's prefix
        cases = " ".join(f"WHEN '{o.prefix}' THEN '{o.name}'" for o in objects.values())
        kind = f"CASE substr({alias}.{id_column}, 1, 3) {cases} END"
        url = f"'/services/data/v{version}/sobjects/' || {kind} || '/' || {alias}.{id_column}"
        return f"""'{{"attributes":{{"type":"Name","url":"' || {url} || '"}}'"""
    url = f"/services/data/v{version}/sobjects/{sobject}/"
    return f"""'{{"attributes":{{"type":"{sobject}","url":"{url}' || {alias}.{id_column} || '"}}'"""


def _json_record(
    sobject: str | None, id_column: str | None, nodes: list[Node], objects: Mapping[str, SObject], version: str, alias: str
) -> str:
    if sobject is None and id_column == "_id":
        parts = ["""'{"attributes":{"type":"AggregateResult"}'"""]
    else:
        parts = [_attributes(sobject, id_column or "", objects, version, alias)]
    for node in nodes:
        head = f"""',"{node.name}":'"""
        if isinstance(node, Leaf):
            parts.append(f"{head} || {json_text(node.field, f'{alias}.{node.column}')}")
        elif isinstance(node, Child):
            parts.append(f"{head} || coalesce({alias}.{node.column}, 'null')")
        elif isinstance(node, Typed):
            record = f"{alias}.{node.id_column}"
            shown = " ".join(
                f"WHEN '{prefix}' THEN {_json_record(name, node.id_column, nodes, objects, version, alias)}"
                for prefix, name, nodes in node.branches
            )
            other = "'null'"
            if node.otherwise is not None:
                named = _json_record(None, node.id_column, node.otherwise, objects, version, alias)
                other = f"CASE WHEN {record} IS NULL THEN 'null' ELSE {named} END"
            parts.append(f"{head} || CASE substr({record}, 1, 3) {shown} ELSE {other} END")
        else:
            inner = _json_record(node.sobject, node.id_column, node.nodes, objects, version, alias)
            parts.append(f"{head} || CASE WHEN {alias}.{node.id_column} IS NULL THEN 'null' ELSE {inner} END")
    # One flat call: a chain of || takes DuckDB longer to plan than a page of records takes to write.
    return f"concat({', '.join(parts)}, '}}')"


# --- the compiler -----------------------------------------------------------------------------------------------------


def compile_query(text: str, context: Context, *, all_rows: bool = False, bulk: bool = False, version: str = "60.0") -> Compiled:
    """Compile SOQL. all_rows: deleted and archived records too. bulk: what Bulk API 2.0 refuses is refused.

    Raises SalesforceError MALFORMED_QUERY, INVALID_FIELD, INVALID_TYPE, … as the real one words them.
    """
    tree = soql.parse(text)
    return _Query(text, tree, context, all_rows=all_rows or tree.all_rows, bulk=bulk, version=version).compile()


class _Query:
    """One SELECT, the outer one or an inner one, being compiled."""

    def __init__(
        self, text: str, tree: Select, context: Context, *, all_rows: bool, bulk: bool, version: str,
        prefix: str = "t", sobject: SObject | None = None,
    ) -> None:  # fmt: skip
        self.text, self.tree, self.context = text, tree, context
        self.all_rows, self.bulk, self.version, self.prefix = all_rows, bulk, version, prefix
        self.nested = prefix != "t"
        found = sobject or context.sobject(tree.sobject)
        if found is None or not found.head["queryable"]:
            raise self._at(
                "INVALID_TYPE", tree.at,
                f"sObject type '{tree.sobject}' is not supported. If you are attempting to use a custom object, be sure to append the "
                f"'__c' after the entity name. {_APPEND_C}",
            )  # fmt: skip
        self.sobject = found
        self.base = f"{prefix}0"
        self.joins: dict[tuple[str, ...], tuple[str, SObject | None]] = {(): (self.base, found)}
        self.from_ = [f"{found.relation} {self.base}"]
        self.columns: list[str] = []
        self.inner = 0

    # places and errors

    def _at(self, code: str, at: int, message: str) -> SalesforceError:
        return SalesforceError(code, soql.located(self.text, at, message))

    def _no_column(self, name: str, entity: str, at: int) -> SalesforceError:
        return self._at(
            "INVALID_FIELD", at,
            f"No such column '{name}' on entity '{entity}'. If you are attempting to use a custom field, be sure to append the '__c' "
            f"after the custom field name. {_APPEND_C}",
        )  # fmt: skip

    # names

    def _join(self, path: tuple[str, ...], at: int) -> tuple[str, SObject | None]:
        """Alias and object behind a path of relationships; the object is None behind a polymorphic lookup."""
        key = tuple(part.lower() for part in path)
        if key in self.joins:
            return self.joins[key]
        left, owner = self._join(path[:-1], at)
        lookup = owner.parent(path[-1]) if owner else None
        if lookup is None:
            raise self._at(
                "INVALID_FIELD", at,
                f"Didn't understand relationship '{path[-1]}' in field path. If you are attempting to use a custom relationship, be sure "
                f"to append the '__r' after the custom relationship name. {_APPEND_C}",
            )  # fmt: skip
        alias = f"{self.prefix}{len(self.joins)}"
        if lookup.definition["namePointing"]:
            source, target, held = self._name_object(lookup), None, "Id"
        else:
            target = self.context.objects[lookup.reference_to[0]]
            source, held = target.relation, target.key
        self.from_.append(f'LEFT JOIN {source} {alias} ON {alias}."{held}" = {left}."{lookup.name}"')
        self.joins[key] = alias, target
        return alias, target

    def _name_object(self, lookup: Field) -> str:
        def of(o: SObject) -> str:
            def one(name: str) -> str:
                f = o.fields.get(name)
                return f'{self.context.value(f, "x")} AS "{name}"' if f else f'NULL AS "{name}"'

            wanted = ", ".join(one(name) for name in _NAME_FIELDS.values() if name != "Type")
            return f"SELECT {wanted}, '{o.name}' AS \"Type\" FROM \"{o.name}\" x"

        return f"({' UNION ALL BY NAME '.join(of(self.context.objects[name]) for name in lookup.reference_to)})"

    def _resolve(self, name: Name) -> tuple[str, Field, tuple[str, ...]]:
        """SQL, field and canonical relationship path of a name."""
        path = name.path
        own = {self.sobject.name.lower(), (self.tree.alias or "").lower()}
        if len(path) > 1 and path[0].lower() in own and self.sobject.parent(path[0]) is None:
            path = path[1:]
        alias, target = self._join(tuple(path[:-1]), name.at)
        if target is None:
            canonical = _NAME_FIELDS.get(path[-1].lower())
            if canonical is None:
                raise self._no_column(path[-1], "Name", name.at)
            kind = "id" if canonical == "Id" else "boolean" if canonical == "IsActive" else "string"
            f, sql = make_field(canonical, kind), f'{alias}."{canonical}"'
        else:
            found = target.field(path[-1])
            if found is None:
                raise self._no_column(path[-1], target.name, name.at)
            f, sql = found, self.context.value(found, alias)
        return sql, f, self._canonical(path[:-1])

    def _canonical(self, path: list[str]) -> tuple[str, ...]:
        names: list[str] = []
        for depth in range(len(path)):
            _, owner = self._join(tuple(path[:depth]), 0)
            lookup = owner.parent(path[depth]) if owner else None
            names.append(lookup.relationship if lookup and lookup.relationship else path[depth])
        return tuple(names)

    # SELECT list

    def compile(self) -> Compiled:
        tree = self.tree
        self._check_shape()
        if len(tree.items) == 1 and isinstance(tree.items[0], Call) and self._is_count(tree.items[0]):
            if self.bulk:
                raise SalesforceError("FEATURE_NOT_ENABLED", "Aggregate Relationships not supported in Bulk Query")
            limit = f"LIMIT {tree.limit}" if tree.limit is not None else ""
            sql = f"SELECT count(*) AS n FROM (SELECT 1 {self._body()} {limit})"
            return Compiled("count", self.sobject, sql, [], tree.limit)
        if tree.group_by or any(isinstance(item, Call) and item.name.upper() in AGGREGATES for item in tree.items):
            return self._aggregate()
        self.columns.append(f'{self.base}."{self.sobject.key}" AS _id')
        nodes = self._nodes()
        tail = self._tail()  # after the SELECT list: it adds joins
        return Compiled("records", self.sobject, f"SELECT {', '.join(self.columns)} {tail}", nodes, tree.limit)

    @staticmethod
    def _is_count(call: Call) -> bool:
        return call.name.upper() == "COUNT" and call.argument is None

    def _check_shape(self) -> None:
        tree = self.tree
        if tree.offset is not None and tree.offset > 2000:
            raise SalesforceError("NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000")
        if self.sobject.needs and not self._filters(tree.where):
            needed = ",".join(self.sobject.needs)
            raise SalesforceError("MALFORMED_QUERY", f"{self.sobject.name}: a filter on a reified column is required [{needed}]")
        if not self.bulk:
            return
        if not self.sobject.bulk:
            raise SalesforceError("INVALIDENTITY", f"Entity '{self.sobject.name}' is not supported by the Bulk API.")
        if tree.offset is not None:
            raise SalesforceError("FEATURE_NOT_ENABLED", "OFFSET clause is not supported in Bulk Query")
        if any(isinstance(item, Select) for item in tree.items):
            raise SalesforceError("FEATURE_NOT_ENABLED", "Nested query is not supported in Bulk Query")

    def _filters(self, where: Any) -> bool:
        """Whether a query says which of its object's needed fields must be what: by = or IN, and not as one of several ways."""
        if isinstance(where, Logic):
            return where.operator == "AND" and any(self._filters(part) for part in where.parts)
        if not isinstance(where, Comparison) or not isinstance(where.left, Name) or where.operator not in {"=", "IN"}:
            return False
        named = where.left.path[0].lower()  # EntityDefinition.QualifiedApiName is as good as EntityDefinitionId
        return any(named in {need.lower(), need.removesuffix("Id").lower()} for need in self.sobject.needs)

    def _nodes(self) -> list[Node]:
        nodes: list[Node] = []
        parents: dict[tuple[str, ...], Parent] = {}
        seen: set[tuple[str, ...]] = set()

        def level(path: tuple[str, ...]) -> list[Node]:
            if not path:
                return nodes
            if path not in parents:
                alias, target = self._join(path, 0)
                column = f"p{len(parents)}"
                self.columns.append(f'{alias}."{target.key if target else "Id"}" AS {column}')
                parents[path] = Parent(path[-1], column, target.name if target else None)
                level(path[:-1]).append(parents[path])
            return parents[path].nodes

        for item in self._expanded():
            if isinstance(item, Select):
                nodes.append(self._child(item))
                continue
            if isinstance(item, TypeOf):
                nodes.append(self._typed(item))
                continue
            if isinstance(item, Call):
                nodes.append(self._scalar_call(item))
                continue
            sql, f, path = self._resolve(item)
            if (*path, f.name) in seen:
                raise self._at("MALFORMED_QUERY", item.at, f"duplicate field selected: {f.name}")
            seen.add((*path, f.name))
            if self.bulk and f.type in COMPOUND_TYPES:
                raise SalesforceError("FEATURE_NOT_ENABLED", "Selecting compound data not supported in Bulk Query")
            level(path).append(Leaf(f.name, self._column(sql), f))
        return nodes

    def _column(self, sql: str) -> str:
        name = f"c{len(self.columns)}"
        self.columns.append(f"{sql} AS {name}")
        return name

    def _expanded(self) -> list[Name | Call | Select | TypeOf]:
        """The SELECT list with FIELDS(ALL | STANDARD | CUSTOM) spelled out."""
        out: list[Name | Call | Select | TypeOf] = []
        for item in self.tree.items:
            if not (isinstance(item, Call) and item.name.upper() == "FIELDS"):
                out.append(item)
                continue
            which = item.argument.path[0].upper() if isinstance(item.argument, Name) else ""
            if which not in {"ALL", "STANDARD", "CUSTOM"}:
                raise self._at("MALFORMED_QUERY", item.at, "FIELDS() takes ALL, STANDARD or CUSTOM")
            if self.bulk and which != "STANDARD":
                raise self._at("MALFORMED_QUERY", item.at, "The SOQL FIELDS function is not supported with an unbounded set of fields.")
            if which != "STANDARD" and (self.tree.limit is None or self.tree.limit > 200):
                raise self._at("MALFORMED_QUERY", item.at, "The SOQL FIELDS function must have a LIMIT of at most 200")
            out += [
                Name([f.name], item.at) for f in self.sobject.visible() if which == "ALL" or f.definition["custom"] is (which == "CUSTOM")
            ]
        return out

    def _scalar_call(self, call: Call) -> Leaf:
        """toLabel, convertCurrency and format keep the field's name in the answer unless there is an alias."""
        name = call.name.lower()
        if isinstance(call.argument, Name) and name in {"tolabel", "format", "convertcurrency"}:
            sql, f, path = self._resolve(call.argument)
            if path:
                raise self._at("MALFORMED_QUERY", call.at, f"{call.name} of a parent's field is not supported")
            if name == "convertcurrency":
                sql = f"({sql} / {self._rate(self.base)} * {self.context.corporate_rate})::DECIMAL(18,2)"
            return Leaf(call.alias or f.name, self._column(sql), f)
        raise self._at("MALFORMED_QUERY", call.at, f"Unknown function or aggregate in a query without GROUP BY: {call.name}")

    def _typed(self, item: TypeOf) -> Typed:
        lookup = self.sobject.parent(item.field.path[0]) if len(item.field.path) == 1 else None
        if self.bulk or self.nested:
            raise self._at("MALFORMED_QUERY", item.at, "TYPEOF is not allowed in nested queries or by the Bulk API")
        if lookup is None or not lookup.definition["namePointing"]:
            raise self._at("INVALID_FIELD", item.field.at, f"TYPEOF: {'.'.join(item.field.path)} is not a polymorphic relationship")
        if isinstance(lookup.relationship, str) and any(
            isinstance(other, Name) and other.path[0].lower() == lookup.relationship.lower() for other in self.tree.items
        ):
            raise self._at("MALFORMED_QUERY", item.at, f"{lookup.relationship} is selected both by TYPEOF and by itself")
        column = self._column(f'{self.base}."{lookup.name}"')

        def leaves(fields: list[Name], alias: str, target: SObject | None) -> list[Node]:
            found: list[Node] = []
            for name in fields:
                if target is None:
                    canonical = _NAME_FIELDS.get(name.path[-1].lower())
                    f = make_field(canonical, "id" if canonical == "Id" else "string") if canonical else None
                    sql = f'{alias}."{canonical}"'
                else:
                    f = target.field(name.path[-1])
                    sql = self.context.value(f, alias) if f else ""
                if f is None or len(name.path) > 1:
                    raise self._no_column(".".join(name.path), target.name if target else "Name", name.at)
                found.append(Leaf(f.name, self._column(sql), f))
            return found

        branches = []
        for kind, fields in item.when:
            target = self.context.sobject(kind.path[0])
            if target is None or target.name not in lookup.reference_to:
                raise self._at("INVALID_TYPE", kind.at, f"{'.'.join(kind.path)} is not a type of {lookup.relationship}")
            alias = f"{self.prefix}t{len(self.from_)}"
            self.from_.append(f'LEFT JOIN {target.relation} {alias} ON {alias}."Id" = {self.base}."{lookup.name}"')
            branches.append((target.prefix, target.name, leaves(fields, alias, target)))
        otherwise = None
        if item.otherwise is not None:
            alias = f"{self.prefix}t{len(self.from_)}"
            self.from_.append(f'LEFT JOIN {self._name_object(lookup)} {alias} ON {alias}."Id" = {self.base}."{lookup.name}"')
            otherwise = leaves(item.otherwise, alias, None)
        return Typed(lookup.relationship or lookup.name, column, branches, otherwise)

    def _child(self, tree: Select) -> Child:
        relation = self.sobject.child(tree.sobject)
        target = self.context.sobject(relation["childSObject"]) if relation else None
        if relation is None or target is None:
            raise self._at(
                "INVALID_TYPE", tree.at,
                f"Didn't understand relationship '{tree.sobject}' in FROM part of query call. If you are attempting to use a custom "
                f"relationship, be sure to append the '__r' after the custom relationship name. {_APPEND_C}",
            )  # fmt: skip
        child = self._inner(tree, target)
        child.columns += [f'{child.base}."Id" AS _id', f'{child.base}."{relation["field"]}" AS _parent']
        nodes = child._nodes()
        order = child._order() or f'ORDER BY {child.base}."Id"'
        limit = f"QUALIFY row_number() OVER (PARTITION BY _parent {order}) <= {tree.limit}" if tree.limit is not None else ""
        rows = f"SELECT {', '.join(child.columns)}, row_number() OVER ({order}) AS _n {child._body()} {limit}"
        record = _json_record(target.name, "_id", nodes, self.context.objects, self.version, "r")
        alias = f"{child.prefix}s"
        self.from_.append(
            f"""LEFT JOIN (SELECT _parent, '{{"totalSize":' || count(*) || ',"done":true,"records":[' """
            f"""|| string_agg({record}, ',' ORDER BY _n) || ']}}' AS result FROM ({rows}) r GROUP BY _parent) {alias} """
            f"""ON {alias}._parent = {self.base}."Id\""""
        )
        return Child(relation["relationshipName"], self._column(f"{alias}.result"))

    def _inner(self, tree: Select, sobject: SObject | None) -> _Query:
        self.inner += 1
        return _Query(
            self.text, tree, self.context, all_rows=self.all_rows, bulk=self.bulk, version=self.version,
            prefix=f"{self.prefix}{'abcdefghijklmnopqr'[self.inner % 18]}", sobject=sobject,
        )  # fmt: skip

    # aggregates

    def _aggregate(self) -> Compiled:
        if self.bulk:
            raise SalesforceError("FEATURE_NOT_ENABLED", "Aggregate Relationships not supported in Bulk Query")
        tree = self.tree
        grouped = {self._operand(item)[0] for item in tree.group_by}
        nodes: list[Node] = []
        unnamed = 0
        for item in tree.items:
            if isinstance(item, (Select, TypeOf)):
                raise self._at("MALFORMED_QUERY", item.at, "a query with GROUP BY takes no subquery and no TYPEOF")
            sql, f = self._operand(item)
            is_aggregate = isinstance(item, Call) and item.name.upper() in AGGREGATES
            if not is_aggregate and sql not in grouped:
                name = ".".join(item.path) if isinstance(item, Name) else item.name
                raise self._at("MALFORMED_QUERY", item.at, f"Field must be grouped or aggregated: {name}")
            alias = item.alias if isinstance(item, Call) else None
            if alias is None and isinstance(item, Call):
                alias, unnamed = f"expr{unnamed}", unnamed + 1
            nodes.append(Leaf(alias or f.name, self._column(sql), f))
        group = f"GROUP BY {', '.join(sorted(grouped))}" if grouped else ""
        having = f"HAVING {self._condition(tree.group_by and tree.having, False)}" if tree.having else ""
        order = self._order()
        limit = f"LIMIT {tree.limit}" if tree.limit is not None else ""
        sql = f"SELECT {', '.join(self.columns)} {self._body()} {group} {having} {order} {limit}"
        return Compiled("aggregate", self.sobject, sql, nodes, tree.limit)

    def _rate(self, alias: str) -> str:
        """Units of the record's currency per unit of the org's base: amounts of several currencies add up only after division."""
        return f'(SELECT x."ConversionRate" FROM "CurrencyType" x WHERE x."IsoCode" = {alias}."CurrencyIsoCode")'

    def _operand(self, item: Name | Call) -> tuple[str, Field]:
        """SQL and type of what stands in SELECT, WHERE, GROUP BY, HAVING or ORDER BY."""
        if isinstance(item, Name):
            sql, f, _ = self._resolve(item)
            return sql, f
        name = item.name.upper()
        if name == "COUNT" and item.argument is None:
            return "count(*)", make_field("expr", "int")
        if not isinstance(item.argument, Name):
            raise self._at("MALFORMED_QUERY", item.at, f"unexpected argument of {item.name}")
        sql, f, path = self._resolve(item.argument)
        if name in _DATE_PARTS:
            if f.type not in {"date", "datetime"}:
                raise self._at("INVALID_FIELD", item.at, f"field {f.name} does not support function {item.name}")
            return _DATE_PARTS[name].format(x=sql), make_field(f.name, "date" if name == "DAY_ONLY" else "int")
        if name not in AGGREGATES:
            raise self._at("MALFORMED_QUERY", item.at, f"Unknown function: {item.name}")
        if name == "COUNT":
            return f"count({sql})", make_field("expr", "int")
        if name == "COUNT_DISTINCT":
            return f"count(DISTINCT {sql})", make_field("expr", "int")
        if name in {"SUM", "AVG"} and f.type not in NUMBER_TYPES:
            raise self._at("INVALID_FIELD", item.at, f"field {f.name} does not support aggregate operator {name}")
        if f.type == "currency" and not path and "CurrencyIsoCode" in self.sobject.fields:
            # Amounts of a multi-currency org are aggregated in the org's currency.
            sql = f"({sql} / {self._rate(self.base)} * {self.context.corporate_rate})"
        if name == "AVG":
            return f"avg({sql})::DECIMAL(18,6)", make_field("expr", "double", scale=6)
        if f.type in {"currency", "double", "percent"}:
            return f"{name.lower()}({sql})::DECIMAL(38,2)", make_field("expr", "double")
        return f"{name.lower()}({sql})", f

    # FROM to the end

    def _tail(self) -> str:
        tree, body = self.tree, self._body()
        # Without ORDER BY the order is the database's: by id over REST, any over Bulk. Tables are in the order of their ids
        # already, which only a join may disturb.
        order = self._order() or ("" if self.bulk or len(self.from_) == 1 else f'ORDER BY {self.base}."{self.sobject.key}"')
        limit = f"LIMIT {tree.limit}" if tree.limit is not None else ""
        offset = f"OFFSET {tree.offset}" if tree.offset is not None else ""
        return f"{body} {order} {limit} {offset}"

    def _body(self) -> str:
        conditions = []
        if not self.all_rows:
            conditions += [f'NOT {self.base}."{name}"' for name in ("IsDeleted", "IsArchived") if name in self.sobject.fields]
        if self.sobject.name in self.context.sharing:
            conditions.append(self.context.sharing[self.sobject.name].replace("{t}", self.base))
        if self.tree.where is not None:
            conditions.append(self._condition(self.tree.where, False))
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"FROM {' '.join(self.from_)} {where}"

    def _order(self) -> str:
        keys = []
        for order in self.tree.order_by:
            sql, f = self._operand(order.by)
            if not f.definition["sortable"]:
                raise self._at("INVALID_FIELD", order.by.at, f"field '{f.name}' can not be sorted in a query call")
            key = f"lower({sql})" if f.is_text else sql
            keys.append(f"{key} {'DESC' if order.descending else 'ASC'} NULLS {'LAST' if order.nulls_last else 'FIRST'}")
        return f"ORDER BY {', '.join(keys)}" if keys else ""

    # WHERE

    def _condition(self, node: Any, negated: bool) -> str:
        if isinstance(node, Logic):
            if node.operator == "NOT":
                return f"NOT {self._condition(node.parts[0], True)}"
            return "(" + f" {node.operator} ".join(self._condition(part, negated) for part in node.parts) + ")"
        sql = self._comparison(node)
        return f"coalesce({sql}, false)" if negated else f"({sql})"

    def _comparison(self, c: Comparison) -> str:
        sql, f = self._operand(c.left)
        if not f.definition["filterable"]:
            raise self._at("INVALID_FIELD", c.left.at, f"field '{f.name}' can not be filtered in a query call")
        if isinstance(c.right, Select):
            return self._semi_join(c, c.right, sql, f)
        if isinstance(c.right, list):
            return self._in_list(c, c.right, sql, f)
        return self._compare(c.operator, sql, f, c.right, c.left.at)

    def _semi_join(self, c: Comparison, tree: Select, sql: str, f: Field) -> str:
        inner = self._inner(tree, None)
        item = tree.items[0]
        if len(tree.items) != 1 or not isinstance(item, Name) or not f.is_id:
            raise self._at("MALFORMED_QUERY", c.left.at, "a semi-join takes an ID field and a subquery of one ID field")
        column, inner_field, _ = inner._resolve(item)
        if not inner_field.is_id:
            raise self._at("INVALID_FIELD", item.at, f"The inner select field '{inner_field.name}' must be an ID field")
        found = f"{sql} IN (SELECT id FROM (SELECT {column} AS id {inner._body()}) WHERE id IS NOT NULL)"
        return found if c.operator == "IN" else f"NOT coalesce({found}, false)"

    def _in_list(self, c: Comparison, values: list[Literal], sql: str, f: Field) -> str:
        if c.operator in {"INCLUDES", "EXCLUDES"}:
            if f.type != "multipicklist":
                raise self._at("INVALID_FIELD", c.left.at, f"field {f.name} does not support {c.operator}")
            parts = [
                " AND ".join(
                    f"list_contains(string_split(lower({sql}), ';'), {literal(v.lower())})" for v in str(one.value).split(";")
                )
                for one in values
            ]
            found = " OR ".join(f"({part})" for part in parts)
            return f"({found})" if c.operator == "INCLUDES" else f"NOT coalesce({found}, false)"
        plain = [v for v in values if not isinstance(v.value, Macro) and v.value is not None]
        tests = [self._compare("=", sql, f, v, c.left.at) for v in values if v not in plain]
        if plain:
            key = f"lower({sql})" if f.is_text else sql
            tests.insert(0, f"{key} IN ({', '.join(self._value(f, v, c.left.at) for v in plain)})")
        found = " OR ".join(tests)
        return f"({found})" if c.operator == "IN" else f"NOT coalesce({found}, false)"

    def _compare(self, operator: str, sql: str, f: Field, right: Literal, at: int) -> str:
        if right.value is None:
            if operator not in {"=", "!="}:
                raise self._at("INVALID_FIELD", at, f"invalid operator on null: {operator}")
            return f"{sql} IS {'NOT ' if operator == '!=' else ''}NULL"
        if isinstance(right.value, Macro):
            return self._within_days(operator, sql, f, right.value, at)
        if operator == "LIKE":
            if not f.is_text:
                raise self._at("INVALID_QUERY_FILTER_OPERATOR", at, f"invalid operator on {f.type} field")
            return f"lower({sql}) LIKE {self._value(f, right, at)} ESCAPE '\\'"
        if (f.type == "boolean" and operator not in {"=", "!="}) or (f.is_id and operator not in {"=", "!=", "<", ">", "<=", ">="}):
            raise self._at("INVALID_QUERY_FILTER_OPERATOR", at, f"invalid operator on {f.type} field")
        key = f"lower({sql})" if f.is_text else sql
        if operator == "!=":
            return f"{key} IS DISTINCT FROM {self._value(f, right, at)}"
        return f"{key} {operator} {self._value(f, right, at)}"

    def _value(self, f: Field, right: Literal, at: int) -> str:
        """A literal as SQL of the field's type. Text is compared without regard to case, ids in 18 characters."""
        value = right.value
        wanted: tuple[Callable[[Any], bool], str, str]
        if f.is_id:
            wanted = lambda v: isinstance(v, str), "ID", "enclosed"
        elif f.is_text:
            wanted = lambda v: isinstance(v, str), "string", "enclosed"
        elif f.type == "boolean":
            wanted = lambda v: isinstance(v, bool), "boolean", "bare"
        elif f.type in NUMBER_TYPES:
            wanted = lambda v: isinstance(v, Decimal), "int" if f.type == "int" else "double", "bare"
        elif f.type == "datetime":
            wanted = lambda v: isinstance(v, datetime), "dateTime", "bare"
        else:
            wanted = lambda v: isinstance(v, date) and not isinstance(v, datetime), "date", "bare"
        fits, kind, quoting = wanted
        if not fits(value):
            how = "should be enclosed in quotes" if quoting == "enclosed" else "should not be enclosed in quotes"
            raise self._at("INVALID_FIELD", at, f"value of filter criterion for field '{f.name}' must be of type {kind} and {how}")
        if f.is_id:
            if value and to_18(value) is None:
                raise self._at("INVALID_QUERY_FILTER_OPERATOR", at, f"invalid ID field: {value}")
            return literal(to_18(value) if value else "")
        return literal(value.lower() if isinstance(value, str) else value)

    def _within_days(self, operator: str, sql: str, f: Field, macro: Macro, at: int) -> str:
        days = day_range(macro.name, macro.n, self.context.today, self.context.fiscal_month)
        if days is None:
            raise self._at("MALFORMED_QUERY", macro.at, "Bind variables only allowed in Apex code")
        if f.type not in {"date", "datetime"}:
            raise self._at("INVALID_FIELD", at, f"date literal {macro.name} can not be compared with field '{f.name}'")
        ends: list[Any] = list(days)
        if f.type == "datetime":
            ends = [datetime.combine(day, time(), self.context.zone) for day in days]
        start, end = (literal(e) for e in ends)
        tests = {
            "=": f"{sql} >= {start} AND {sql} < {end}",
            "!=": f"NOT coalesce({sql} >= {start} AND {sql} < {end}, false)",
            "<": f"{sql} < {start}",
            "<=": f"{sql} < {end}",
            ">": f"{sql} >= {end}",
            ">=": f"{sql} >= {start}",
        }
        if operator not in tests:
            raise self._at("INVALID_QUERY_FILTER_OPERATOR", at, f"invalid operator on {f.type} field")
        return tests[operator]
