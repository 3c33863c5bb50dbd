"""Whatever a CRM went through, whenever a load was killed: in the end the warehouse says what the CRM says."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warehouse_land import NOON, deal, history, inbound, opp_id, opportunity, past, rows, sales, stamp

from warehouse import ops
from warehouse.connection import open_warehouse
from warehouse.load import load

HOUR = timedelta(hours=1)
STAGES = ["Prospecting", "Qualification", "Needs Analysis", "Closed Won", "Closed Lost"]
HS_STAGES = ["appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "closedwon", "closedlost"]
IDS = st.integers(1, 4)


class Killed(Exception):
    pass


@dataclass
class Record:
    """A deal as the CRM knows it. A purged one is in no listing."""

    amount: float | None = 100.0
    stage: int = 1
    contacts: int = 0
    deleted_at: datetime | None = None
    purged: bool = False
    stamp: datetime = NOON
    moves: list[tuple[datetime, int]] = field(default_factory=list)


class Crm:
    """A CRM as small as it can be, with the habits that matter: deleting and attaching move no stamp where HubSpot moves none."""

    def __init__(self, hubspot: bool) -> None:
        self.hubspot, self.now = hubspot, NOON
        self.deals: dict[int, Record] = {}

    def act(self, action: tuple[str, int, Any]) -> None:
        kind, number, value = action
        self.now += HOUR
        if kind == "create" or number not in self.deals:
            if number not in self.deals:
                self.deals[number] = Record(stamp=self.now, moves=[(self.now, 1)])
            return
        record = self.deals[number]
        if record.purged:
            return
        if kind == "delete" and record.deleted_at is None:
            record.deleted_at = self.now
            record.stamp = record.stamp if self.hubspot else self.now
        elif kind == "restore" and record.deleted_at is not None:
            record.deleted_at = None
            record.stamp = record.stamp if self.hubspot else self.now
        elif kind == "purge":
            record.purged = True
        elif kind == "attach" and record.deleted_at is None:
            record.contacts = value % 3
        elif kind == "amount" and record.deleted_at is None:
            record.amount, record.stamp = float(value), self.now
        elif kind == "stage" and record.deleted_at is None and record.stage != value % len(STAGES):
            record.stage, record.stamp = value % len(STAGES), self.now
            record.moves.append((self.now, record.stage))

    def pull(self, root: Path, run: int, since: datetime | None, known_live: set[int]) -> Path:
        """What a connector lands: everything, or what moved since with an overlap, and what moves no stamp by its own ways."""
        full = since is None
        lower = NOON - 900 * HOUR if since is None else since - 3 * HOUR
        there = {n: r for n, r in self.deals.items() if not r.purged}
        touched = {n: r for n, r in there.items() if r.stamp >= lower}
        if self.hubspot:
            live = {n: r for n, r in there.items() if r.deleted_at is None}
            restored = {n: r for n, r in live.items() if n not in known_live}
            chosen = live if full else {n: r for n, r in (touched | restored).items() if r.deleted_at is None}
            archived = [{**self._deal(n, r), "archivedAt": _z(r.deleted_at), "archived": True} for n, r in there.items() if r.deleted_at]
            links = [{"id": str(n), "contacts": [str(i) for i in range(r.contacts)], "companies": []} for n, r in live.items()]
            return inbound(
                root, run, [self._deal(n, r) for n, r in chosen.items()], full=full, archived=archived, associations=links,
                gone=[] if full else [{"id": str(n)} for n, r in self.deals.items() if r.purged and n in known_live],
                history=[past(n, dealstage=[(at, HS_STAGES[s]) for at, s in r.moves]) for n, r in chosen.items()],
            )  # fmt: skip
        chosen = there if full else touched
        roles = [
            {"Id": f"00K{n:06d}{i:06d}AAA", "OpportunityId": opp_id(n), "ContactId": f"003{i}", "Role": None, "IsPrimary": False,
             "IsDeleted": i >= r.contacts, "SystemModstamp": stamp(self.now)}
            for n, r in there.items() for i in range(3)
        ]  # fmt: skip
        return sales(
            root, run, [self._opportunity(n, r) for n, r in chosen.items()], full=full, OpportunityContactRole=roles,
            deleted={} if full else {opp_id(n): self.now for n, r in self.deals.items() if r.purged},
            OpportunityHistory=[history(n, i, at, STAGES[s]) for n, r in chosen.items() for i, (at, s) in enumerate(r.moves)],
        )  # fmt: skip

    def _opportunity(self, n: int, r: Record) -> dict[str, Any]:
        return opportunity(
            n, r.stamp, Amount=r.amount, StageName=STAGES[r.stage], IsClosed=r.stage > 2, IsWon=r.stage == 3,
            IsDeleted=r.deleted_at is not None, CreatedDate=stamp(r.moves[0][0]), LastStageChangeDate=stamp(r.moves[-1][0]),
        )  # fmt: skip

    def _deal(self, n: int, r: Record) -> dict[str, Any]:
        record = deal(
            n, r.stamp, amount=str(r.amount), dealstage=HS_STAGES[r.stage], hs_is_closed=str(r.stage > 2).lower(),
            hs_is_closed_won=str(r.stage == 3).lower(), createdate=_z(r.moves[0][0]), hs_createdate=_z(r.moves[0][0]),
        )  # fmt: skip
        return record


def _z(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None


KINDS = ["create", "amount", "amount", "stage", "stage", "attach", "delete", "restore", "purge"]
ACTIONS = st.tuples(st.sampled_from(KINDS), IDS, st.integers(0, 9))
NIGHTS = st.lists(st.tuples(st.lists(ACTIONS, max_size=5), st.booleans(), st.integers(0, 25)), min_size=1, max_size=5)


def state(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What the warehouse says of each deal that is there."""
    found = rows(
        con,
        "select opportunity_id, amount::double as amount, crm_stage, is_closed, is_won, is_deleted, contact_count, stage_entered_at "
        "from core.opportunity",
    )
    return {row.pop("opportunity_id"): row for row in found}


