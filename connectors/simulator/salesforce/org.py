"""The simulated org: its schema and records in DuckDB, and what its people can do with them.

One table per object, named as the object, one column per stored field, named as the field; columns that begin with an underscore
are the org's own book-keeping. Instants are TIMESTAMP in UTC at whole seconds, as Salesforce keeps them.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import duckdb
import orjson

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import RequestLog
from connectors.simulator.salesforce import formula as formulas
from connectors.simulator.salesforce import ids, seed
from connectors.simulator.salesforce.auth import Identity
from connectors.simulator.salesforce.bulk import Jobs
from connectors.simulator.salesforce.catalogue import Field, SObject, make_field
from connectors.simulator.salesforce.compile import Context
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.objects import FORECAST_CATEGORY_NAMES, standard_objects
from connectors.simulator.salesforce.results import Results
from connectors.simulator.salesforce.writes import Batch, Outcome, Writer

if TYPE_CHECKING:
    from starlette.applications import Starlette

# Book-keeping columns beside the fields: what the read-time flags of an opportunity and the values of its field history are
# computed from, and which record's deletion took a child along, so that its undeletion brings it back.
EXTRA_COLUMNS: dict[str, dict[str, str]] = {
    "Opportunity": {"_open_tasks": "INTEGER", "_next_task_due": "DATE", "_last_event_end": "TIMESTAMP"},
    "OpportunityFieldHistory": {"_old": "VARCHAR", "_new": "VARCHAR"},
}
DELETED_WITH = "_deleted_with"

# A double as Java's Double.toString writes it, which both APIs use: 92134.5, 10.0, 9.9213206E7 from ten million on. The argument
# is named as seldom as possible: DuckDB plans it anew at each place.
JAVA_DOUBLE = r"""CREATE OR REPLACE MACRO java_double(v) AS CASE
    WHEN abs(v) < 10000000 THEN v::DOUBLE::VARCHAR
    ELSE regexp_replace(regexp_replace(v::DECIMAL(38,2)::VARCHAR, '^(-?\d)(\d+)\.', '\1.\2'), '^(-?\d\.\d+?)0*$', '\1')
        || 'E' || (strpos(abs(v)::DECIMAL(38,2)::VARCHAR, '.') - 2)
