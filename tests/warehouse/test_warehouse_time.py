"""Any day's pipeline, and what became of it: as-of, snapshots of past days and the waterfall, against a plain reading of the same timelines."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from warehouse.business import state_timezone
from warehouse.snapshot import fill, rebuild, snapshot

ZONE = ZoneInfo("Europe/Berlin")
FIRST, LAST = date(2026, 1, 5), date(2026, 6, 30)
ENTRIES = ("new", "restored", "reopened", "transferred_in", "pulled_in", "pushed_in", "restated_in")
EXITS = ("deleted", "won", "lost", "transferred_out", "pushed_out", "pulled_out", "restated_out")
CHANGES = ("increased", "decreased", "fx")
HAPPENINGS = ("amount", "amount", "push", "pull", "owner", "pipeline", "win", "lose", "delete", "undelete", "reopen", "coin", "none")


@dataclass(frozen=True)
class State:
    """What a deal is from `valid_from` on."""

    opportunity_key: str
    valid_from: datetime
    pipeline: str
    owner_id: str | None
    currency: str
    amount: Decimal | None
    amount_home: Decimal | None
    close_date: date | None
    stage: str
    is_closed: bool
    is_won: bool
    is_deleted: bool

    @property
    def group(self) -> tuple[str, str, str | None, str]:
        return self.opportunity_key.split(":")[0], self.pipeline, self.owner_id, self.currency

    @property
    def is_open(self) -> bool:
        return not self.is_closed and not self.is_deleted


def timelines(seed: int, deals: int) -> dict[str, list[State]]:
    """Lives of deals in which everything happens that the waterfall has a bucket for, some of it at midnight."""
    chance = random.Random(seed)
    rates = {"EUR": Decimal(1), "USD": Decimal("0.92"), "XXX": None}
    lives = {}
    for number in range(deals):
        key = f"{chance.choice(['sales', 'inbound'])}:{number}"
        at = datetime.combine(FIRST + timedelta(days=chance.randrange(150)), time(chance.choice([0, 9, 23]), 0), ZONE).astimezone(UTC)
        facts: dict[str, Any] = {
            "pipeline": chance.choice("PQ"), "owner_id": chance.choice(["a", "b", None]), "currency": chance.choice(["EUR", "EUR", "USD", "XXX"]),
            "amount": Decimal(chance.randrange(10**7)) / 100, "close_date": FIRST + timedelta(days=chance.randrange(250)),
            "stage": "discovery", "is_closed": chance.random() < 0.05, "is_won": False, "is_deleted": False,
        }  # fmt: skip
        if facts["is_closed"]:
            facts["stage"] = "closed_lost"
        life = []
        for _ in range(chance.randrange(1, 9)):
            rate = rates[facts["currency"]]
            if facts["currency"] == "USD" and chance.random() < 0.2:
                rate = Decimal("0.95")  # the rate of another day
            home = None if rate is None or facts["amount"] is None else (facts["amount"] * rate).quantize(Decimal("0.01"))
            life.append(State(key, at, amount_home=home, **facts))
            at += timedelta(minutes=chance.choice([10, 60, 60 * 24, 60 * 24 * 9, 60 * 24 * 40]))
            happens = chance.choice(HAPPENINGS)
            if happens == "amount":
                facts["amount"] = chance.choice([None, Decimal(0), Decimal(chance.randrange(10**7)) / 100])
            elif happens in ("push", "pull") and facts["close_date"]:
                facts["close_date"] += timedelta(days=chance.choice([3, 40, 90]) * (1 if happens == "push" else -1))
            elif happens == "owner":
                facts["owner_id"] = chance.choice(["a", "b", None])
            elif happens == "pipeline":
                facts["pipeline"] = chance.choice("PQ")
            elif happens in ("win", "lose"):
                facts |= {"is_closed": True, "is_won": happens == "win", "stage": "closed_won" if happens == "win" else "closed_lost"}
                if chance.random() < 0.7:
                    facts["close_date"] = at.astimezone(ZONE).date()
            elif happens == "reopen":
                facts |= {"is_closed": False, "is_won": False, "stage": "proposal"}
            elif happens in ("delete", "undelete"):
                facts["is_deleted"] = happens == "delete"
            elif happens == "coin":
                facts["currency"] = chance.choice(["EUR", "USD"])
        lives[key] = life
    return lives


def store(con: Any, lives: dict[str, list[State]]) -> None:
    """Write the timelines as core.opportunity_version holds them, and the sources that say in which zone days are."""
    rows = [
        {**asdict(state), "valid_from": state.valid_from.isoformat(), "valid_to": after and after.valid_from.isoformat(), "origin": "observed",
         "amount": None if state.amount is None else str(state.amount), "amount_home": None if state.amount_home is None else str(state.amount_home),
         "probability": "0.5"}
        for life in lives.values()
        for state, after in zip(life, [*life[1:], None], strict=True)
    ]  # fmt: skip
    names = [row[0] for row in con.execute("describe core.opportunity_version").fetchall() if row[0] in rows[0]]
    kinds = {row[0]: row[1] for row in con.execute("describe core.opportunity_version").fetchall()}
    shape = orjson.dumps([{name: kinds[name] for name in names}]).decode()
    read = f"select unnest(from_json($1::json, '{shape}'), recursive := true)"
    con.execute(f"insert into core.opportunity_version by name {read}", [orjson.dumps(rows).decode()])
    for source in ("sales", "inbound"):
        con.execute(
            "insert into core.source (source, crm, business_timezone, home_currency, first_synced_at, last_synced_at) "
            "values ($1, 'salesforce', 'Europe/Berlin', 'EUR', now(), now())",
            [source],
        )
        for owner in "ab":
            con.execute(
                "insert into core.owner (owner_key, source, owner_id, name, is_active, is_seller) values ($1, $2, $3, $4, true, true)",
                [f"{source}:{owner}", source, owner, owner.upper()],
            )
    state_timezone(con)


def at_end_of(lives: dict[str, list[State]], day: date) -> dict[str, State]:
    """The deals that existed when a business day ended, as they were."""
    end = datetime.combine(day + timedelta(days=1), time(), ZONE)
    found = {}
    for key, life in lives.items():
        before = [state for state in life if state.valid_from < end]
        if before:
            found[key] = before[-1]
    return found


@pytest.fixture(scope="module")
def lives() -> dict[str, list[State]]:
    return timelines(7, 400)


@pytest.fixture
def told(con: Any, lives: dict[str, list[State]]) -> Any:
    store(con, lives)
    return con


def test_the_deals_as_they_were_at_any_instant(told: Any, lives: dict[str, list[State]]) -> None:
    chance = random.Random(1)
    changes = [state.valid_from for life in lives.values() for state in life]
    for n in range(40):
        instant = chance.choice(changes) + timedelta(seconds=chance.choice([-1, 0, 1])) if n % 2 else chance.choice(changes)
        found = told.execute(
            "select opportunity_key, valid_from, owner_id, amount, is_deleted from bi.opportunity_as_of($1)", [instant]
        ).fetchall()
        truth = {key: [s for s in life if s.valid_from <= instant][-1] for key, life in lives.items() if life[0].valid_from <= instant}
        assert sorted(found) == sorted((k, s.valid_from, s.owner_id, s.amount, s.is_deleted) for k, s in truth.items())


def waterfall(lives: dict[str, list[State]], t0: date, t1: date, w0: date, w1: date) -> dict[tuple[Any, ...], list[Any]]:
    """domain: each deal for itself, in the words of the definition. {(group, bucket): [deals, amount, amount_home]}"""
    before, after = at_end_of(lives, t0), at_end_of(lives, t1)
    booked: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, Decimal(0), Decimal(0)])

    def money(state: State | None) -> tuple[Decimal, Decimal]:
        return (state.amount or Decimal(0), state.amount_home or Decimal(0)) if state else (Decimal(0), Decimal(0))

    def side(state: State) -> int:
        """On which side of the window a deal is to be closed."""
        return 0 if state.close_date is None else (state.close_date > w1) - (state.close_date < w0)

    def book(group: Any, bucket: str, deals: int, values: tuple[Decimal, Decimal], sign: int = 1) -> None:
        row = booked[group, bucket]
        row[0] += deals
        row[1] += sign * values[0]
        row[2] += sign * values[1]

    for key in after.keys() | before.keys():
        b, e = before.get(key), after.get(key)
        for group in {state.group for state in (b, e) if state}:
            here0, here1 = bool(b and b.group == group), bool(e and e.group == group)
            in0 = bool(b and here0 and b.is_open and b.close_date and w0 <= b.close_date <= w1)
            in1 = bool(e and here1 and e.is_open and e.close_date and w0 <= e.close_date <= w1)
            a, x = money(b), money(e)
            recoined = bool(b and e and b.group[:3] == e.group[:3])
            closed_between = bool(
                e and here1 and e.is_closed and not (b and b.is_closed) and not (b and b.is_deleted and e.is_deleted)
                and e.close_date and w0 <= e.close_date <= w1
            )
            if in0:
                book(group, "opening", 1, a)
            if in1:
                book(group, "closing", 1, x)
            if not in0 and (in1 or closed_between):
                if not b:
                    entry = "new"
                elif b.is_deleted:
                    entry = "restored"
                elif b.is_closed:
                    entry = "reopened"
                elif not here0:
                    entry = "restated_in" if recoined else "transferred_in"
                else:
                    entry = {1: "pulled_in", -1: "pushed_in"}.get(side(b), "restated_in")
                book(group, entry, 1, x)
            exit_ = None
            if (in0 and not in1) or (closed_between and not in0):
                assert e
                if e.is_deleted:
                    exit_ = "deleted"
                elif not here1:
                    exit_ = "restated_out" if recoined else "transferred_out"
                elif e.is_closed:
                    exit_ = "won" if e.is_won else "lost"
                else:
                    exit_ = {1: "pushed_out", -1: "pulled_out"}.get(side(e), "restated_out")
            if in0 and a != x and (in1 or exit_ == "won"):
                change = (x[0] - a[0], x[1] - a[1])
                book(group, "fx" if not change[0] else "increased" if change[0] > 0 else "decreased", 0, change)
            if exit_:
                book(group, exit_, -1, x if exit_ == "won" or not in0 else a, -1)
    return booked


def _span(chance: random.Random) -> tuple[date, date, date, date]:
    t0, t1 = sorted(FIRST + timedelta(days=chance.randrange(-3, 200)) for _ in "ab")
    w0, w1 = sorted(FIRST + timedelta(days=chance.randrange(0, 260)) for _ in "ab")
    return t0, t1, w0, w1


def test_the_waterfall_is_what_happened_to_each_deal(told: Any, lives: dict[str, list[State]]) -> None:
    chance, seen = random.Random(2), Counter[str]()
    for _ in range(25):
        span = _span(chance)
        rows = told.execute("select * exclude bucket_order from bi.pipeline_movement($1, $2, $3, $4)", span).fetchall()
        found = {((s, p, o, c), bucket): [deals, amount, home] for s, p, o, c, bucket, deals, amount, home in rows}
        truth = waterfall(lives, *span)
        assert found == truth, span
        seen.update(bucket for _, bucket in found)
    assert set(seen) == {"opening", "closing", *ENTRIES, *EXITS, *CHANGES}


def test_waterfalls_reconcile_to_the_cent(told: Any) -> None:
    """opening + movements = closing, in every group, for every owner, in deals, in each currency and at home; test_time_machine.py has more."""
    chance = random.Random(3)
    told.execute("create temp table residue (deals hugeint, amount decimal(38, 2), home decimal(38, 2))")
    for _ in range(150):
        told.execute(
            """
            insert into residue
            select sum(if(bucket = 'closing', -deals, deals)), sum(if(bucket = 'closing', -amount, amount)),
                   sum(if(bucket = 'closing', -amount_home, amount_home))
            from bi.pipeline_movement($1, $2, $3, $4)
            group by source, pipeline, owner_id, currency
            """,
            _span(chance),
        )
    groups, wrong = told.execute("select count(*), count(*) filter (deals <> 0 or amount <> 0 or home <> 0) from residue").fetchone()
    assert groups > 1000 and wrong == 0


def test_what_was_won_was_booked(told: Any, lives: dict[str, list[State]]) -> None:
    """Over a window in which all fall, the deals won at the end that were not closed at the beginning, each for whom it was won."""
    t0, t1 = FIRST + timedelta(days=20), LAST
    before, after = at_end_of(lives, t0), at_end_of(lives, t1)
    truth: dict[Any, Decimal] = defaultdict(Decimal)
    for key, state in after.items():
        was = before.get(key)
        if state.is_won and not state.is_deleted and not (was and was.is_closed):
            truth[state.owner_id] += state.amount_home or 0
    found = dict(
        told.execute(
            "select owner_id, -sum(amount_home) from bi.pipeline_movement($1, $2, '1900-01-01', '2999-12-31') where bucket = 'won' group by 1",
            [t0, t1],
        ).fetchall()
    )
    assert found == truth


def stored(con: Any, day: date) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    facts = "owner_name, deals, amount, amount_home, deals_without_amount, deals_without_rate, is_rebuilt"
    key = "source, pipeline, stage, owner_id, currency"
    rows = con.execute(f"select {key}, {facts} from bi.pipeline_snapshot where snapshot_date = $1", [day]).fetchall()
    return {row[:5]: row[5:] for row in rows}


def expected(lives: dict[str, list[State]], day: date) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    groups: dict[Any, list[State]] = defaultdict(list)
    for state in at_end_of(lives, day).values():
        if state.is_open:
            source, pipeline, owner, currency = state.group
            groups[source, pipeline, state.stage, owner, currency].append(state)

    def total(values: list[Decimal | None]) -> Decimal | None:
        known = [value for value in values if value is not None]
        return sum(known, Decimal(0)) if known else None

    return {
        key: (
            key[3] and key[3].upper(), len(found), total([s.amount for s in found]), total([s.amount_home for s in found]),
            sum(s.amount is None for s in found), sum(s.amount is not None and s.amount_home is None for s in found), True,
        )
        for key, found in groups.items()
    }  # fmt: skip


def test_every_day_since_is_rebuilt_as_it_ended(told: Any, lives: dict[str, list[State]]) -> None:
    summary = rebuild(told, FIRST, LAST)
    assert summary["rebuilt"] == (LAST - FIRST).days + 1 and summary["deals"] == sum(row[1] for row in expected(lives, LAST).values())
    for day in (FIRST, date(2026, 3, 28), date(2026, 3, 29), date(2026, 5, 4), LAST):  # the night on which clocks move, too
        assert stored(told, day) == expected(lives, day), day
    assert told.execute("select count(*) from bi.pipeline_snapshot where flagged_deals is not null").fetchone() == (0,)
    before = told.execute("select count(*), bit_xor(hash(s)) from bi.pipeline_snapshot s").fetchone()
    rebuild(told, FIRST, LAST)
    assert told.execute("select count(*), bit_xor(hash(s)) from bi.pipeline_snapshot s").fetchone() == before


def test_a_night_that_was_missed_is_rebuilt_and_marked_so(told: Any, lives: dict[str, list[State]]) -> None:
    assert fill(told, business_date=LAST) == []  # nothing was ever taken: nothing was missed
    rebuild(told, date(2026, 4, 1), date(2026, 4, 1))
    rebuild(told, date(2026, 4, 4), date(2026, 4, 4))
    snapshot(told, now=datetime(2026, 4, 6, tzinfo=UTC), business_date=date(2026, 4, 6))
    missed = [date(2026, 4, 2), date(2026, 4, 3), date(2026, 4, 5)]
    assert fill(told, business_date=date(2026, 4, 6)) == missed
    assert all(stored(told, day) == expected(lives, day) for day in missed)


def test_findings_of_past_days_are_those_that_were_open_then(told: Any, lives: dict[str, list[State]]) -> None:
    day = date(2026, 5, 4)
    end = datetime.combine(day + timedelta(days=1), time(), ZONE)
    key = next(k for k, s in at_end_of(lives, day).items() if s.is_open and s.amount_home)
    told.execute(
        "insert into quality.run by name select 'r' as run_id, $1::timestamptz as as_of, $2::date as business_date, 'v' as rule_set_version, "
        "1 as rules, 0 as errored, true as success, 0 as opened, 0 as kept, 0 as resolved",
        [end - timedelta(days=9), day],
    )
    rule = {"rule_id": "r", "severity": "high", "state": "alert"}
    filled = [row[0] for row in told.execute("describe quality.rule").fetchall() if row[2] == "NO"]
    told.execute(
        f"insert into quality.rule ({', '.join(filled)}) values ({', '.join('?' for _ in filled)})", [rule.get(name, "x") for name in filled]
    )
    for n, (first, until) in enumerate([(-9, -3), (-2, None), (1, None)]):  # an episode before, one at that time, one later
        told.execute(
            "insert into quality.finding by name select $1 as finding_id, $2 as opportunity_key, 'r' as rule_id, 'high' as severity, "
            "'open' as state, 'm' as message, $3::timestamptz as first_seen_at, $3::timestamptz as last_seen_at, 1 as runs_seen, "
            "$4::timestamptz as resolved_at",
            [str(n), key, end + timedelta(days=first), None if until is None else end + timedelta(days=until)],
        )
    rebuild(told, day - timedelta(days=12), day)
    counts = dict(told.execute("select snapshot_date, sum(flagged_deals) from bi.pipeline_snapshot group by 1").fetchall())
    assert counts[day] == 1 and counts[day - timedelta(days=12)] is None
    amount = told.execute("select sum(flagged_amount_home) from bi.pipeline_snapshot where snapshot_date = $1", [day]).fetchone()[0]
    assert amount == at_end_of(lives, day)[key].amount_home


# Metrics of a span of days -----------------------------------------------------------------------------------------------------------


def present(con: Any, lives: dict[str, list[State]]) -> None:
    """The deals as they are, for what needs more than their past."""
    for key, life in lives.items():
        last = life[-1]
        source, id_ = key.split(":")
        row = {
            "opportunity_key": key, "source": source, "crm": "salesforce", "opportunity_id": id_, "pipeline": last.pipeline,
            "owner_id": last.owner_id,
            "stage": last.stage, "is_closed": last.is_closed, "is_won": last.is_won, "is_deleted": last.is_deleted, "amount_home": last.amount_home,
            "created_at": life[0].valid_from, "close_date": last.close_date, "synced_at": last.valid_from, "row_hash": "x",
        }  # fmt: skip
        con.execute(f"insert into core.opportunity ({', '.join(row)}) values ({', '.join('?' for _ in row)})", list(row.values()))


def spans(number: int) -> list[tuple[date, date]]:
    chance = random.Random(number)
    return [(a, b) for a, b in (sorted(FIRST + timedelta(days=chance.randrange(200)) for _ in "ab") for _ in range(12))]


def test_slippage_is_what_was_due_and_is_open_still(told: Any, lives: dict[str, list[State]]) -> None:
    for start, end in spans(4):
        due = {k: s for k, s in at_end_of(lives, start - timedelta(days=1)).items() if s.is_open and s.close_date and start <= s.close_date <= end}
        after = at_end_of(lives, end)
        truth: dict[Any, list[Any]] = defaultdict(lambda: [0, Decimal(0), 0, Decimal(0)])
        for key, state in due.items():
            if not after[key].is_deleted:
                row, amount = truth[state.group[:3]], state.amount_home or Decimal(0)
                slipped = not after[key].is_closed
                truth[state.group[:3]] = [row[0] + 1, row[1] + amount, row[2] + slipped, row[3] + (amount if slipped else 0)]
        names = "source, pipeline, owner_id, due_deals, due_amount_home, slipped_deals, slipped_amount_home"
        assert {row[:3]: list(row[3:]) for row in told.execute(f"select {names} from bi.slippage($1, $2)", [start, end]).fetchall()} == truth


def pushes(life: list[State]) -> list[tuple[date, date, date]]:
    """(day, from, to): net moves of the close date within a day of an open deal, by a week or more or into a later month."""
    days: dict[date, list[date]] = {}
    for before, after in pairwise(life):
        if before.close_date != after.close_date and not before.is_closed and not after.is_closed:
            assert before.close_date and after.close_date
            days.setdefault(after.valid_from.astimezone(ZONE).date(), [before.close_date, after.close_date])[1] = after.close_date
    return [
        (day, old, new) for day, (old, new) in days.items()
        if new > old and ((new - old).days >= 7 or (new.year, new.month) > (old.year, old.month))
    ]  # fmt: skip


def test_push_rate_is_of_the_deals_that_were_open_at_the_beginning(told: Any, lives: dict[str, list[State]]) -> None:
    present(told, lives)
    alive = {key: life for key, life in lives.items() if not life[-1].is_deleted}
    events = sorted((key, *push) for key, life in alive.items() for push in pushes(life))
    found = told.execute("select opportunity_key, pushed_date, old_close_date, new_close_date from bi.push_event order by all").fetchall()
    assert found == events and len(events) > 30
    for start, end in spans(5):
        truth: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
        for key, state in at_end_of(lives, start - timedelta(days=1)).items():
            if state.is_open:
                times = sum(start <= event[1] <= end for event in events if event[0] == key)
                row = truth[state.group[:3]]
                truth[state.group[:3]] = [row[0] + 1, row[1] + bool(times), row[2] + times]
        names = "source, pipeline, owner_id, open_deals, pushed_deals, pushes"
        assert {row[:3]: list(row[3:]) for row in told.execute(f"select {names} from bi.push_rate($1, $2)", [start, end]).fetchall()} == truth


def test_the_open_pipeline_of_a_day_is_in_the_period_past_due_or_neither(told: Any, lives: dict[str, list[State]]) -> None:
    present(told, lives)
    for day, end in spans(6):
        truth: dict[Any, list[Any]] = defaultdict(lambda: [0, Decimal(0), 0, Decimal(0), 0, 0])
        for state in at_end_of(lives, day).values():
            if state.is_open:
                source, pipeline, owner, _ = state.group
                row, amount = truth[source, pipeline, owner, state.stage], state.amount_home or Decimal(0)
                within = bool(state.close_date and FIRST <= state.close_date <= end and state.close_date >= day)
                for place, more in enumerate([1, amount, within, amount if within else 0, bool(state.close_date and state.close_date < day),
                                              state.amount_home is None]):  # fmt: skip
                    row[place] += more
        names = "source, pipeline, owner_id, stage, deals, amount_home, in_period_deals, in_period_amount_home, past_due_deals, without_amount"
        found = told.execute(f"select {names} from bi.open_pipeline($1, $2, $3)", [day, FIRST, end]).fetchall()
        assert {row[:4]: list(row[4:]) for row in found} == truth
