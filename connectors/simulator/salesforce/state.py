"""What the simulated org holds: its schema and records in DuckDB, its clock, its settings, and writes that have not committed yet."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import orjson

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.salesforce import formula as formulas
from connectors.simulator.salesforce import ids
from connectors.simulator.salesforce.catalogue import Field, SObject
from connectors.simulator.salesforce.compile import Context
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.objects import standard_objects

# Book-keeping columns beside the fields: what the read-time flags of an opportunity and the values of its field history are
# computed from, the stages of a sales process (none: all of the org's), and which record's deletion took a child along, so that
# its undeletion brings it back.
EXTRA_COLUMNS: dict[str, dict[str, str]] = {
    "Opportunity": {"_open_tasks": "INTEGER", "_next_task_due": "DATE", "_last_event_end": "TIMESTAMP"},
    "OpportunityFieldHistory": {"_old": "VARCHAR", "_new": "VARCHAR"},
    "BusinessProcess": {"_stages": "VARCHAR[]"},
}
DELETED_WITH = "_deleted_with"

# The org's own tables, beside one per object.
BOOKS = """
    CREATE SCHEMA IF NOT EXISTS simulator;
    CREATE TABLE IF NOT EXISTS simulator.field (sobject VARCHAR, name VARCHAR, definition JSON, formula VARCHAR, hidden BOOLEAN);
    ALTER TABLE simulator.field ADD COLUMN IF NOT EXISTS removed BOOLEAN;
    CREATE TABLE IF NOT EXISTS simulator.deletion (sobject VARCHAR, id VARCHAR, deleted_at TIMESTAMP);
    CREATE TABLE IF NOT EXISTS simulator.company_key (sobject VARCHAR, company_id BIGINT, id VARCHAR);
    CREATE TABLE IF NOT EXISTS simulator.unshared (sobject VARCHAR, id VARCHAR);
    CREATE TABLE IF NOT EXISTS simulator.setting (name VARCHAR, value JSON);
"""

# A double as Java's Double.toString writes it, which both APIs use: 92134.5, 10.0, 9.9213206E7 from ten million on. The argument
# is named as seldom as possible: DuckDB plans it anew at each place.
JAVA_DOUBLE = r"""CREATE OR REPLACE MACRO java_double(v) AS CASE
    WHEN abs(v) < 10000000 THEN v::DOUBLE::VARCHAR
    ELSE regexp_replace(regexp_replace(v::DECIMAL(38,2)::VARCHAR, '^(-?\d)(\d+)\.', '\1.\2'), '^(-?\d\.\d+?)0*$', '\1')
        || 'E' || (strpos(abs(v)::DECIMAL(38,2)::VARCHAR, '.') - 2)
