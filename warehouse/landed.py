"""Landed files as relations: every object of a pull becomes the temporary table `landed` with one row per record.

    id            the record's key in its CRM
    parent_id     id of the deal that the record belongs to; NULL where it belongs to none
    payload       JSON: the record's fields as text, sorted by name, empty ones left out
    modified_at   the CRM's own stamp
    is_deleted, deleted_at

The payload of a record does not depend on how it travelled: REST delivers typed JSON, Bulk delivers text, and both become
the same bytes here (numbers without trailing zeros, instants ending in Z, parents as `Account.Name`). docs/landing.md has the details.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from warehouse.errors import LandingError

FORMAT = 1
READING = '"of reading"'  # a column that no CRM can name so
NUMBERS = {"double", "currency", "percent", "int", "long"}
# Objects of the CRMs by the way their lines are shaped; what is not named here is a flat record.
RECORD, CRM_OBJECT, DOCUMENT, HISTORY, ASSOCIATIONS, DELETIONS = "record", "crm_object", "document", "history", "associations", "deletions"
# Objects that are about records of another one: some of their fields, or the ids of all that are there.
FIELDS, IDS = "fields", "ids"


@dataclass(frozen=True)
class Shape:
    """How an object is read. table: of schema raw; parent: the field that holds the deal's id. only_of: how the parents' ids begin: what
    belongs to something else is left aside, unless it belonged to a deal before."""

    table: str
    reader: str = RECORD
    parent: str | None = None
    only_of: str = ""


DEAL = "006"  # the key prefix of opportunities, in every org
CHILDREN = {
    "OpportunityContactRole": "salesforce_opportunity_contact_role", "Task": "salesforce_task", "Event": "salesforce_event",
    "Account": "salesforce_account",
}  # fmt: skip
SHAPES: dict[str, dict[str, Shape]] = {
    "salesforce": {
        "Opportunity.deleted": Shape("salesforce_opportunity", DELETIONS),
        "Opportunity.ids": Shape("salesforce_opportunity", IDS),
        "Opportunity.fields": Shape("salesforce_opportunity", FIELDS),
        "Opportunity.gone": Shape("salesforce_opportunity", DELETIONS),
        "OpportunityHistory": Shape("salesforce_opportunity_history", parent="OpportunityId"),
        "OpportunityFieldHistory": Shape("salesforce_opportunity_field_history", parent="OpportunityId"),
        "OpportunityContactRole": Shape("salesforce_opportunity_contact_role", parent="OpportunityId"),
        "Task": Shape("salesforce_task", parent="WhatId", only_of=DEAL),
        "Event": Shape("salesforce_event", parent="WhatId", only_of=DEAL),
        **{f"{name}.deleted": Shape(table, DELETIONS) for name, table in CHILDREN.items()},
        **{f"{name}.ids": Shape(table, IDS) for name, table in CHILDREN.items()},
    },
    "hubspot": {
        "deals": Shape("hubspot_deal", CRM_OBJECT),
        "deals.archived": Shape("hubspot_deal", CRM_OBJECT),
        "deals.gone": Shape("hubspot_deal", DELETIONS),
        "deals.ids": Shape("hubspot_deal_ids", CRM_OBJECT),
        "deals.history": Shape("hubspot_deal_history", HISTORY),
        "deals.associations": Shape("hubspot_deal_association", ASSOCIATIONS),
        "companies": Shape("hubspot_company", CRM_OBJECT),
        "companies.archived": Shape("hubspot_company", CRM_OBJECT),
        "companies.gone": Shape("hubspot_company", DELETIONS),
        "contacts": Shape("hubspot_contact", CRM_OBJECT),
        "owners": Shape("hubspot_owner", DOCUMENT),
        "pipelines": Shape("hubspot_pipeline", DOCUMENT),
        "properties": Shape("hubspot_property", DOCUMENT),
        "account": Shape("hubspot_account", DOCUMENT),
        "exchange_rates": Shape("hubspot_exchange_rate", DOCUMENT),
    },
}


@dataclass(frozen=True)
class LandedObject:
    """One object of a pull: its manifest, read."""

    directory: Path
    crm: str
    name: str
    key: str
    mode: str
    complete: bool
    watermark: datetime | None
    files: tuple[dict[str, Any], ...]
    fields: tuple[dict[str, Any], ...]
    calls: int
    notice: str | None

    @property
    def shape(self) -> Shape:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", self.name).lower()
        shapes = SHAPES.get(self.crm, {})
        return shapes.get(self.name) or shapes.get(re.sub(r"\.fields\.\d+$", ".fields", self.name)) or Shape(f"{self.crm}_{words}")

    def is_fields_of(self, name: str) -> bool:
        """Whether it holds partial records of the object `name`: X.fields, or X.fields.2 and so on where they are in several parts."""
        return self.shape.reader == FIELDS and self.name.startswith(f"{name}.fields")

    @property
    def rows(self) -> int:
        return sum(int(f["rows"]) for f in self.files)

    @property
    def bytes(self) -> int:
        return sum(int(f["bytes"]) for f in self.files)

    @property
    def refused(self) -> bool:
        """Whether the CRM would not let us read it at all, as opposed to having nothing to say."""
        return self.notice is not None and not self.files and not self.fields


@dataclass(frozen=True)
class LandedPull:
    """One finished pull, read. org: what the CRM says of its own organisation."""

    directory: Path
    source: str
    crm: str
    run_id: str
    full: bool
    org: Mapping[str, Any] = field(default_factory=dict)
    objects: tuple[LandedObject, ...] = ()

    def object(self, name: str) -> LandedObject | None:
        return next((o for o in self.objects if o.name == name), None)

    def tells_deletions(self, name: str) -> bool:
        """Whether the pull says of the object which of its records went, beside the records themselves."""
        return any(o.files for o in self.objects if o.name in (f"{name}.deleted", f"{name}.ids", f"{name}.gone"))


def read_pull(directory: Path) -> LandedPull:
    """Read the manifests of a pull. Raises LandingError for a pull that is unfinished or of a later format."""
    pull = _read_json(directory / "pull.json", "has no pull.json: the pull did not finish.")
    objects = []
    for name in pull["objects"]:
        m = _read_json(directory / name / "manifest.json", f"has no manifest for {name}.")
        objects.append(
            LandedObject(
                directory=directory / name,
                crm=m["crm"],
                name=m["object"],
                key=m["key"],
                mode=m["mode"],
                complete=bool(m["complete"]),
                watermark=datetime.fromisoformat(m["watermark"]) if m.get("watermark") else None,
                files=tuple(f for f in m["files"] if f["rows"] or f["format"] == "csv"),
                fields=tuple(m.get("fields") or ()),
                calls=int(m.get("calls") or 0),
                notice=m.get("notice"),
            )
        )
    return LandedPull(directory, pull["source"], pull["crm"], pull["run_id"], bool(pull["full"]), pull.get("org") or {}, tuple(objects))


def stage(con: duckdb.DuckDBPyConnection, obj: LandedObject, keep: Iterable[str] = (), source: str = "") -> set[str]:
    """Fill the temporary table `landed` from the object's files. Returns the names of the fields seen in the files.

    keep: fields that the CRM was not asked for, or would not give: each record gets the value that raw holds of `source`.
    Raises LandingError when the files do not hold the rows that the manifest counts: a load of half a file would delete deals.
    """
    kept = _Kept(source, obj.shape.table, tuple(keep))
    readers: dict[str, Callable[[duckdb.DuckDBPyConnection, LandedObject], set[str]]] = {
        RECORD: partial(_records, kept=kept), FIELDS: partial(_records, empty=True), IDS: _records,
        CRM_OBJECT: partial(_crm_objects, kept=kept), DOCUMENT: _documents, HISTORY: _history, ASSOCIATIONS: _associations, DELETIONS: _deletions,
    }  # fmt: skip
    try:
        names = readers[obj.shape.reader](con, obj)
    except (duckdb.InvalidInputException, duckdb.IOException, duckdb.ConversionException) as error:
        raise LandingError(
            f"the landed files of {obj.name} cannot be read: {str(error).splitlines()[0][:200]}",
            path=obj.directory,
            fix="Run the sync again: it fetches them anew.",
        ) from error
    return names


# ---- readers -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kept:
    """Fields whose values stay what raw.`table` holds of `source`."""

    source: str
    table: str
    names: tuple[str, ...]

    def value(self, name: str) -> str:
        return f"before.payload ->> {_literal(_path(name))}"

    def join(self, key: str) -> str:
        return f"left join raw.{self.table} before on before.source = {_literal(self.source)} and before.id = {key}"


def _records(con: duckdb.DuckDBPyConnection, obj: LandedObject, *, kept: _Kept | None = None, empty: bool = False) -> set[str]:
    """Flat records: CSV, or JSON with typed values and parents as nested objects. empty: empty values are in the payload, as null."""
    parts: list[str] = []
    expressions: dict[str, None] = {}
    again = len({_reading(f) for f in obj.files}) > 1
    for source, columns, reading in _flat_sources(con, obj):
        expressions.update(dict.fromkeys(columns))
        inner = ", ".join(f"{expression} as {_name(name)}" for name, expression in sorted(columns.items()))
        parts.append(f"select {inner}{f', {reading} as {READING}' if again else ''} from {source}")
    if not parts:
        return _nothing(con)
    types = {f["name"]: str(f.get("type") or "").lower() for f in obj.fields}
    types |= {name: "number" for name in expressions if types.get(name) in NUMBERS}
    plain = {name: _plain(name, types.get(name, "")) for name in expressions}
    before = ""
    if kept and (names := [name for name in kept.names if name not in expressions]):
        plain |= {name: kept.value(name) for name in names}
        before = kept.join(f"record.{_name(obj.key)}")
    values = f"to_json({{{', '.join(f'{_literal(name)}: {plain[name]}' for name in sorted(plain))}}})"
    shape = obj.shape

    def column(name: str | None, otherwise: str) -> str:
        return f"record.{_name(name)}" if name in expressions else otherwise

    deleted = f"coalesce(try_cast({column('IsDeleted', 'NULL')} as boolean), false)"
    modified = f"try_cast({column('SystemModstamp', column('LastModifiedDate', column('CreatedDate', 'NULL')))} as timestamptz)"
    con.execute(f"""
        create or replace temp table landed as
        select record.{_name(obj.key)} as id, {column(shape.parent, 'NULL::varchar')} as parent_id,
               {values if empty else f"json_merge_patch('{{}}', {values})"} as payload,
               {modified} as modified_at, {deleted} as is_deleted, if({deleted}, {modified}, NULL) as deleted_at{f', {READING}' if again else ''}
        from ({' union all by name '.join(parts)}) record {before}
        where record.{_name(obj.key)} is not null
    """)
    _check_rows(con, obj)
    if shape.only_of and kept:
        con.execute(
            f"delete from landed where not coalesce(starts_with(parent_id, $1), false) "
            f"and id not in (select id from raw.{kept.table} where source = $2)",
            [shape.only_of, kept.source],
        )
    _newest_only(con, READING if again else "0")
    if again:
        con.execute(f"alter table landed drop column {READING}")
    return set(expressions)


def _reading(file: Mapping[str, Any]) -> int:
    """Which reading of the object a file is of: records of one stamp are as the last reading had them."""
    return int(file.get("reading") or 0)


def _flat_sources(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> Iterable[tuple[str, dict[str, str], int]]:
    """(relation, name → expression, reading) per group of files of one form and reading. All values are text; parents are flattened
    to `Parent.Field`."""
    headers: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    arrays: dict[tuple[int, str], list[str]] = {}
    for f in obj.files:
        if f["format"] != "csv":
            arrays.setdefault((_reading(f), f["format"]), []).append(f["name"])
        elif f["rows"]:
            headers.setdefault((_reading(f), tuple(f["columns"])), []).append(f["name"])
    for (reading, header), names in headers.items():
        columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in header)
        source = (
            f"read_csv({_files(obj, names)}, header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
            f"max_line_size = 4194304, columns = {{{columns}}})"
        )
        yield source, {name: _name(name) for name in header}, reading
    for (reading, form), names in arrays.items():
        yield *_json_source(con, obj, names, form), reading


def _json_source(con: duckdb.DuckDBPyConnection, obj: LandedObject, names: list[str], form: str) -> tuple[str, dict[str, str]]:
    read = f"({_files(obj, names)}, format = '{'array' if form == 'json_array' else 'newline_delimited'}'"
    kinds = con.execute(f"""
        select key, bool_or(type = 'OBJECT') as is_parent
        from read_json_objects{read}) as record, json_each(record.json)
        group by key order by key
    """).fetchall()
    columns = ", ".join(f"{_literal(key)}: '{'JSON' if parent else 'VARCHAR'}'" for key, parent in kinds if key != "attributes")
    source = f"read_json{read}, columns = {{{columns}}})"
    expressions: dict[str, str] = {}
    for key, is_parent in kinds:
        if key == "attributes":
            continue
        if not is_parent:
            expressions[key] = _name(key)
            continue
        fields = con.execute(f"select distinct unnest(json_keys({_name(key)})) as field from {source} order by field").fetchall()
        for (name,) in fields:
            if name != "attributes":
                expressions[f"{key}.{name}"] = f"{_name(key)} ->> {_literal(_path(name))}"
    return source, expressions


def _crm_objects(con: duckdb.DuckDBPyConnection, obj: LandedObject, *, kept: _Kept) -> set[str]:
    """HubSpot objects: `properties` is the record, everything in it is text or null."""
    if not obj.files:
        return _nothing(con)
    source = _lines(
        obj, id="VARCHAR", properties="JSON", updatedAt="VARCHAR", archived="BOOLEAN", archivedAt="VARCHAR", associations="JSON"
    )
    names = [row[0] for row in con.execute(f"select distinct unnest(json_keys(properties)) as name from {source} order by name").fetchall()]
    told = f"json_transform(record.properties, {_literal(json.dumps(dict.fromkeys(names, 'VARCHAR')))})" if names else "'{}'::json"
    payload, before = f"json_merge_patch('{{}}', to_json({told}))", ""
    if names and (missing := [name for name in kept.names if name not in names]):
        values = {name: f"told.{_name(name)}" for name in names} | {name: kept.value(name) for name in missing}
        fields = ", ".join(f"{_literal(name)}: {values[name]}" for name in sorted(values))
        payload = f"json_merge_patch('{{}}', to_json({{{fields}}}))"
        before = f"cross join lateral (select {told} as told) {kept.join('record.id')}"
    archived = "true" if obj.name.endswith(".archived") else "coalesce(record.archived, false)"
    con.execute(f"""
        create or replace temp table landed as
        select record.id, NULL::varchar as parent_id, {payload} as payload,
               coalesce(try_cast(record.properties ->> '$.hs_lastmodifieddate' as timestamptz), try_cast(record.updatedAt as timestamptz))
                   as modified_at,
               {archived} as is_deleted, if({archived}, try_cast(record.archivedAt as timestamptz), NULL) as deleted_at,
               record.associations
        from {source} record {before}
        where record.id is not null
    """)
    _check_rows(con, obj)
    _newest_only(con)
    return set(names)


def _documents(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> set[str]:
    """Small nested documents (owners, pipelines, property definitions), kept as delivered."""
    if not obj.files:
        return _nothing(con)
    key = _literal(_path(obj.key))
    con.execute(f"""
        create or replace temp table landed as
        select json ->> {key} as id, NULL::varchar as parent_id, json as payload,
               try_cast(json ->> '$.updatedAt' as timestamptz) as modified_at,
               coalesce(try_cast(json ->> '$.archived' as boolean), false) as is_deleted,
               try_cast(json ->> '$.archivedAt' as timestamptz) as deleted_at
        from read_json_objects({_files(obj)}, format = 'newline_delimited')
        where json ->> {key} is not null
    """)
    _newest_only(con)
    return set()


def _history(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> set[str]:
    """HubSpot property histories, one row per value that a property ever had.

    HubSpot keeps a bounded number of values per property, so rows are only ever added here: what it forgets we keep.
    """
    if not obj.files:
        return _nothing(con)
    entry = (
        "STRUCT(value VARCHAR, timestamp VARCHAR, sourceType VARCHAR, sourceId VARCHAR, sourceLabel VARCHAR, updatedByUserId VARCHAR)[]"
    )
    con.execute(f"""
        create or replace temp table landed as
        with lines as (
            from {_lines(obj, id="VARCHAR", propertiesWithHistory=f"MAP(VARCHAR, {entry})")}
        ),
        properties as (
            select id as deal_id, unnest(map_entries(propertiesWithHistory)) as property from lines
        ),
        entries as (
            select deal_id, property.key as property, unnest(property.value) as entry, generate_subscripts(property.value, 1) as place
            from properties
        )
        select concat_ws('|', deal_id, property, entry.timestamp) as id, deal_id as parent_id,
               json_merge_patch('{{}}', to_json({{'property': property, 'sourceId': entry.sourceId, 'sourceLabel': entry.sourceLabel,
                   'sourceType': entry.sourceType, 'timestamp': entry.timestamp, 'updatedByUserId': entry.updatedByUserId,
                   'value': entry.value}})) as payload,
               coalesce(try_cast(entry.timestamp as timestamptz),  -- or milliseconds since 1970, as older answers have it
                        try(epoch_ms(try_cast(entry.timestamp as bigint)) at time zone 'UTC')) as modified_at,
               false as is_deleted, NULL::timestamptz as deleted_at, place
        from entries
        where entry.timestamp is not null
    """)
    doubles = con.execute("select count(*) - count(distinct id) from landed").fetchone()
    if doubles and doubles[0]:
        _number_values(con)
    con.execute("alter table landed drop column place")
    return set()


def _number_values(con: duckdb.DuckDBPyConnection) -> None:
    """Values that a property took at one instant: the last one has the plain id, those before it |1, |2 and so on behind it. So an id stays
    what it is when HubSpot forgets the oldest of them. HubSpot gives the newest first (`place`). A value that came twice is there once."""
    con.execute("""
        create or replace temp table landed as
        with shared as (
            select id from landed group by id having count(*) > 1
        ),
        several as (
            select id, parent_id, payload::varchar as payload, modified_at, is_deleted, deleted_at, min(place) as place
            from landed semi join shared using (id)
            group by all
        )
        from landed anti join shared using (id)
        union all by name
        select * replace (
            concat_ws('|', id, nullif(row_number() over (partition by id order by place, payload) - 1, 0)) as id, payload::json as payload)
        from several
    """)


def _associations(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> set[str]:
    """Contacts and companies of deals, from lines of their own. The payload is as `associations_of_deals` makes it."""
    if not obj.files:
        return _nothing(con)
    con.execute(f"""
        create or replace temp table landed as
        with lines as (
            from {_lines(obj, id="VARCHAR", contacts="JSON[]", companies="JSON[]")}
        ),
        plain as (
            select id, [coalesce(c ->> '$.id', c ->> '$') for c in contacts] as contacts,
                   -- Ids alone come from pulls that read no labels.
                   if(list_bool_and([(c -> '$.labels') is not null for c in contacts]) is not false and contacts is not null,
                      [{{'id': c ->> '$.id', 'role': array_to_string((c -> '$.labels')::varchar[], '; ')}}
                       for c in contacts if json_array_length(c -> '$.labels') > 0], NULL) as labels,
                   [c ->> '$.id' for c in companies if (c ->> '$.primary') = 'true'][:1] as primaries,
                   [coalesce(c ->> '$.id', c ->> '$') for c in companies] as companies
            from lines
        )
        select id, id as parent_id, {ASSOCIATION_PAYLOAD} as payload, NULL::timestamptz as modified_at, false as is_deleted,
               NULL::timestamptz as deleted_at
        from plain
        where id is not null
    """)
    _newest_only(con)
    return set()


# Contacts in the order of their ids, the primary company first, ids joined by ;. Labels are a list, which json_merge_patch replaces whole.
# A kind that could not be read is left out: not knowing is not the same as having none.
ASSOCIATION_PAYLOAD = """
    json_merge_patch('{}', to_json({
        'companies': if(companies is null, NULL, array_to_string(
            list_concat(primaries, list_sort([c for c in list_distinct(companies) if not list_contains(primaries, c)])), ';')),
        'contacts': array_to_string(list_sort(list_distinct(contacts)), ';'),
        'labels': list_sort(list_distinct(labels))
    }))