def truth(crm: Crm) -> dict[str, Any]:
    names, closed = (HS_STAGES if crm.hubspot else STAGES), 2
    return {
        (str(n) if crm.hubspot else opp_id(n)): {
            "amount": r.amount, "crm_stage": names[r.stage], "is_closed": r.stage > closed, "is_won": r.stage == closed + 1,
            "is_deleted": False, "contact_count": r.contacts, "stage_entered_at": r.moves[-1][0],
        }
        for n, r in crm.deals.items() if not r.purged and r.deleted_at is None
    }  # fmt: skip


def check_history(con: duckdb.DuckDBPyConnection, crm: Crm) -> None:
    """Moves are the CRM's; versions follow each other without gap, overlap or emptiness, and the last one is the deal."""
    names = HS_STAGES if crm.hubspot else STAGES
    for n, r in crm.deals.items():
        if r.purged or r.deleted_at is not None:
            continue
        key = f"inbound:{n}" if crm.hubspot else f"sales:{opp_id(n)}"
        told = rows(con, 'select "at", to_crm_stage from core.stage_event where opportunity_key = $1 order by "at"', key)
        assert [(row["at"], row["to_crm_stage"]) for row in told] == [(at, names[s]) for at, s in r.moves]
        versions = rows(con, "from core.opportunity_version where opportunity_key = $1 order by valid_from", key)
        ends = [v["valid_to"] for v in versions]
        assert ends[-1] is None
        assert ends[:-1] == [v["valid_from"] for v in versions[1:]]
        assert all(v["valid_to"] is None or v["valid_from"] < v["valid_to"] for v in versions)
        assert versions[-1]["crm_stage"] == names[r.stage]
    doubles = "select opportunity_key from core.opportunity group by 1 having count(*) > 1"
    assert rows(con, doubles) == []


# CI plays fewer, as of the schedules.
EXAMPLES = min(80, 3 * int(os.environ.get("PLUMBLINE_SCHEDULES", "500")))
BOTH = pytest.mark.parametrize("hubspot", [False, True], ids=["salesforce", "hubspot"])
CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@BOTH
@settings(max_examples=2, deadline=None, suppress_health_check=CALM, derandomize=True)
@given(nights=NIGHTS)
def test_the_warehouse_converges_to_the_crm(empty_warehouse: Path, hubspot: bool, nights: list[Any]) -> None:
    converge(empty_warehouse, hubspot, nights)


