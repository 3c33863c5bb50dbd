"""Writing records: validation, derived fields, history, in one transaction per batch, set-based whatever the batch's size.

A batch is staged as text in a table `_stage`, checked into `_error`, worked out into `_new` beside `_old`, and then written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from connectors.simulator.salesforce import effects
from connectors.simulator.salesforce.catalogue import Field, SObject
from connectors.simulator.salesforce.compile import literal
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.ids import FIRST_NUMBER, make_id, sql_id, to_18

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

T = TypeVar("T")
Error = tuple[str, str, list[str]]  # statusCode, message, fields
NO_ACCESS = ("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id")


@dataclass(frozen=True)
class CsvRows:
    """Rows as an uploaded CSV: an empty cell leaves the field as it is, #N/A clears it."""

    path: Path
    columns: list[str]
    delimiter: str = ","


@dataclass(frozen=True)
class Batch:
    """What is to be done: insert, update, upsert (by the field `key`), delete, undelete or hardDelete, by the user `by`."""

    operation: str
    sobject: SObject
    rows: Sequence[Mapping[str, Any]] | CsvRows
    by: str
    key: str | None = None
    all_or_none: bool = False
    request: tuple[str, str] = ("", "")  # method and path, which late_commit faults look at

    @property
    def by_api(self) -> bool:
        """Whether it came by the API, whose user has rights of its own; people may do everything."""
        return bool(self.request[1])


@dataclass
class Outcome:
    """What became of one row."""

    id: str | None
    created: bool = False
    errors: list[Error] = field(default_factory=list)


# Lookups through which a write locks the parent too.
LOCKING = {"AccountId", "ContactId", "OpportunityId", "WhatId"}
# object -> (child object, its lookup): what goes into the recycle bin with a record.
CASCADES: dict[str, list[tuple[str, str]]] = {
    "Account": [("Contact", "AccountId"), ("Opportunity", "AccountId"), ("Task", "WhatId"), ("Event", "WhatId")],
    "Contact": [("OpportunityContactRole", "ContactId")],
    "Opportunity": [
        ("OpportunityContactRole", "OpportunityId"), ("Task", "WhatId"), ("Event", "WhatId"),
        ("OpportunityHistory", "OpportunityId"), ("OpportunityFieldHistory", "OpportunityId"),
    ],
}  # fmt: skip


# What a merge of accounts moves to the master.
MERGED = [
    ("Contact", "AccountId"), ("Opportunity", "AccountId"), ("Task", "AccountId"), ("Event", "AccountId"),
    ("Task", "WhatId"), ("Event", "WhatId"), ("Account", "ParentId"),
]  # fmt: skip


class Writer:
    """All writing of one org. One write at a time."""

    def __init__(self, org: SalesforceOrg) -> None:
        self.org = org
        self.con = org.con.cursor()
        self.con.execute("CREATE TEMP TABLE _error (rn BIGINT, code VARCHAR, message VARCHAR, fields VARCHAR[])")

    def write(self, batch: Batch) -> list[Outcome]:
        """Do the batch and give the outcomes in the order of its rows."""
        return self.run(batch, _outcomes)

    def run(self, batch: Batch, harvest: Callable[[Run], T]) -> T:
        """Do the batch; `harvest` reads the outcome from `_stage`, `_result` and `_error` before the transaction ends."""
        with self.org.lock:
            self.org.settle()
            late = self.org.faults.late_commit(*batch.request)
            run = Run(self.org, self, batch, self.org.now())
            if late is None:
                return self._transaction(run, harvest, commit=True)
            # Stamped and answered now, visible to others only when it commits: done once for the answer, once more then.
            answer, touched, parents = self._transaction(run, run.rehearsed(harvest), commit=False)
            self.org.commit_later(late, run.instant, lambda: self._transaction(run, lambda _: None, commit=True), touched, parents)
            return answer

    def _transaction(self, run: Run, harvest: Callable[[Run], T], *, commit: bool) -> T:
        self.con.execute("BEGIN")
        try:
            run.perform()
            answer = harvest(run)
            self.con.execute("COMMIT" if commit else "ROLLBACK")
            return answer
        except BaseException:
            self.con.execute("ROLLBACK")
            raise

    def merge_accounts(self, master: str, losers: list[str], by: str) -> None:
        """See SalesforceOrg.merge_accounts. Raises when an account is not there or deleted."""
        with self.org.lock:
            self.org.settle()
            late, instant = self.org.faults.late_commit(), self.org.now()
            alive = self.con.execute(
                'SELECT "Id" FROM "Account" WHERE NOT "IsDeleted" AND "Id" IN (SELECT unnest(?::VARCHAR[]))', [[master, *losers]]
            ).fetchall()
            if missing := {master, *losers} - {row[0] for row in alive}:
                raise SalesforceError("ENTITY_IS_DELETED", f"entity is deleted: {', '.join(sorted(missing))}")
            if master in losers:
                raise SalesforceError("INVALID_CROSS_REFERENCE_KEY", "an account cannot be merged with itself")
            children = {
                row[0]
                for child, lookup in MERGED
                for row in self.con.execute(
                    f'SELECT "Id" FROM "{child}" WHERE "{lookup}" IN (SELECT unnest(?::VARCHAR[]))', [losers]
                ).fetchall()
            }
            touched = {master, *losers} | children
            if held := (touched & self.org.held()) | (set(losers) & self.org.referred()):
                raise SalesforceError("UNABLE_TO_LOCK_ROW", f"unable to obtain exclusive access to this record or 1 records: {min(held)}")
            if late is None:
                self._merge(master, losers, by, instant)
            else:
                self.org.commit_later(late, instant, lambda: self._merge(master, losers, by, instant), touched)

    def _merge(self, master: str, losers: list[str], by: str, instant: datetime) -> None:
        stamp = literal(instant)
        modified = f'"SystemModstamp" = {stamp}, "LastModifiedDate" = {stamp}, "LastModifiedById" = {literal(by)}'
        lost = f"({', '.join(map(literal, losers))})"
        self.con.execute("BEGIN")
        for child, lookup in MERGED:
            self.con.execute(f'UPDATE "{child}" SET "{lookup}" = {literal(master)}, {modified} WHERE "{lookup}" IN {lost}')
        self.con.execute(
            f'UPDATE "Account" SET "IsDeleted" = true, "MasterRecordId" = {literal(master)}, {modified} WHERE "Id" IN {lost}'
        )
        self.con.execute(f'UPDATE "Account" SET {modified} WHERE "Id" = {literal(master)}')
        self.con.execute(f"INSERT INTO simulator.deletion SELECT 'Account', unnest(?::VARCHAR[]), {stamp}", [losers])
        self.con.execute("COMMIT")