"""


def associations_of_deals(con: duckdb.DuckDBPyConnection) -> None:
    """Make `landed` the associations that came inside the deals of `landed`, for a listing that was asked for them.

    A deal without contacts and companies has no `associations` at all in HubSpot's answer. Where no deal has any, the answer may
    as well mean that the token may not see them, so nothing is concluded.
    """
    con.execute(f"""
        create or replace temp table landed as
        with deals as (
            select id, coalesce(associations -> '$.contacts.results', '[]')::json[] as contact_rows,
                   coalesce(associations -> '$.companies.results', '[]')::json[] as company_rows
            from landed
            where exists (from landed where json_type(associations) = 'OBJECT')
        ),
        plain as (
            select id, [c ->> '$.id' for c in contact_rows] as contacts,
                   -- That a contact has a label stands here, its text does not: it comes with `deals.associations`.
                   if(list_bool_or([coalesce(c ->> '$.type', '') not in ('deal_to_contact', 'deal_to_contact_unlabeled', '')
                                    for c in contact_rows]), NULL, []::struct(id varchar, role varchar)[]) as labels,
                   list_distinct([c ->> '$.id' for c in company_rows if (c ->> '$.type') = 'deal_to_company'])[:1] as primaries,
                   [c ->> '$.id' for c in company_rows] as companies
            from deals
        )
        select id, id as parent_id, {ASSOCIATION_PAYLOAD} as payload, NULL::timestamptz as modified_at, false as is_deleted,
               NULL::timestamptz as deleted_at
        from plain
    """)


def _deletions(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> set[str]:
    """Ids that the CRM's delete log names, with the instant."""
    if not obj.files:
        return _nothing(con)
    con.execute(f"""
        create or replace temp table landed as
        select id, NULL::varchar as parent_id, NULL::json as payload, NULL::timestamptz as modified_at, true as is_deleted,
               max(try_cast(deletedDate as timestamptz)) as deleted_at
        from read_json({_files(obj)}, format = 'auto', columns = {{'id': 'VARCHAR', 'deletedDate': 'VARCHAR'}})
        where id is not null
        group by id
    """)
    return set()