END"""

BIN_DAYS = 15  # for which the recycle bin keeps a record, and the log of deletions its id

# Whose sharing a record follows: object -> (lookup, parent).
FOLLOWS: dict[str, list[tuple[str, str]]] = {
    "OpportunityContactRole": [("OpportunityId", "Opportunity")],
    "OpportunityHistory": [("OpportunityId", "Opportunity")],
    "OpportunityFieldHistory": [("OpportunityId", "Opportunity")],
    "Task": [("WhatId", "Opportunity"), ("WhatId", "Account")],
    "Event": [("WhatId", "Opportunity"), ("WhatId", "Account")],
    "Contact": [("AccountId", "Account")],
}


@dataclass
class Pending:
    """A write that is stamped and answered, and will be seen when it is `due`. It holds the locks of the records it touches; parents,
    to which those refer, cannot be deleted or merged away meanwhile."""

    due: datetime
    stamp: datetime
    write: Callable[[], object]
    touched: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)


class OrgState:
    """The state of an org, in a DuckDB file or in memory. One table per object, named as the object, one column per stored field."""

    def __init__(self, path: Path | None, clock: SimClock, faults: Faults) -> None:
        self.clock, self.faults = clock, faults
        self.lock = threading.RLock()
        self.objects: dict[str, SObject] = {}
        self._numbers: dict[str, int] = {}
        self._pending: list[Pending] = []
        self._settings: dict[str, Any] = {}
        self._unshared: set[str] = set()  # objects of which some record is hidden from the API user
        self._altered = True  # whether the tables may have other columns than those of a new org

        self._scratch_dir = tempfile.TemporaryDirectory(prefix="plumbline-salesforce-")
        self.is_new = path is None or not path.exists()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        # In memory are small orgs: a second thread costs them more than it brings.
        self.con = duckdb.connect(":memory:" if path is None else str(path), config={"threads": 1 if path is None else 2})
        self.con.execute("SET GLOBAL TimeZone = 'UTC'")
        # Snapshots of query results live beside the org's file, not in it, and on disk: a million rows may wait for their pages.
        self.con.execute(f"ATTACH '{self._scratch_dir.name}/results.duckdb' AS scratch")
        for statement in [*ids.sql_macros(), JAVA_DOUBLE]:
            self.con.execute(statement)

    def close(self) -> None:
        with self.lock:
            self.con.close()
            self._scratch_dir.cleanup()

    # --- schema -----------------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        """The objects of a new org, with empty tables."""
        self.objects = standard_objects()
        self.con.execute(BOOKS)
        for o in self.tables():
            if self._altered:
                columns = ", ".join(f'"{name}" {kind}' for name, kind in _columns(o).items())
                self.con.execute(f'CREATE OR REPLACE TABLE "{o.name}" ({columns})')
            else:
                self.con.execute(f'DELETE FROM "{o.name}"')
        self._altered = False
        self._compile_formulas()

    def alter(self, sobject: str, change: str) -> None:
        """Change the columns of an object's table. As DDL does, it waits for open writes: those that were to commit late do so now."""
        self.settle(all_of_them=True)
        self._altered = True
        self.con.execute(f'ALTER TABLE "{sobject}" {change}')

    def _load(self) -> None:
        """The schema and the settings that an org's file was left with."""
        self.objects = standard_objects()
        self.con.execute(BOOKS)
        self._settings = {name: orjson.loads(value) for name, value in self.con.execute("FROM simulator.setting").fetchall()}
        self._unshared = {name for (name,) in self.con.execute("SELECT DISTINCT sobject FROM simulator.unshared").fetchall()}
        for name, field_name, definition, formula, hidden, removed in self.con.execute("FROM simulator.field").fetchall():
            o = self.objects[name]
            if removed:
                if field_name in o.fields:
                    o.remove(field_name)
                continue
            if definition is not None:
                o.add(Field(orjson.loads(definition), formula=formula))
            o.fields[field_name].hidden = hidden
        for o in self.tables():  # a file that an earlier version of the simulator left lacks what has been added since
            columns = _columns(o)
            self.con.execute(f'CREATE TABLE IF NOT EXISTS "{o.name}" ({", ".join(f""""{n}" {kind}""" for n, kind in columns.items())})')
            there = {row[0] for row in self.con.execute(f'DESCRIBE "{o.name}"').fetchall()}
            for name in columns.keys() - there:
                self.con.execute(f'ALTER TABLE "{o.name}" ADD COLUMN "{name}" {columns[name]}')
        self._compile_formulas()

    def tables(self) -> list[SObject]:
        """The objects that are tables of the org."""
        return [o for o in self.objects.values() if o.source is None]

    def _compile_formulas(self) -> None:
        for o in self.objects.values():
            for f in o.fields.values():
                if f.formula is not None:
                    f.sql = f"({formulas.to_sql(f.formula, o, self.objects)})::{f.sql_type}"

    def _empty(self) -> None:
        """Forget every record, deletion and setting."""
        for table in ("field", "deletion", "company_key", "unshared", "setting"):
            self.con.execute(f"DELETE FROM simulator.{table}")
        self._settings, self._unshared, self._pending, self._numbers = {}, set(), [], {}

    def setting(self, name: str, default: Any) -> Any:
        """A setting that is kept with the org's file; JSON values."""
        return self._settings.get(name, default)

    def keep(self, name: str, value: Any) -> None:
        with self.lock:
            self._settings[name] = value
            self.con.execute("DELETE FROM simulator.setting WHERE name = ?", [name])
            self.con.execute("INSERT INTO simulator.setting VALUES (?, ?)", [name, orjson.dumps(value).decode()])

    # --- numbers of records -----------------------------------------------------------------------------------------------

    def renumber(self) -> None:
        """Find the next free number of each object, after records came by another way than `create`."""
        for o in self.tables():
            last = self.con.execute(
                f'SELECT max(id) FROM (SELECT max("Id") AS id FROM "{o.name}" '
                "UNION ALL SELECT max(id) FROM simulator.deletion WHERE sobject = ?)",
                [o.name],
            ).fetchone()
            number = ids.FIRST_NUMBER
            if last and last[0]:
                number = 0
                for digit in last[0][9:15]:
                    number = number * 62 + ids.DIGITS.index(digit)
                number += 1
            self._numbers[o.name] = number

    def take_numbers(self, sobject: str, count: int) -> int:
        """Reserve `count` record numbers and give the first."""
        with self.lock:
            first = self._numbers.get(sobject, ids.FIRST_NUMBER)
            self._numbers[sobject] = first + count
            return first

    def insert(self, sobject: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Insert set-up rows as they are, with ids and stamps where they have none; no side effects. Gives the ids."""
        o, stamp = self.objects[sobject], self.now().replace(tzinfo=None)
        made, wholes = [], []
        for number, row in enumerate(rows, self.take_numbers(sobject, len(rows))):
            whole: dict[str, Any] = {"Id": ids.make_id(o.prefix, number)}
            whole |= {name: stamp for name in ("CreatedDate", "LastModifiedDate", "SystemModstamp") if name in o.fields}
            if o.soft_deletes:
                whole["IsDeleted"] = False
            wholes.append({**whole, **row})
            made.append(wholes[-1]["Id"])
        columns = list(dict.fromkeys(name for whole in wholes for name in whole))
        marks = ", ".join(f"({', '.join('?' * len(columns))})" for _ in wholes)
        values = [whole.get(name) for whole in wholes for name in columns]
        values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in values]
        listed = ", ".join(f'"{name}"' for name in columns)
        self.con.execute(f'INSERT INTO "{sobject}" ({listed}) VALUES {marks}', values)
        return made

    # --- reading ----------------------------------------------------------------------------------------------------------

    @property
    def scratch_directory(self) -> Path:
        """Where files of Bulk jobs lie until they are fetched or deleted."""
        return Path(self._scratch_dir.name)

    def now(self) -> datetime:
        return self.clock.now().replace(microsecond=0)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of its own for one read; what late commits are due by now has become visible."""
        self.settle()
        cursor = self.con.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a DuckDB query over the org's tables, deleted records among them."""
        with self.reading() as cursor:
            return cursor.execute(sql, list(parameters)).fetchall()

    def context(self) -> Context:
        """What a query of the API user is compiled against."""
        with self.reading() as cursor:
            zone, month = cursor.execute('SELECT "TimeZoneSidKey", "FiscalYearStartMonth" FROM "Organization"').fetchall()[0]
            rate = cursor.execute('SELECT "ConversionRate" FROM "CurrencyType" WHERE "IsCorporate"').fetchone()
        corporate = Decimal(rate[0]) if rate else Decimal(1)
        return Context(self.objects, self.now(), ZoneInfo(zone), month, corporate, self._sharing())

    def _sharing(self) -> dict[str, str]:
        """Per object of which the API user may not see every record: a condition on {t}, true for those that it may."""
        if not self._unshared:
            return {}

        def lacks(column: str, of: str) -> str:
            return f"({{t}}.\"{column}\" IN (SELECT id FROM simulator.unshared WHERE sobject = '{of}')) IS NOT TRUE"

        conditions = {name: [lacks("Id", name)] for name in self._unshared}
        for child, parents in FOLLOWS.items():
            conditions.setdefault(child, []).extend(lacks(lookup, parent) for lookup, parent in parents if parent in self._unshared)
        return {name: " AND ".join(parts) for name, parts in conditions.items() if parts}

    def sobject(self, name: str) -> SObject:
        """Raises NOT_FOUND, as a path with an unknown object does."""
        found = next((o for n, o in self.objects.items() if n.lower() == name.lower() and not o.hidden), None)
        if found is None:
            raise SalesforceError("NOT_FOUND", "The requested resource does not exist", status=404)
        return found

    @property
    def organization_id(self) -> str:
        return self.rows('SELECT "Id" FROM "Organization"')[0][0]

    @property
    def admin_id(self) -> str:
        return self.user_id("admin@plumbline.example")

    def user_id(self, username: str) -> str:
        found = self.rows('SELECT "Id" FROM "User" WHERE lower("Username") = lower(?)', [username])
        if not found:
            raise SalesforceError("INVALID_CROSS_REFERENCE_KEY", f"no user has the username {username}")
        return found[0][0]

    # --- late commits -----------------------------------------------------------------------------------------------------

    def settle(self, *, all_of_them: bool = False) -> None:
        """Let writes whose commit is due become visible, in the order in which they fall due; or all, due or not."""
        if not self._pending:
            return
        with self.lock:
            now = self.clock.now()
            due = sorted((p for p in self._pending if all_of_them or p.due <= now), key=lambda p: p.due)
            self._pending = [p for p in self._pending if p not in due]
            for pending in due:
                pending.write()

    def commit_later(
        self, seconds: float, stamp: datetime, write: Callable[[], object], touched: set[str], parents: Iterable[str] = ()
    ) -> None:  # fmt: skip
        """Keep a write that is stamped already for `seconds` of the simulator's clock."""
        self._pending.append(Pending(self.clock.now() + timedelta(seconds=seconds), stamp, write, touched, set(parents)))

    def in_flight(self) -> set[str]:
        """Ids of records that a write which has not committed yet holds locked: no other write gets at them (UNABLE_TO_LOCK_ROW)."""
        self.settle()
        return self.held()

    def held(self) -> set[str]:
        """As `in_flight`, without a look at the clock."""
        return set().union(*(p.touched for p in self._pending))

    def referred(self) -> set[str]:
        """Ids of the records to which a write that has not committed yet refers."""
        return set().union(*(p.parents for p in self._pending))

    def covered_until(self) -> datetime:
        """The instant up to which every stamped write is visible."""
        return min([self.now(), *(p.stamp for p in self._pending)])


def _columns(o: SObject) -> dict[str, str]:
    columns = {f.name: f.sql_type for f in o.stored()} | EXTRA_COLUMNS.get(o.name, {})
    return columns | {DELETED_WITH: "VARCHAR"} if o.soft_deletes else columns