END"""


class SalesforceOrg:
    """A Salesforce org whose state is a DuckDB file, or memory when `path` is None.

    seed_company: called with the org when it is new, to fill it; a new org has its users, stages and currencies in any case.
    Every method that writes has the side effects of the real platform. `by` is the id of the user who does it; default: the admin.
    Thread-safe: a cursor per read, one write at a time. Raises SalesforceError as the API would answer.
    """

    def __init__(
        self,
        path: Path | None,
        clock: SimClock,
        faults: Faults,
        *,
        seed_company: Callable[[SalesforceOrg], None] | None = None,
        api_version: str = "67.0",
    ) -> None:
        self.clock, self.faults, self.api_version = clock, faults, api_version
        self.objects: dict[str, SObject] = standard_objects()
        self.lock = threading.RLock()
        self.identity = Identity(self)
        self.daily_limit = 115_000
        self._calls = 0
        self._calls_day = clock.now().date()
        self.in_progress_polls = 1  # how often a Bulk job answers InProgress before it is done
        self.bulk_enabled = True
        self.bulk_page: int | None = None  # records of a page of Bulk results at most; None: 50,000 unless the client names a number
        self.query_page: int | None = None  # records of a page of a REST query at most; None: what the client asks for, 200 to 2,000
        self.job_page = 1000  # jobs in one answer of the list of jobs
        self.hold_jobs = False  # True: new Bulk jobs wait, InProgress to whoever polls, until `release_jobs()`
        self.request_log = RequestLog()  # every request that the org was sent, control calls left out: `.calls`, `.clear()`
        self.tracked_fields = [
            "StageName", "Amount", "CloseDate", "OwnerId", "NextStep", "Probability", "ForecastCategoryName", "AccountId", "Type",
            "Loss_Reason__c",
        ]  # fmt: skip
        self._pending: list[tuple[datetime, datetime, Callable[[], object]]] = []  # due, stamp, the write
        self._rules: list[tuple[str, str, str, str, str | None]] = []
        self._locked: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

        self._scratch_dir = tempfile.TemporaryDirectory(prefix="plumbline-salesforce-")
        self.results, self.jobs = Results(self), Jobs(self)
        fresh = path is None or not path.exists()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.con = duckdb.connect(":memory:" if path is None else str(path), config={"threads": 2})
        self.con.execute("SET GLOBAL TimeZone = 'UTC'")
        # Snapshots of query results live beside the org's file, not in it, and on disk: a million rows may wait for their pages.
        self.con.execute(f"ATTACH '{self._scratch_dir.name}/results.duckdb' AS scratch")
        for statement in [*ids.sql_macros(), JAVA_DOUBLE]:
            self.con.execute(statement)
        self.writer = Writer(self)
        if fresh:
            self._create()
            seed.fill(self)
            if seed_company is not None:
                seed_company(self)
        else:
            self._load_schema()
        self.renumber()

    def close(self) -> None:
        with self.lock:
            self.con.close()
            self._scratch_dir.cleanup()

    # --- state ------------------------------------------------------------------------------------------------------------

    def _create(self) -> None:
        self.con.execute("CREATE SCHEMA simulator")
        self.con.execute("CREATE TABLE simulator.field (sobject VARCHAR, name VARCHAR, definition JSON, formula VARCHAR, hidden BOOLEAN)")
        self.con.execute("CREATE TABLE simulator.deletion (sobject VARCHAR, id VARCHAR, deleted_at TIMESTAMP)")
        self.con.execute("CREATE TABLE simulator.company_key (sobject VARCHAR, company_id BIGINT, id VARCHAR)")
        self._compile_formulas()
        for o in self.objects.values():
            columns = {f.name: f.sql_type for f in o.stored()} | EXTRA_COLUMNS.get(o.name, {})
            if o.soft_deletes:
                columns[DELETED_WITH] = "VARCHAR"
            self.con.execute(f'CREATE TABLE "{o.name}" ({", ".join(f""""{name}" {kind}""" for name, kind in columns.items())})')

    def _load_schema(self) -> None:
        for name, field_name, definition, formula, hidden in self.con.execute("FROM simulator.field").fetchall():
            o = self.objects[name]
            if definition is not None:
                o.add(Field(orjson.loads(definition), formula=formula))
            o.fields[field_name].hidden = hidden
        self._compile_formulas()

    def _compile_formulas(self) -> None:
        for o in self.objects.values():
            for f in o.fields.values():
                if f.formula is not None:
                    f.sql = f"({formulas.to_sql(f.formula, o, self.objects)})::{f.sql_type}"

    def renumber(self) -> None:
        """Find the next free number of each object, after records came by another way than `create`."""
        for o in self.objects.values():
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
            first = self._numbers[sobject]
            self._numbers[sobject] = first + count
            return first

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
        with self.reading() as cursor:
            zone, month = cursor.execute('SELECT "TimeZoneSidKey", "FiscalYearStartMonth" FROM "Organization"').fetchall()[0]
            rate = cursor.execute('SELECT "ConversionRate" FROM "CurrencyType" WHERE "IsCorporate"').fetchone()
        return Context(self.objects, self.now(), ZoneInfo(zone), month, Decimal(rate[0]) if rate else Decimal(1))

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

    @property
    def integration_user_id(self) -> str:
        return self.user_id(self.identity.username)

    def user_id(self, username: str) -> str:
        found = self.rows('SELECT "Id" FROM "User" WHERE lower("Username") = lower(?)', [username])
        if not found:
            raise SalesforceError("INVALID_CROSS_REFERENCE_KEY", f"no user has the username {username}")
        return found[0][0]

    # --- late commits -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let writes whose commit is due become visible, in the order in which they fall due."""
        if not self._pending:
            return
        with self.lock:
            now = self.clock.now()
            due = sorted((p for p in self._pending if p[0] <= now), key=lambda p: p[0])
            self._pending = [p for p in self._pending if p[0] > now]
            for _, _, write in due:
                write()

    def commit_later(self, seconds: float, stamp: datetime, write: Callable[[], object]) -> None:
        """Keep a write that is stamped already for `seconds` of the simulator's clock."""
        self._pending.append((self.clock.now() + timedelta(seconds=seconds), stamp, write))

    def covered_until(self) -> datetime:
        """The instant up to which every stamped write is visible."""
        return min([self.now(), *(stamp for _, stamp, _ in self._pending)])

    # --- what people and integrations do ----------------------------------------------------------------------------------

    def create(self, sobject: str, values: Mapping[str, Any], *, by: str | None = None) -> str:
        return _only(self.create_many(sobject, [values], by=by)).id or ""

    def update(self, sobject: str, id: str, values: Mapping[str, Any], *, by: str | None = None) -> None:
        _only(self.update_many(sobject, [{**values, "Id": id}], by=by))

    def create_many(self, sobject: str, rows: Sequence[Mapping[str, Any]], *, by: str | None = None) -> list[Outcome]:
        """Create records in one transaction; an error of one leaves the others. Outcomes in order."""
        return self.writer.write(Batch("insert", self.objects[sobject], rows, by or self.admin_id))

    def update_many(self, sobject: str, rows: Sequence[Mapping[str, Any]], *, by: str | None = None) -> list[Outcome]:
        """Update records, each row with its Id. Outcomes in order."""
        return self.writer.write(Batch("update", self.objects[sobject], rows, by or self.admin_id))

    def upsert(self, sobject: str, key: str, values: Mapping[str, Any], *, by: str | None = None) -> str:
        batch = Batch("upsert", self.objects[sobject], [values], by or self.admin_id, key=key)
        return _only(self.writer.write(batch)).id or ""

    def delete(self, sobject: str, id: str, *, by: str | None = None) -> None:
        """Into the recycle bin, with what belongs to it."""
        _only(self.writer.write(Batch("delete", self.objects[sobject], [{"Id": id}], by or self.admin_id)))

    def undelete(self, sobject: str, id: str, *, by: str | None = None) -> None:
        """Out of the recycle bin, with what went along."""
        _only(self.writer.write(Batch("undelete", self.objects[sobject], [{"Id": id}], by or self.admin_id)))

    def hard_delete(self, sobject: str, id: str, *, by: str | None = None) -> None:
        """Remove for good; only getDeleted still tells of it."""
        _only(self.writer.write(Batch("hardDelete", self.objects[sobject], [{"Id": id}], by or self.admin_id)))

    def merge_accounts(self, master_id: str, loser_ids: Iterable[str], *, by: str | None = None) -> None:
        """Merge accounts: contacts, opportunities and activities of the losers move to the master; losers keep MasterRecordId."""
        self.writer.merge_accounts(master_id, list(loser_ids), by or self.admin_id)

    # --- what admins do ---------------------------------------------------------------------------------------------------

    def add_field(
        self,
        sobject: str,
        name: str,
        type: str,
        label: str | None = None,
        length: int | None = None,
        formula: str | None = None,
        external_id: bool = False,
        picklist: Sequence[str] | None = None,
    ) -> None:
        """Add a custom field; old records get it empty and without a stamp. `formula` is Salesforce formula text.

        type: as in describes (string, textarea, picklist, double, currency, date, datetime, boolean, reference …).
        """
        o = self.objects[sobject]
        if not name.endswith("__c"):
            raise ValueError(f"A custom field's name ends with __c, not {name}")
        if name.lower() in {n.lower() for n in o.fields}:
            raise ValueError(f"There is already a field named {name} on {sobject}")
        keys: dict[str, Any] = {"formula": formula} if formula is not None else {}
        if type == "string":
            length = length or 255
        if length is not None:
            keys["length"] = length
        if external_id:
            keys |= {"externalId": True, "idLookup": True, "unique": True}
        if picklist is not None:
            keys["picklistValues"] = list(picklist)
        new = make_field(name, type, label, **keys)
        if formula is not None:
            new.sql = f"({formulas.to_sql(formula, o, self.objects)})::{new.sql_type}"
        with self.lock:
            if new.stored:
                self.con.execute(f'ALTER TABLE "{sobject}" ADD COLUMN "{name}" {new.sql_type}')
                if new.type == "boolean":
                    self.con.execute(f'UPDATE "{sobject}" SET "{name}" = false')
            self._remember(o, new, whole=True)
            o.add(new)

    def set_formula(self, sobject: str, name: str, formula: str) -> None:
        """Change what a formula field computes: every record shows it at once, and no stamp moves."""
        o = self.objects[sobject]
        f = o.fields[name]
        if f.formula is None:
            raise ValueError(f"{sobject}.{name} is no formula field")
        with self.lock:
            f.sql = f"({formulas.to_sql(formula, o, self.objects)})::{f.sql_type}"
            f.formula = f.definition["calculatedFormula"] = formula
            self._remember(o, f, whole=True)

    def hide_field(self, sobject: str, name: str, *, hidden: bool = True) -> None:
        """Take the field from the API user by field-level security: describes omit it, SOQL knows no such column."""
        o = self.objects[sobject]
        o.fields[name].hidden = hidden
        with self.lock:
            self._remember(o, o.fields[name])

    def hide_object(self, sobject: str, *, hidden: bool = True) -> None:
        """Take the object from the API user: it is not there for him. Lasts as long as this process."""
        self.objects[sobject].hidden = hidden

    def remember_field(self, sobject: str, name: str) -> None:
        """Keep a field's changed definition with the org's file."""
        with self.lock:
            self._remember(self.objects[sobject], self.objects[sobject].fields[name], whole=True)

    def _remember(self, o: SObject, f: Field, *, whole: bool = False) -> None:
        before = self.con.execute(
            "SELECT definition FROM simulator.field WHERE sobject = ? AND name = ?", [o.name, f.name]
        ).fetchone()  # fmt: skip
        definition = orjson.dumps(f.definition).decode() if whole else before[0] if before else None
        self.con.execute("DELETE FROM simulator.field WHERE sobject = ? AND name = ?", [o.name, f.name])
        self.con.execute("INSERT INTO simulator.field VALUES (?, ?, ?, ?, ?)", [o.name, f.name, definition, f.formula, f.hidden])

    def add_stage(
        self,
        master_label: str,
        *,
        probability: int,
        forecast_category: str,
        is_closed: bool = False,
        is_won: bool = False,
        sort_order: int | None = None,
        api_name: str | None = None,
        is_active: bool = True,
    ) -> str:
        """Add a value of StageName with what it sets. forecast_category: Omitted, Pipeline, BestCase, MostLikely, Forecast or Closed."""
        if forecast_category not in FORECAST_CATEGORY_NAMES:
            raise ValueError(f"forecast_category is one of {', '.join(FORECAST_CATEGORY_NAMES)}, not {forecast_category}")
        with self.lock:
            stage_id = ids.make_id("01J", self.take_numbers("OpportunityStage", 1))
            by, stamp = self.admin_id, self.now()
            self.con.execute(
                """
                INSERT INTO "OpportunityStage" BY NAME
                SELECT $id AS "Id", $label AS "MasterLabel", coalesce($api_name, $label) AS "ApiName", $active AS "IsActive",
                       coalesce($sort_order, (SELECT coalesce(max("SortOrder"), 0) + 1 FROM "OpportunityStage")) AS "SortOrder",
                       $closed AS "IsClosed", $won AS "IsWon", $category AS "ForecastCategory",
                       $category_name AS "ForecastCategoryName", $probability AS "DefaultProbability",
                       $stamp::TIMESTAMP AS "CreatedDate", $by AS "CreatedById",
                       $stamp::TIMESTAMP AS "LastModifiedDate", $by AS "LastModifiedById", $stamp::TIMESTAMP AS "SystemModstamp"
                """,
                {
                    "id": stage_id, "label": master_label, "api_name": api_name, "active": is_active, "sort_order": sort_order,
                    "closed": is_closed, "won": is_won, "category": forecast_category, "by": by,
                    "category_name": FORECAST_CATEGORY_NAMES[forecast_category], "probability": probability,
                    "stamp": stamp.replace(tzinfo=None),
                },
            )  # fmt: skip
        return stage_id

    def add_validation_rule(self, sobject: str, name: str, formula: str, message: str, field: str | None = None) -> None:
        """Refuse writes after which `formula` is true, with FIELD_CUSTOM_VALIDATION_EXCEPTION. Lasts as long as this process."""
        sql = formulas.to_sql(formula, self.objects[sobject], self.objects)
        self._rules.append((sobject, name, sql, message, field))

    def remove_validation_rule(self, name: str) -> None:
        self._rules = [rule for rule in self._rules if rule[1] != name]

    def rules(self, sobject: str) -> list[tuple[str, str, str | None]]:
        """SQL, message and field of the object's validation rules."""
        return [(sql, message, field) for of, _, sql, message, field in self._rules if of == sobject]

    def lock_rows(self, record_ids: Iterable[str], *, times: int = 1) -> None:
        """Let the next `times` writes to each of these records fail with UNABLE_TO_LOCK_ROW."""
        for record_id in record_ids:
            self._locked[ids.to_18(record_id) or record_id] = times

    def take_locks(self, record_ids: Iterable[str]) -> list[str]:
        """Which of the records are locked for this attempt; it uses up one of their times."""
        found = [i for i in record_ids if self._locked.get(i, 0) > 0]
        for i in found:
            self._locked[i] -= 1
        return found

    @property
    def has_locks(self) -> bool:
        return any(times > 0 for times in self._locked.values())

    # --- the API's counter and its queue of jobs ---------------------------------------------------------------------------

    def count_call(self) -> bool:
        """Count one API call; False when the day's calls are used up."""
        with self.lock:
            self._new_day()
            if self._calls >= self.daily_limit:
                return False
            self._calls += 1
            return True

    def use_calls(self, count: int) -> None:
        """Let others have made `count` calls today, beside ours. `daily_limit` may be set too."""
        with self.lock:
            self._new_day()
            self._calls = min(self._calls + count, self.daily_limit)

    @property
    def calls_today(self) -> int:
        with self.lock:
            self._new_day()
            return self._calls

    def _new_day(self) -> None:
        today = self.clock.now().date()
        if today != self._calls_day:
            self._calls, self._calls_day = 0, today

    def release_jobs(self) -> None:
        """Let the Bulk jobs that `hold_jobs` has kept waiting begin, and later ones at once."""
        self.hold_jobs = False
        self.jobs.release()

    def app(self) -> Starlette:
        """The org's HTTP API as a Starlette app, faults and remote control included."""
        from connectors.simulator.salesforce.api import make_app

        return make_app(self)


def _only(outcomes: list[Outcome]) -> Outcome:
    """The one outcome of a single write; its error, if any, is raised."""
    outcome = outcomes[0]
    if outcome.errors:
        code, message, fields = outcome.errors[0]
        raise SalesforceError(code, message, fields=fields)
    return outcome