# ---- parts of SQL -------------------------------------------------------------------------------------------------------------


def _nothing(con: duckdb.DuckDBPyConnection) -> set[str]:
    con.execute("""
        create or replace temp table landed (
            id varchar, parent_id varchar, payload json, modified_at timestamptz, is_deleted boolean, deleted_at timestamptz,
            associations json
        )
    """)
    return set()


def _newest_only(con: duckdb.DuckDBPyConnection, reading: str = "0") -> None:
    """One row per id: pages overlap when records move while they are read. Sorting payloads is dear, so only where there are doubles.
    reading: an expression; of records of one stamp, the one that was read last counts."""
    doubles = con.execute("select count(*) - count(distinct id) from landed").fetchone()
    if doubles and doubles[0]:
        con.execute(f"""
            delete from landed where rowid not in (
                select arg_max(rowid, (coalesce(modified_at, 'epoch'::timestamptz), {reading}, rowid)) from landed group by id
            )
        """)


def _check_rows(con: duckdb.DuckDBPyConnection, obj: LandedObject) -> None:
    found = con.execute("select count(*) from landed").fetchone()
    if found and found[0] < obj.rows:
        raise LandingError(
            f"{obj.name} has {found[0]:,} rows, its manifest says {obj.rows:,}.",
            path=obj.directory,
            fix="Run the sync again: it fetches them anew.",
        )