def _outcomes(run: Run) -> list[Outcome]:
    outcomes = [Outcome(id, created) for id, created in run.fetch("SELECT id, created FROM _result ORDER BY rn")]
    for rn, code, message, fields in run.fetch("SELECT rn, code, message, fields FROM _error ORDER BY rn"):
        outcomes[rn].errors.append((code, message, fields or []))
    return outcomes


def as_text(value: Any) -> str | None:
    """A value as the API's JSON or CSV would carry it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat() + "+00:00"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, (dict, list)):
        raise SalesforceError("JSON_PARSER_ERROR", "Cannot deserialize a nested value of a field")
    return str(value)


class Run:
    """One batch being done."""

    def __init__(self, org: SalesforceOrg, writer: Writer, batch: Batch, instant: datetime) -> None:
        self.org, self.con, self.batch, self.instant = org, writer.con, batch, instant
        self.sobject = batch.sobject
        self.context = org.context()
        self.stamp, self.by = literal(instant), literal(batch.by)
        self.size = self._count()
        self.inserting = False
        self.number_base = FIRST_NUMBER
        # Reserved before the transaction: a late commit must give the ids that were answered.
        self.first_number = org.take_numbers(self.sobject.name, self.size) if batch.operation in {"insert", "upsert"} else 0
        self.first_history = org.take_numbers("OpportunityHistory", self.size) if self.sobject.name == "Opportunity" else 0
        self.fields: dict[str, Field] = {}
        self.flags: dict[str, str] = {}
        self._columns: list[str] = []
        self._refused: list[tuple[Any, ...]] = []

    def rehearsed(self, harvest: Callable[[Run], T]) -> Callable[[Run], tuple[T, set[str], set[str]]]:
        """A harvest of what the batch answers and which records and parents it locks. What is refused now stays refused when the
        batch is performed again, whoever has let go of his locks by then."""

        def work(run: Run) -> tuple[T, set[str], set[str]]:
            self._refused = run.fetch("SELECT rn, code, message, fields FROM _error")
            return harvest(run), run.touched(), run.parents()

        return work

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self.con.execute(statement, list(parameters))

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        return self.con.execute(query).fetchall()

    def csv_relation(self) -> str:
        """The uploaded rows as SQL relation, as they came."""
        if not isinstance(self.batch.rows, CsvRows):
            raise TypeError("the batch was not uploaded as CSV")
        return _read_csv(self.batch.rows)

    def copy_lines(self, path: Path, header: str, lines: str) -> None:
        """Write a header and the lines that a query gives to a file, as they are."""
        self.sql(
            f"COPY (SELECT {literal(header)} UNION ALL FROM ({lines})) TO {literal(path)} "
            "(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
        )

    def is_set(self, name: str) -> str:
        """SQL over s, true where the row gives a value for the field; false when the batch does not know it."""
        return self.flags.get(name, "false")

    def written(self) -> set[str]:
        """The columns that this run writes."""
        return {*self.fields, *self._columns}

    def _count(self) -> int:
        rows = self.batch.rows
        if isinstance(rows, CsvRows):
            return int(self.con.execute(f"SELECT count(*) FROM {_read_csv(rows)}").fetchall()[0][0])
        return len(rows)

    # --- the steps ---

    def perform(self) -> None:
        self.sql("DELETE FROM _error")
        operation = self.batch.operation
        self._stage()
        if self._refused:
            self.con.executemany("INSERT INTO _error VALUES (?, ?, ?, ?)", self._refused)
        self.sql("CREATE OR REPLACE TEMP TABLE _result AS SELECT rn, NULL::VARCHAR AS id, false AS created FROM _stage")
        if operation == "upsert":
            self._match_key()
            self._save("key_insert", 's._id IS NULL', inserting=True)
            self._save("key_update", 's._id IS NOT NULL', inserting=False)
        elif operation == "insert":
            self._save("all", "true", inserting=True)
        elif operation == "update":
            self._save("all", "true", inserting=False)
        else:
            self._remove(operation)
        if self.batch.all_or_none and self._failed() and operation in {"insert", "update", "upsert", "delete"}:
            self._undo_all()

    def _stage(self) -> None:
        """`_stage`: rn, _id_given, and per field its text; `flags` tells where a row gives the field."""
        rows, self.fields, self.flags = self.batch.rows, {}, {}
        if isinstance(rows, CsvRows):
            self._stage_csv(rows)
            return
        columns: dict[str, list[str | None]] = {}
        given: dict[str, list[bool]] = {}
        unknown: list[tuple[int, str]] = []
        ids: list[str | None] = []
        for rn, row in enumerate(rows):
            ids.append(None)
            for name, value in row.items():
                if name == "attributes":
                    continue
                if name.lower() == "id":
                    ids[rn] = as_text(value)
                    continue
                f = self.sobject.field(name, hidden=not self.batch.by_api)
                if f is None:
                    unknown.append((rn, name))
                    continue
                if f.name not in columns:
                    self.fields[f.name] = f
                    columns[f.name], given[f.name] = [None] * len(rows), [False] * len(rows)
                text = as_text(value)
                columns[f.name][rn], given[f.name][rn] = (to_18(text) or text) if text and f.is_id else text, True
        selected = ["unnest(?::BIGINT[]) AS rn"]
        selected += [f"unnest(?::VARCHAR[]) AS {name}" for name in ("_id_given", "_id", "_new_id", "_history_id")]
        new_ids = [make_id(self.sobject.prefix, self.first_number + rn) for rn in range(len(rows))]
        history_ids = [make_id("008", self.first_history + rn) for rn in range(len(rows))]
        parameters: list[Any] = [list(range(len(rows))), ids, [to_18(i or "") for i in ids], new_ids, history_ids]
        for name, values in columns.items():
            selected.append(f'unnest(?::VARCHAR[]) AS "{name}"')
            parameters.append(values)
            if all(given[name]):
                self.flags[name] = "true"
            else:
                selected.append(f'unnest(?::BOOLEAN[]) AS "{name}?"')
                parameters.append(given[name])
                self.flags[name] = f's."{name}?"'
        self.sql(f"CREATE OR REPLACE TEMP TABLE _stage AS SELECT {', '.join(selected)}", parameters)
        for rn, name in unknown:
            message = f"No such column '{name}' on sobject of type {self.sobject.name}"
            self.sql("INSERT INTO _error VALUES (?, 'INVALID_FIELD', ?, [])", [rn, message])

    def _stage_csv(self, rows: CsvRows) -> None:
        id_given, picked = "NULL::VARCHAR", []
        for column in rows.columns:
            if column.lower() == "id":
                id_given = f'"{column}"'
                continue
            f = self.sobject.field(column, hidden=not self.batch.by_api)
            if f is None:
                raise SalesforceError("InvalidBatch", f"Field name not found : {column}")
            self.fields[f.name] = f
            self.flags[f.name] = f's."{f.name}?"'
            text = f"nullif(\"{column}\", '#N/A')"
            picked += [f'{f"sf_id18({text})" if f.is_id else text} AS "{f.name}"', f'"{column}" IS NOT NULL AS "{f.name}?"']
        valid = f"CASE WHEN regexp_full_match(sf_id18({id_given}), '[A-Za-z0-9]{{18}}') THEN sf_id18({id_given}) END"
        new_id, history_id = sql_id(self.sobject.prefix, f"{self.first_number} + rn"), sql_id("008", f"{self.first_history} + rn")
        own = [f"{id_given} AS _id_given", f"{valid} AS _id", f"{new_id} AS _new_id", f"{history_id} AS _history_id"]
        numbered = f"SELECT row_number() OVER () - 1 AS rn, * FROM {_read_csv(rows)}"
        self.sql(f"CREATE OR REPLACE TEMP TABLE _stage AS SELECT rn, {', '.join([*own, *picked])} FROM ({numbered})")

    def _match_key(self) -> None:
        """Find the records that an upsert updates, by an external id or by Id."""
        name = self.batch.key or "Id"
        if name.lower() == "id":
            return
        self.sql("UPDATE _stage SET _id = NULL")
        f = self.sobject.field(name)
        if f is None or not (f.definition["externalId"] or f.definition["idLookup"]):
            raise SalesforceError("INVALID_FIELD", f"Field name provided, {name} does not match an External ID, Salesforce Id, or "
                                  f"indexed field for {self.sobject.name}")  # fmt: skip
        if f.name not in self.fields:
            raise SalesforceError("MISSING_ARGUMENT", f"{f.name} not specified")
        alive = 'NOT t."IsDeleted"' if self.sobject.soft_deletes else "true"
        self.sql(
            f'UPDATE _stage SET _id = t."Id" FROM "{self.sobject.name}" t WHERE lower(t."{f.name}") = lower(_stage."{f.name}") AND {alive}'
        )
        self._fail(f"SELECT s.rn, 'MISSING_ARGUMENT', '{f.name} not specified', ['{f.name}'] FROM _stage s WHERE s.\"{f.name}\" IS NULL")
        self._fail(
            f"""SELECT rn, 'DUPLICATE_VALUE', 'Duplicate external id specified: ' || "{f.name}", ['{f.name}'] FROM _stage
            QUALIFY count(*) OVER (PARTITION BY lower("{f.name}")) > 1"""
        )

    def _fail(self, query: str) -> None:
        self.sql(f"INSERT INTO _error {query}")

    def _failed(self) -> bool:
        return bool(self.fetch("SELECT 1 FROM _error LIMIT 1"))

    # --- insert and update ---

    def _save(self, part: str, where: str, *, inserting: bool) -> None:
        self.inserting = inserting
        if part != "all" and not self.fetch(f"SELECT 1 FROM _stage s WHERE {where} LIMIT 1"):
            return
        name = self.sobject.name
        if not self.sobject.head["createable" if inserting else "updateable"]:
            what = "inserted" if inserting else "updated"
            raise SalesforceError("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be {what}: {name}")
        denied = self.batch.by_api and self.sobject.read_only
        if denied and inserting:
            self._refuse(where, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be inserted: {self.sobject.head['label']}")
        elif denied:
            self._refuse(where, *NO_ACCESS)
        else:
            if not inserting:
                self._check_targets(where)
            self._check_locks(where)
            self._check_values(where)

        writable = self._writable()

        def given(f: Field, otherwise: str) -> str:
            x = f's."{f.name}"'
            return f"CASE WHEN {self.flags[f.name]} THEN {_cast(f, x)} ELSE {otherwise} END" if f.name in writable else otherwise

        if inserting:
            self.sql(f'CREATE OR REPLACE TEMP TABLE _old AS SELECT 0::BIGINT AS rn, * FROM "{name}" LIMIT 0')
            defaults = self._defaults()
            columns = []
            for f in self.sobject.stored():
                default = defaults.get(f.name, f"NULL::{f.sql_type}")
                # What is given as empty takes its default too, where a field may not be empty.
                value = given(f, default)
                if f.name in writable and f.name in defaults and not f.definition["nillable"]:
                    value = f"coalesce({value}, {default})"
                columns.append(f'{value} AS "{f.name}"')
            written = f"SELECT s.rn, {', '.join(columns)} FROM _stage s WHERE {where}"
        else:
            carried = ", ".join(f't."{n}"' for n in self._carried(list(writable)))
            self.sql(
                f"""
                CREATE OR REPLACE TEMP TABLE _old AS
                SELECT s.rn, {carried} FROM _stage s JOIN "{name}" t ON t."Id" = s._id
                WHERE {where} AND s.rn NOT IN (SELECT rn FROM _error)
                """
            )
            replaced = [given(f, f't."{n}"') + f' AS "{n}"' for n, f in writable.items()]
            stamps = {"LastModifiedDate": self.stamp, "LastModifiedById": self.by, "SystemModstamp": self.stamp}
            replaced += [f'{sql} AS "{n}"' for n, sql in stamps.items() if n in self.sobject.fields]
            written = f"SELECT t.* REPLACE ({', '.join(replaced)}) FROM _old t JOIN _stage s ON s.rn = t.rn"
        derived = effects.derive(self)
        effect = ", ".join(f'{sql} AS "{n}"' for n, sql in derived.columns.items())
        effect = f"REPLACE ({effect})" if effect else ""
        self.sql(
            f"""
            CREATE OR REPLACE TEMP TABLE _new AS
            WITH written AS ({written})
            SELECT n.* {effect} FROM written n JOIN _stage s ON s.rn = n.rn LEFT JOIN _old o ON o.rn = n.rn {derived.joins}
            WHERE n.rn NOT IN (SELECT rn FROM _error)
            """
        )
        self._columns = list(derived.columns)
        self._check_records()
        if self._failed():
            self.sql("DELETE FROM _new WHERE rn IN (SELECT rn FROM _error)")
            if self.batch.all_or_none:
                return
        if inserting:
            extra = ", ".join(f'"{f.name}"' for f in self.sobject.stored())
            self.sql(f'INSERT INTO "{name}" BY NAME SELECT {extra} FROM _new')
        else:
            stamps_ = [n for n in ("LastModifiedDate", "LastModifiedById", "SystemModstamp") if n in self.sobject.fields]
            sets = ", ".join(f'"{n}" = n."{n}"' for n in dict.fromkeys([*writable, *self._columns, *stamps_]))
            self.sql(f'UPDATE "{name}" SET {sets} FROM _new n WHERE "{name}"."Id" = n."Id"')
        effects.follow(self)
        self.sql(f'UPDATE _result SET id = n."Id", created = {literal(inserting)} FROM _new n WHERE n.rn = _result.rn')

    def _refuse(self, where: str, code: str, message: str) -> None:
        """One error for every row of this part."""
        self._fail(f"SELECT s.rn, '{code}', {literal(message)}, [] FROM _stage s WHERE {where}")

    def _may_set(self, f: Field) -> bool:
        """Whether this kind of write may set the field, by its nature and by field-level security."""
        return f.stored and f.definition["createable" if self.inserting else "updateable"] and not (f.locked and self.batch.by_api)

    def _writable(self) -> dict[str, Field]:
        """The staged fields that this kind of write may set."""
        return {n: f for n, f in self.fields.items() if self._may_set(f)}

    def _carried(self, writable: list[str]) -> list[str]:
        """The columns that an update must read: a validation rule may look at any, the effects say what they need."""
        names = {f.name for f in self.sobject.stored()}
        if not self.org.rules(self.sobject.name):
            stamps = {"Id", "LastModifiedDate", "LastModifiedById", "SystemModstamp"}
            names &= stamps | set(writable) | effects.NEEDS.get(self.sobject.name, set()) | set(effects.derive(self).columns)
        return [n for n in self.sobject.fields if n in names]

    def _defaults(self) -> dict[str, str]:
        """SQL of what a new record has where nothing is given."""
        o = self.sobject
        defaults = {"Id": "s._new_id"}
        defaults |= dict.fromkeys(("CreatedDate", "LastModifiedDate", "SystemModstamp"), self.stamp)
        defaults |= dict.fromkeys(("CreatedById", "LastModifiedById", "OwnerId"), self.by)
        defaults["CurrencyIsoCode"] = '(SELECT "IsoCode" FROM "CurrencyType" WHERE "IsCorporate")'
        if "RecordTypeId" in o.fields:
            defaults["RecordTypeId"] = (
                f"(SELECT min(\"Id\") FROM \"RecordType\" WHERE \"IsActive\" AND \"SobjectType\" = '{o.name}')"  # the profile's default
            )
        for f in o.stored():
            if f.type == "boolean":
                defaults[f.name] = literal(bool(f.definition["defaultValue"]))
            elif f.definition["defaultValue"] is not None:
                defaults[f.name] = literal(f.definition["defaultValue"])
        return {n: sql for n, sql in defaults.items() if n in o.fields}

    def _check_targets(self, where: str) -> None:
        """Which records an update aims at: they must be there, alive, of this object, named once, and not locked."""
        name, label = self.sobject.name, self.sobject.head["label"]
        deleted = 't."IsDeleted"' if self.sobject.soft_deletes else "false"
        self._fail(
            f"""
            SELECT rn, problem[1], problem[2], CASE WHEN problem[1] = 'MALFORMED_ID' THEN ['Id'] ELSE [] END
            FROM (
                SELECT s.rn, CASE
                    WHEN s._id_given IS NULL AND s._id IS NULL THEN ['MISSING_ARGUMENT', 'Id not specified in an update call']
                    WHEN s._id IS NULL OR substr(s._id, 1, 3) <> '{self.sobject.prefix}'
                        THEN ['MALFORMED_ID', '{label} ID: id value of incorrect type: ' || s._id_given]
                    WHEN t."Id" IS NULL AND s._id IN (SELECT id FROM simulator.deletion WHERE sobject = '{name}') OR {deleted}
                        THEN ['ENTITY_IS_DELETED', 'entity is deleted']
                    WHEN t."Id" IS NULL THEN ['INVALID_CROSS_REFERENCE_KEY', 'invalid cross reference id']
                    {self._unseen()}
                    WHEN count(*) OVER (PARTITION BY s._id) > 1 THEN ['DUPLICATE_VALUE', 'Duplicate id specified: ' || s._id]
                END AS problem
                FROM _stage s LEFT JOIN "{name}" t ON t."Id" = s._id WHERE {where})
            WHERE problem IS NOT NULL
            """
        )

    def _unseen(self) -> str:
        """A branch of a CASE for records that the API user may not see; empty where it sees all."""
        condition = self.context.sharing.get(self.sobject.name)
        if condition is None or not self.batch.by_api:
            return ""
        code, message = "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "insufficient access rights on cross-reference id"
        return f"WHEN NOT ({condition.replace('{t}', 't')}) THEN ['{code}', '{message}']"

    def _check_locks(self, where: str) -> None:
        """Records that another write holds: armed by `lock_rows`, or touched by one that has not committed yet."""
        message = "'unable to obtain exclusive access to this record or 1 records: ' || "
        going = self.org.referred() if self.batch.operation in {"delete", "hardDelete"} else set()
        if held := sorted(self.org.held() | going):
            lookups = [f's."{name}"' for name in LOCKING & self.fields.keys()]
            for column in ["s._id", *lookups]:
                self.sql(
                    f"INSERT INTO _error SELECT s.rn, 'UNABLE_TO_LOCK_ROW', {message} {column}, [] FROM _stage s "
                    f"WHERE {where} AND {column} IN (SELECT unnest(?::VARCHAR[]))",
                    [held],
                )
        if self.org.has_locks:
            aimed = [row[0] for row in self.fetch(f"SELECT s._id FROM _stage s WHERE {where} AND s._id IS NOT NULL")]
            for record in self.org.take_locks(aimed):
                self.sql(f"INSERT INTO _error SELECT rn, 'UNABLE_TO_LOCK_ROW', {message} _id, [] FROM _stage WHERE _id = ?", [record])

    def _check_values(self, where: str) -> None:
        """The staged texts: may they be written, are they of the field's type, do they fit, do they exist?"""
        checks: list[str] = []

        def check(f: Field, condition: str, code: str, message: str) -> None:
            checks.append(
                f"SELECT s.rn, '{code}', {message}, ['{f.name}'] FROM _stage s WHERE {where} AND {self.flags[f.name]} AND ({condition})"
            )

        for f in self.fields.values():
            x, d = f's."{f.name}"', f.definition
            if not self._may_set(f):
                text = (
                    f"Unable to create/update fields: {f.name}. Please check the security settings of this field and verify that it is "
                    "read/write for your profile or permission set."
                )
                check(f, "true", "INVALID_FIELD_FOR_INSERT_UPDATE", literal(text))
                continue
            if not f.is_text:
                text = f"{literal(f'{f.label}: value not of required type: ')} || {x}"
                code = "MALFORMED_ID" if f.is_id else "INVALID_TYPE_ON_FIELD_IN_RECORD"
                text = f"{literal(f'{f.label}: id value of incorrect type: ')} || {x}" if f.is_id else text
                check(f, f"{x} <> '' AND {_cast(f, x)} IS NULL", code, text)
            if f.is_text and d["length"]:
                text = f"{literal(f'{f.label}: data value too large: ')} || {x} || ' (max length={d['length']})'"
                check(f, f"length({x}) > {d['length']}", "STRING_TOO_LONG", text)
            if d["restrictedPicklist"]:
                allowed = ", ".join(literal(p["value"]) for p in d["picklistValues"] if p["active"])
                text = f"{literal(f'{f.label}: bad value for restricted picklist field: ')} || {x}"
                check(f, f"{x} <> '' AND {x} NOT IN ({allowed})", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", text)
            if f.type in {"double", "currency", "percent"} and 0 < d["precision"] - d["scale"] < 18:
                limit = 10 ** (d["precision"] - d["scale"])
                text = f"{literal(f'{f.label}: value outside of valid range on numeric field: ')} || {x}"
                check(f, f"abs({_cast(f, x)}) >= {limit}", "NUMBER_OUTSIDE_VALID_RANGE", text)
            if f.is_id and f.reference_to:
                found = " AND ".join(f'{_cast(f, x)} NOT IN (SELECT "Id" FROM "{target}")' for target in f.reference_to)
                check(f, f"{_cast(f, x)} IS NOT NULL AND {found}", "INVALID_CROSS_REFERENCE_KEY", "'invalid cross reference id'")
            if f.name == "OwnerId":
                text = f"'operation performed with inactive user [' || {x} || '] as owner of {self.sobject.name.lower()}'"
                check(
                    f, f"""{_cast(f, x)} IN (SELECT "Id" FROM "User" WHERE NOT "IsActive")""", "INACTIVE_OWNER_OR_USER", text
                )  # fmt: skip
            if d["unique"]:
                text = f"'duplicate value found: {f.name} duplicates value on record with id: ' || t.\"Id\""
                checks.append(
                    f"SELECT s.rn, 'DUPLICATE_VALUE', {text}, [] FROM _stage s JOIN \"{self.sobject.name}\" t "
                    f'ON lower(t."{f.name}") = lower({x}) AND t."Id" IS DISTINCT FROM s._id WHERE {where}'
                )
        if checks:
            self._fail(" UNION ALL ".join(checks))

    def _check_records(self) -> None:
        """The records as they would be: required fields and validation rules."""
        checks = []
        for f in self.sobject.stored():
            d = f.definition
            required = not d["nillable"] and d["createable"] and f.type != "boolean"
            if required and ((self.inserting and not d["defaultedOnCreate"]) or f.name in self.fields):
                checks.append(
                    f"SELECT rn, 'REQUIRED_FIELD_MISSING', 'Required fields are missing: [{f.name}]', ['{f.name}'] "
                    f'FROM _new WHERE "{f.name}" IS NULL'
                )
        for sql, message, field_name in self.org.rules(self.sobject.name):
            condition = self.context.fill(sql, "n").replace("{o}", "o")
            fields = f"['{field_name}']" if field_name else "[]"
            checks.append(
                f"SELECT n.rn, 'FIELD_CUSTOM_VALIDATION_EXCEPTION', {literal(message)}, {fields} "
                f"FROM _new n LEFT JOIN _old o ON o.rn = n.rn WHERE {condition}"
            )
        if checks:
            self._fail(" UNION ALL ".join(checks))

    def _undo_all(self) -> None:
        """allOrNone: one error, nothing is written, and the others say so."""
        errors = self.fetch("SELECT * FROM _error")
        staged = self.fetch("SELECT rn FROM _stage")
        self.con.execute("ROLLBACK")
        self.con.execute("BEGIN")
        self.sql("DELETE FROM _error")
        self.con.executemany("INSERT INTO _error VALUES (?, ?, ?, ?)", errors)
        self.sql(
            "CREATE OR REPLACE TEMP TABLE _result AS SELECT unnest(?::BIGINT[]) AS rn, NULL::VARCHAR AS id, false AS created",
            [[row[0] for row in staged]],
        )
        self._fail(
            """SELECT rn, 'ALL_OR_NONE_OPERATION_ROLLED_BACK',
            'Record rolled back because not all records were valid and the request was using AllOrNone header', []
            FROM _result WHERE rn NOT IN (SELECT rn FROM _error)"""
        )

    # --- delete, undelete, hard delete ---

    def _remove(self, operation: str) -> None:
        name = self.sobject.name
        if not self.sobject.head["deletable"] or not self.sobject.soft_deletes:
            raise SalesforceError("CANNOT_DELETE_ENTITY", f"entity type cannot be deleted: {name}")
        gone = {"delete": 't."IsDeleted"', "undelete": 'NOT t."IsDeleted"', "hardDelete": "false"}[operation]
        self._fail(
            f"""
            SELECT s.rn, problem[1], problem[2], [] FROM (
                SELECT s.rn, CASE
                    WHEN s._id IS NULL THEN ['MALFORMED_ID', 'bad id ' || coalesce(s._id_given, '')]
                    WHEN t."Id" IS NULL AND s._id IN (SELECT id FROM simulator.deletion WHERE sobject = '{name}')
                        THEN ['ENTITY_IS_DELETED', 'entity is deleted']
                    WHEN t."Id" IS NULL THEN ['INVALID_CROSS_REFERENCE_KEY', 'invalid cross reference id']
                    {self._unseen()}
                    WHEN {gone} THEN {"['UNDELETE_FAILED', 'Entity is not in the recycle bin']" if operation == "undelete"
                                      else "['ENTITY_IS_DELETED', 'entity is deleted']"}
                END AS problem
                FROM _stage s LEFT JOIN "{name}" t ON t."Id" = s._id) s
            WHERE problem IS NOT NULL
            """
        )
        if self.batch.by_api and self.sobject.read_only:
            self.sql("DELETE FROM _error")
            self._refuse("true", *NO_ACCESS)
        self._check_locks("true")
        self.sql("CREATE OR REPLACE TEMP TABLE _gone AS SELECT DISTINCT _id AS id FROM _stage WHERE rn NOT IN (SELECT rn FROM _error)")
        if self.batch.all_or_none and self._failed():
            return
        self.sql("CREATE OR REPLACE TEMP TABLE _what (id VARCHAR)")
        {"delete": self._recycle, "undelete": self._restore, "hardDelete": self._purge}[operation](name)
        effects.roll_up_activities(self, "SELECT id FROM _what")
        self.sql("UPDATE _result SET id = s._id FROM _stage s WHERE s.rn = _result.rn AND s.rn NOT IN (SELECT rn FROM _error)")

    def touched(self) -> set[str]:
        """Ids of the records that this run wrote, children that went along and deals whose activities were rolled up included."""
        found = "SELECT id FROM _result"
        if self.batch.operation in {"delete", "undelete", "hardDelete"}:
            found += " UNION SELECT id FROM _what"
            for child, where in self._with_root(self.sobject.name):
                found += f' UNION SELECT "Id" FROM "{child}" WHERE {where}'
        elif self.sobject.name in {"Task", "Event"}:
            found += ' UNION SELECT "WhatId" FROM _old UNION SELECT "WhatId" FROM _new'
        return {row[0] for row in self.fetch(found) if row[0]}

    def parents(self) -> set[str]:
        """Ids of the records that what this run wrote refers to: they may change, but not go."""
        lookups = sorted(LOCKING & self.fields.keys()) if self.batch.operation not in {"delete", "undelete", "hardDelete"} else []
        return {row[0] for name in lookups for row in self.fetch(f'SELECT DISTINCT "{name}" FROM _new WHERE "{name}" IS NOT NULL')}

    def _remember_opportunities(self, name: str, where: str) -> None:
        if name in {"Task", "Event"}:
            self.sql(f'INSERT INTO _what SELECT "WhatId" FROM "{name}" WHERE {where}')

    def _moved(self, name: str) -> str:
        """SET items of the stamps; history rows have none that move."""
        if name in {"OpportunityHistory", "OpportunityFieldHistory"}:
            return ""
        return f', "LastModifiedDate" = {self.stamp}, "LastModifiedById" = {self.by}, "SystemModstamp" = {self.stamp}'

    def _recycle(self, name: str) -> None:
        """Into the bin, children with their parent."""
        levels = [(name, '"Id" IN (SELECT id FROM _gone)', "NULL")]
        while levels:
            current, where, root = levels.pop()
            self._remember_opportunities(current, where)
            alive = f'NOT "IsDeleted" AND {where}'
            self.sql(f'INSERT INTO simulator.deletion SELECT {literal(current)}, "Id", {self.stamp} FROM "{current}" WHERE {alive}')
            self.sql(f'UPDATE "{current}" SET "IsDeleted" = true, _deleted_with = {root}{self._moved(current)} WHERE {alive}')
            for child, lookup in CASCADES.get(current, []):
                if root == "NULL":
                    levels.append((child, f'"{lookup}" IN (SELECT id FROM _gone)', f'"{lookup}"'))
                else:  # grandchildren, such as the tasks of an account's opportunities
                    parents = f'(SELECT "Id" FROM "{current}" WHERE _deleted_with IN (SELECT id FROM _gone))'
                    up = f'(SELECT p._deleted_with FROM "{current}" p WHERE p."Id" = "{child}"."{lookup}")'
                    levels.append((child, f'"{lookup}" IN {parents}', up))

    def _restore(self, name: str) -> None:
        for current, where in [(name, '"Id" IN (SELECT id FROM _gone)'), *self._with_root(name)]:
            self._remember_opportunities(current, where)
            back = f'SELECT "Id" FROM "{current}" WHERE {where}'
            self.sql(f"DELETE FROM simulator.deletion WHERE sobject = '{current}' AND id IN ({back})")
            self.sql(f'UPDATE "{current}" SET "IsDeleted" = false, _deleted_with = NULL{self._moved(current)} WHERE {where}')

    def _purge(self, name: str) -> None:
        """For good. The log of deletions keeps the ids."""
        self._recycle(name)
        for current, where in [(name, '"Id" IN (SELECT id FROM _gone)'), *self._with_root(name)]:
            self.sql(f'DELETE FROM "{current}" WHERE {where}')

    def _with_root(self, name: str) -> list[tuple[str, str]]:
        """Objects and conditions of everything that went into the bin with the records in `_gone`."""
        reached, queue = [], [name]
        while queue:
            for child, _ in CASCADES.get(queue.pop(), []):
                if child not in reached:
                    reached.append(child)
                    queue.append(child)
        return [(child, "_deleted_with IN (SELECT id FROM _gone)") for child in reached]


def _cast(f: Field, x: str) -> str:
    """SQL of a staged text as the field's value; NULL where it is none."""
    if f.type == "boolean":
        return f"CASE lower({x}) WHEN 'true' THEN true WHEN '1' THEN true WHEN 'false' THEN false WHEN '0' THEN false END"
    if f.is_id:
        return f"CASE WHEN regexp_full_match({x}, '[A-Za-z0-9]{{18}}') THEN {x} END"
    if f.type == "date":
        return f"CASE WHEN regexp_matches({x}, '^\\d{{4}}-\\d\\d-\\d\\d') THEN TRY_CAST(substr({x}, 1, 10) AS DATE) END"
    if f.type == "datetime":
        return f"date_trunc('second', TRY_CAST({x} AS TIMESTAMPTZ) AT TIME ZONE 'UTC')"
    if f.is_text:
        return f"nullif({x}, '')"
    return f"TRY_CAST({x} AS {f.sql_type})"


def _read_csv(rows: CsvRows) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in rows.columns)
    return (
        f"read_csv({literal(rows.path)}, header = true, auto_detect = false, delim = {literal(rows.delimiter)}, quote = '\"', "
        f"escape = '\"', columns = {{{columns}}}, strict_mode = true)"
    )