@pytest.mark.slow
@BOTH
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CALM)
@given(nights=NIGHTS)
def test_the_warehouse_converges_to_the_crm_whatever_happens(empty_warehouse: Path, hubspot: bool, nights: list[Any]) -> None:
    converge(empty_warehouse, hubspot, nights)


def converge(empty_warehouse: Path, hubspot: bool, nights: list[Any]) -> None:
    """Each night: people work, a pull is landed, its load may be killed at any step. A night that is killed is simply followed by
    the next one, which begins from what was committed."""
    crm = Crm(hubspot)
    source = "inbound" if hubspot else "sales"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "w.duckdb"
        path.write_bytes(empty_warehouse.read_bytes())
        calm = [([], False, 99), ([], False, 99)]  # two nights in which nothing happens
        previous: dict[str, Any] = {}
        for run, (actions, full, dies_at) in enumerate([*nights, *calm], 1):
            for action in actions:
                crm.act(action)
            with open_warehouse(path, threads=1) as warehouse:
                con = warehouse.con
                since = None if full else ops.watermarks(con, source).get("deals" if hubspot else "Opportunity")
                before = state(con)
                live = {int(key if hubspot else key[3:-3]) for key, row in before.items() if not row["is_deleted"]}
                pull = crm.pull(Path(scratch), run, since, live)
                steps: list[str] = []

                def step(name: str, steps: list[str] = steps, dies_at: int = dies_at) -> None:
                    steps.append(name)
                    if len(steps) > dies_at:
                        raise Killed

                try:
                    result = load(con, pull, now=crm.now + run * timedelta(minutes=1), after_step=step)
                except Killed:
                    assert steps[-1] == "commit" or state(con) == before
                    continue
                previous = {c.object: c for c in result}
        with open_warehouse(path, threads=1) as warehouse:
            found = {key: row for key, row in state(warehouse.con).items() if not row["is_deleted"]}
            assert found == truth(crm)
            check_history(warehouse.con, crm)
        deals = previous["deals" if hubspot else "Opportunity"]
        assert (deals.inserted, deals.changed, deals.echoed, deals.deleted) == (0, 0, 0, 0)


@BOTH
def test_killed_after_any_step_the_warehouse_is_as_before_or_as_after(con: Any, tmp_path: Path, hubspot: bool) -> None:
    crm = Crm(hubspot)
    for action in [("create", 1, 0), ("create", 2, 0), ("create", 3, 0), ("stage", 1, 3)]:
        crm.act(action)
    load(con, crm.pull(tmp_path, 1, None, set()), now=crm.now)
    for action in [("amount", 1, 7), ("stage", 2, 4), ("delete", 3, 0), ("create", 4, 0), ("attach", 1, 2)]:
        crm.act(action)
    pull = crm.pull(tmp_path, 2, NOON, {1, 2, 3})
    of_load = "select schema_name || '.' || table_name as t from duckdb_tables() where schema_name in ('core', 'raw', 'ops')"
    tables = [row["t"] for row in rows(con, of_load)]

    def everything() -> dict[str, list[str]]:
        return {table: sorted(map(str, con.execute(f"from {table}").fetchall())) for table in tables}

    before, names = everything(), []
    load_until = 0
    while True:
        names.clear()

        def step(name: str, stop: int = load_until) -> None:
            names.append(name)
            if len(names) > stop:
                raise Killed

        try:
            load(con, pull, now=crm.now, after_step=step)
            break
        except Killed:
            if names[-1] == "commit":
                break
            assert everything() == before, f"killed after {names[-1]}"
            load_until += 1
    assert len(names) > 10
    assert everything() != before
    assert {key: row for key, row in state(con).items() if not row["is_deleted"]} == truth(crm)
    after = everything()
    load(con, pull, now=crm.now)
    unmoved = [t for t in tables if t not in {"ops.sync_object"}]
    again = everything()
    assert {t: again[t] for t in unmoved} == {t: after[t] for t in unmoved}
