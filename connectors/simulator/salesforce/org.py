"""The simulated org: its schema and records in DuckDB, and what its people can do with them.

One table per object, named as the object, one column per stored field, named as the field; columns that begin with an underscore
are the org's own book-keeping. Instants are TIMESTAMP in UTC at whole seconds, as Salesforce keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.http import RequestLog, RunningServer, serve
from connectors.simulator.salesforce import access, ids, seed
from connectors.simulator.salesforce.auth import Identity
from connectors.simulator.salesforce.bulk import Jobs
from connectors.simulator.salesforce.errors import SalesforceError
from connectors.simulator.salesforce.results import Results
from connectors.simulator.salesforce.setup import SetUp
from connectors.simulator.salesforce.state import BIN_DAYS
from connectors.simulator.salesforce.writes import Batch, Outcome, Writer

if TYPE_CHECKING:
    from starlette.applications import Starlette

ARCHIVE_DAYS = 365  # after which a finished activity is archived


class SalesforceOrg(SetUp):
    """A Salesforce org whose state is a DuckDB file, or memory when `path` is None.

    seed_company: called with the org when it is new, to fill it; a new org has its users, stages and currencies in any case.
    Every method that writes has the side effects of the real platform. `by` is the id of the user who does it; default: the admin.
    Thread-safe: a cursor per read, one write at a time. Raises SalesforceError as the API would answer.

    Plain attributes that may be set: daily_limit (calls a day), bulk_enabled, in_progress_polls (how often a Bulk job answers
    InProgress before it is done), bulk_page and query_page (records of a page at most; None: what the platform gives), job_page
    (jobs in one answer of the list of jobs), hold_jobs (new Bulk jobs wait, InProgress to whoever polls, until `release_jobs()`),
    replication_errors (getDeleted refuses a start before its log does; else it answers what it has, as earliestDateAvailable tells).
    `request_log` has every request that the org was sent, control calls left out: `.calls`, `.counts`, `.clear()`.
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
        super().__init__(path, clock, faults)
        self.api_version = api_version
        self.identity = Identity(self)
        self.request_log = RequestLog()
        self.results, self.jobs = Results(self), Jobs(self)
        self.writer = Writer(self)
        self._usual()
        if self.is_new:
            self._create()
            self._fill(seed_company)
        else:
            self._load()
            access.attach(self)
            self._apply_rights()
            self.renumber()

    def _usual(self) -> None:
        """The knobs as they are unless a test turns them."""
        self.daily_limit = 115_000
        self.bulk_enabled = True
        self.in_progress_polls = 1
        self.bulk_page: int | None = None
        self.query_page: int | None = None
        self.job_page = 1000
        self.hold_jobs = False
        self.replication_errors = False
        self._calls, self._calls_day = 0, self.clock.now().date()
        self._locked: dict[str, int] = {}

    def _fill(self, seed_company: Callable[[SalesforceOrg], None] | None) -> None:
        access.attach(self)
        seed.fill(self)
        if seed_company is not None:
            seed_company(self)
            self.renumber()

    def reset(self, *, seed_company: Callable[[SalesforceOrg], None] | None = None) -> None:
        """Make it a new org, as of the clock: no records but the set-up, no jobs, faults, sessions, settings or requests.

        Servers and clients' connections stay; who had a session signs in anew.
        """
        with self.lock:
            self.faults.clear()
            self.jobs.clear()
            self.results.clear()
            self.identity.revoke()
            self._usual()
            self._empty()
            self._create()
            self._fill(seed_company)
            self.request_log.watch = None
            self.request_log.clear()

    @property
    def integration_user_id(self) -> str:
        return self.user_id(self.identity.username)

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

    def set_line_items(self, opportunity: str, has: bool = True, *, by: str | None = None) -> None:
        """Give a deal line items, or take the last one away: the platform sets HasOpportunityLineItem, and the deal's stamps move."""
        stamp = self.now().replace(tzinfo=None)
        with self.lock:
            self.con.execute(
                'UPDATE "Opportunity" SET "HasOpportunityLineItem" = ?, "LastModifiedDate" = ?, "SystemModstamp" = ?, '
                '"LastModifiedById" = ? WHERE "Id" = ?', [has, stamp, stamp, by or self.admin_id, opportunity],
            )  # fmt: skip

    def late(self, seconds: float, *, times: int = 1) -> None:
        """Let the next `times` writes of people be stamped at once and commit `seconds` of the clock later; the API's are as ever.

        Until then the records that they touch are locked: other writes to them fail with UNABLE_TO_LOCK_ROW, see `in_flight()`.
        """
        self.faults.arm("late_commit", times=times, seconds=seconds, path="^$")

    def archive_activities(self, activity_ids: Iterable[str] | None = None) -> int:
        """Archive tasks and events: these, or what was over more than a year ago. Only queryAll still has them; no stamp moves."""
        listed = None if activity_ids is None else [ids.to_18(i) or i for i in activity_ids]
        day = (self.clock.now() - timedelta(days=ARCHIVE_DAYS)).date()
        count = 0
        with self.lock:
            for name, is_over in (("Task", '"IsClosed" AND coalesce("ActivityDate", "CreatedDate"::DATE)'), ("Event", '"EndDate"')):
                which = f"{is_over} < ?" if listed is None else '"Id" IN (SELECT unnest(?::VARCHAR[]))'
                changed = self.con.execute(
                    f'UPDATE "{name}" SET "IsArchived" = true WHERE NOT "IsArchived" AND {which}', [day if listed is None else listed]
                ).fetchone()
                count += int(changed[0]) if changed else 0
        return count

    def empty_recycle_bin(self, *, everything: bool = False) -> int:
        """Remove for good what has been in the recycle bin for 15 days, or everything in it. getDeleted still tells of it.

        Gives the number of records removed, children among them.
        """
        until = self.now() if everything else self.now() - timedelta(days=BIN_DAYS)
        count = 0
        with self.lock:
            self.settle()
            for o in self.tables():
                if not o.soft_deletes:
                    continue
                stamp = 'x."SystemModstamp"' if "SystemModstamp" in o.fields else 'x."CreatedDate"'
                gone = self.con.execute(
                    f"""DELETE FROM "{o.name}" x WHERE x."IsDeleted" AND coalesce(
                        (SELECT max(d.deleted_at) FROM simulator.deletion d WHERE d.sobject = ? AND d.id = x."Id"), {stamp}) <= ?""",
                    [o.name, until.replace(tzinfo=None)],
                ).fetchone()
                count += int(gone[0]) if gone else 0
        return count

    # --- row locks --------------------------------------------------------------------------------------------------------

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

    def serve(self, port: int = 0) -> RunningServer:
        """Serve the org alone on loopback until it is stopped; a context manager with `url`. Port 0 takes a free one.

        A `reset()` leaves it up. Raises OSError when the port is taken.
        """
        return serve(self.app(), port)


def _only(outcomes: list[Outcome]) -> Outcome:
    """The one outcome of a single write; its error, if any, is raised."""
    outcome = outcomes[0]
    if outcome.errors:
        code, message, fields = outcome.errors[0]
        raise SalesforceError(code, message, fields=fields)
    return outcome