def _plain(name: str, kind: str) -> str:
    """The text of a value of `record`, the same however it was delivered."""
    value = f"record.{_name(name)}"
    if kind == "number":
        # 1200.0 and 1.2E3 are both 1200. Casting is dear (20 µs for a wide decimal), so only exponents are cast.
        exact = f"rtrim(rtrim(try_cast({value} as decimal(38, 12))::varchar, '0'), '.')"
        plain = f"if(contains({value}, '.'), rtrim(rtrim({value}, '0'), '.'), {value})"
        return f"if(contains(lower({value}), 'e'), coalesce({exact}, {value}), {plain})"
    if kind == "datetime":
        return f"replace({value}, '+0000', 'Z')"
    return f"replace({value}, chr(13) || chr(10), chr(10))"


def _lines(obj: LandedObject, **columns: str) -> str:
    types = ", ".join(f"{_literal(name)}: {_literal(kind)}" for name, kind in columns.items())
    return f"read_json({_files(obj)}, format = 'newline_delimited', maximum_object_size = 33554432, columns = {{{types}}})"


def _files(obj: LandedObject, names: Iterable[str] | None = None) -> str:
    chosen = [f["name"] for f in obj.files] if names is None else list(names)
    return "[" + ", ".join(_literal(str(obj.directory / name)) for name in chosen) + "]"


def _path(key: str) -> str:
    return '$."' + key.replace('"', '\\"') + '"'


def _name(name: str | None) -> str:
    return '"' + str(name).replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise LandingError(missing, path=path.parent, fix="Run the sync again.") from None
    except ValueError:
        raise LandingError("is not JSON.", path=path, fix="Run the sync again.") from None
    if document.get("format") != FORMAT:
        raise LandingError(
            f"has format {document.get('format')}, this Plumbline reads {FORMAT}.", path=path, fix="Run the sync again with this Plumbline."
        )
    return document
