"""The metrics that managers read, against an independent computation in pandas over the same deals; and what each definition does at its edges."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from warehouse.business import state_timezone
from warehouse.connection import open_warehouse

ZONE = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
TODAY = date(2026, 11, 20)
RANKS = {"prequalified": 0, "qualified": 1, "discovery": 2, "proposal": 3, "negotiation": 4, "closed_won": 5, "closed_lost": 5, "on_hold": None}
OPEN = [stage for stage in RANKS if not stage.startswith("closed")]


def business_day(at: datetime | None) -> date | None:
    return at.astimezone(ZONE).date() if at else None


def deal(number: int, moves: list[tuple[datetime, str]], **facts: Any) -> dict[str, Any]:
    """A deal that entered these stages at these instants, the first when it was made."""
    stage = moves[-1][1]
    closings = [at for before, (at, to) in zip([None, *(m[1] for m in moves)], moves, strict=False)
                if to.startswith("closed") and not str(before).startswith("closed")]  # fmt: skip
    closed = stage.startswith("closed")
    return {
        "opportunity_key": f"sales:{number}", "opportunity_id": str(number), "source": "sales", "crm": "salesforce", "pipeline": "New",
        "owner_id": "a", "currency": "EUR", "amount": Decimal(100 * number), "stage": stage, "is_closed": closed,
        "is_won": stage == "closed_won", "is_deleted": False, "created_at": moves[0][0], "closed_at": closings[-1] if closed else None,
        "close_date": business_day(moves[-1][0]) if closed else TODAY + timedelta(days=30), "probability": Decimal("0.5"), "close_date_pushes": 1,
        "moves": moves,
    } | facts  # fmt: skip


def kind(before: str | None, after: str) -> str:
    if after.startswith("closed"):
        return "won" if after == "closed_won" else "lost"
    if before is None:
        return "enter"
    return "reopen" if before.startswith("closed") else "move"


def store(con: Any, deals: list[dict[str, Any]], first_month: int = 2) -> None:
    con.execute(
        "insert into core.source (source, crm, business_timezone, home_currency, fiscal_year_start_month, first_synced_at, last_synced_at) "
        "values ('sales', 'salesforce', 'Europe/Berlin', 'EUR', $1, $2, $2)",
        [first_month, NOW],
    )
    for owner, name in (("a", "Ada"), ("b", "Bo")):
        con.execute(
            "insert into core.owner (owner_key, source, owner_id, name, is_active, is_seller, team) values ($1, 'sales', $2, $3, true, true, 'West')",
            [f"sales:{owner}", owner, name],
        )
    state_timezone(con)
    rows, events = [], []
    for one in deals:
        rows.append({name: value for name, value in one.items() if name != "moves"} | {
            "amount_home": one.get("amount_home", one["amount"]), "stage_rank": RANKS[one["stage"]], "crm_stage": one["stage"],
            "owner_name": {"a": "Ada", "b": "Bo"}.get(one["owner_id"]), "synced_at": NOW, "row_hash": "x", "valid_from": one["created_at"],
            "origin": "observed",
        })  # fmt: skip
        before = None
        for at, stage in one["moves"]:
            events.append({
                "opportunity_key": one["opportunity_key"], "at": at, "from_stage": before, "to_stage": stage, "from_crm_stage": before,
                "to_crm_stage": stage, "kind": kind(before, stage),
            })  # fmt: skip
            before = stage
    for table, found in (("core.opportunity", rows), ("core.opportunity_version", rows), ("core.stage_event", events)):
        kinds = {name: sort for name, sort, *_ in con.execute(f"describe {table}").fetchall() if name in found[0]}
        document = json.dumps([{name: row[name] for name in kinds} for row in found], default=str)
        con.execute(f"insert into {table} by name select unnest(from_json($1::json, $2), recursive := true)", [document, json.dumps([kinds])])


def life(chance: random.Random, number: int) -> dict[str, Any]:
    at = NOW - timedelta(days=chance.randrange(20, 700), hours=chance.randrange(24))
    moves = [(at, chance.choice(["prequalified", "qualified", "qualified", "discovery"]))]
    for _ in range(chance.randrange(0, 7)):
        at += timedelta(hours=chance.choice([1, 20, 24 * 7, 24 * 30]))
        if at > NOW:
            break
        stage = chance.choice([*OPEN, "closed_won", "closed_lost"])
        if stage != moves[-1][1]:
            moves.append((at, stage))
    return deal(number, moves, owner_id=chance.choice(["a", "b", None]), pipeline=chance.choice(["New", "Renewal"]),
                amount=chance.choice([None, Decimal(chance.randrange(10**6)) / 100]), is_deleted=chance.random() < 0.1)  # fmt: skip


@pytest.fixture(scope="module")
def deals() -> list[dict[str, Any]]:
    chance = random.Random(11)
    return [life(chance, number) for number in range(1500)]


@pytest.fixture(scope="module")
def told(empty_warehouse: Path, tmp_path_factory: pytest.TempPathFactory, deals: list[dict[str, Any]]) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("metrics") / "plumbline.duckdb"
    shutil.copyfile(empty_warehouse, path)
    with open_warehouse(path, threads=1) as warehouse:
        store(warehouse.con, deals)
        yield warehouse.con


def closed(deals: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame([d for d in deals if d["is_closed"] and not d["is_deleted"]])
    frame["day"] = [business_day(at) for at in frame.closed_at]
    frame["cycle"] = [(day - business_day(at)).days for day, at in zip(frame.day, frame.created_at, strict=True)]
    frame["month"] = [day.replace(day=1) for day in frame.day]
    return frame


def rate(won: float, lost: float) -> float | None:
    return float(won) / float(won + lost) if won + lost else None


def test_win_rates_by_number_and_by_amount(told: Any, deals: list[dict[str, Any]]) -> None:
    expected = {}
    for key, group in closed(deals).groupby(["pipeline", "owner_id", "month"], dropna=False):
        won, lost = group[group.is_won], group[~group.is_won]
        amounts = [sum((a for a in part.amount if a is not None and not pd.isna(a)), Decimal(0)) for part in (won, lost)]
        owner = None if pd.isna(key[1]) else key[1]
        expected[key[0], owner, key[2]] = (len(won), len(lost), *amounts, rate(len(won), len(lost)), rate(*amounts))
    names = "pipeline, owner_id, closed_month, won_deals, lost_deals, won_amount_home, lost_amount_home, win_rate_count, win_rate_value"
    found = {row[:3]: row[3:] for row in told.execute(f"select {names} from bi.win_rate").fetchall()}
    assert found.keys() == expected.keys() and len(found) > 20
    for key, row in expected.items():
        assert found[key][:4] == row[:4]
        assert found[key][4:] == pytest.approx(row[4:])


def test_velocity_multiplies_what_belongs_together(told: Any, deals: list[dict[str, Any]]) -> None:
    frame = closed(deals)
    recent = frame[[TODAY - pd.DateOffset(months=12) < pd.Timestamp(day) <= pd.Timestamp(TODAY) for day in frame.day]]
    names = "pipeline, open_deals, won_deals, lost_deals, average_won_home, median_won_home, mean_cycle_days, velocity_home"
    for pipeline, open_deals, won_deals, lost_deals, average, median, cycle, velocity in told.execute(f"select {names} from bi.velocity").fetchall():
        group = recent[recent.pipeline == pipeline]
        won = group[group.is_won]
        amounts = won.amount.dropna().astype(float)
        alive = [d for d in deals if not d["is_closed"] and not d["is_deleted"] and d["pipeline"] == pipeline]
        open_now = sum((RANKS[d["stage"]] or 0) in (1, 2, 3, 4) for d in alive)
        assert (open_deals, won_deals, lost_deals) == (open_now, len(won), len(group) - len(won))
        assert [float(average), float(median), cycle] == pytest.approx([amounts.mean(), amounts.median(), won.cycle.mean()], abs=0.01)
        assert float(velocity) == pytest.approx(open_now * len(won) / len(group) * amounts.mean() / won.cycle.mean(), rel=1e-4)


def stays(deals: list[dict[str, Any]]) -> pd.DataFrame:
    rows = []
    for d in deals:
        if d["is_deleted"]:
            continue
        for (at, stage), following in zip(d["moves"], [*d["moves"][1:], (None, None)], strict=True):
            until = business_day(following[0])
            days = (until - business_day(at)).days if until else None
            rows.append((d["opportunity_key"], d["pipeline"], stage, business_day(at), days, d["is_won"], d["is_closed"]))
    return pd.DataFrame(rows, columns=["key", "pipeline", "stage", "day", "days", "is_won", "is_closed"])


def test_how_long_deals_stay_in_a_stage(told: Any, deals: list[dict[str, Any]]) -> None:
    frame = stays(deals)
    rows = told.execute("select pipeline, stage, stays, median_days, p90_days, won_stays, won_p90_days, open_deals, open_median_days "
                        "from bi.stage_duration").fetchall()  # fmt: skip
    assert {row[:2] for row in rows} == {(p, s) for p, s in zip(frame.pipeline, frame.stage, strict=True) if s in OPEN}
    for pipeline, stage, n, median, p90, won_n, won_p90, open_n, open_median in rows:
        group = frame[(frame.pipeline == pipeline) & (frame.stage == stage)]
        over = group.dropna(subset=["days"])
        won = over[over.is_won]
        now = group[group.days.isna()]
        assert (n, won_n, open_n) == (len(over), len(won), len(now))
        assert [median, p90] == pytest.approx([over.days.median(), over.days.quantile(0.9)])
        assert won_p90 == (pytest.approx(won.days.quantile(0.9)) if len(won) else None)
        assert open_median == (pytest.approx(pd.Series([(TODAY - day).days for day in now.day]).median()) if len(now) else None)


def test_what_became_of_deals_that_reached_a_stage(told: Any, deals: list[dict[str, Any]]) -> None:
    expected: dict[Any, list[int]] = {}
    for d in deals:
        if d["is_deleted"]:
            continue
        ranked = [(RANKS[stage], business_day(at)) for at, stage in d["moves"] if stage != "closed_lost" and RANKS[stage] is not None]
        furthest = max((rank for rank, _ in ranked), default=-1)
        for number, stage in enumerate(["qualified", "discovery", "proposal", "negotiation"], 1):
            days = [day for rank, day in ranked if rank >= number]
            if days:
                row = expected.setdefault((d["pipeline"], stage, min(days).replace(day=1)), [0, 0, 0, 0, 0])
                for place, holds in enumerate([
                    True, furthest > number, furthest == number and d["is_closed"], furthest == number and not d["is_closed"], d["is_won"],
                ]):  # fmt: skip
                    row[place] += holds
    names = "pipeline, stage, reached_month, reached, advanced, lost, open, won"
    found = {row[:3]: list(row[3:]) for row in told.execute(f"select {names} from bi.stage_conversion").fetchall()}
    assert found == expected
    assert all(reached == advanced + lost + still for reached, advanced, lost, still, _ in found.values())


def test_cohorts_count_what_nobody_closes_and_wait_until_they_are_old_enough(told: Any, deals: list[dict[str, Any]]) -> None:
    rows = told.execute("select pipeline, created_month, deals, won, lost, undecided, win_rate from bi.win_rate_cohort(90)").fetchall()
    frame = pd.DataFrame([d for d in deals if not d["is_deleted"]])
    frame["made"] = [business_day(at) for at in frame.created_at]
    frame["month"] = [day.replace(day=1) for day in frame.made]
    frame["after"] = [None if pd.isna(c) else (business_day(c) - made).days for c, made in zip(frame.closed_at, frame.made, strict=True)]
    assert len(rows) > 20
    for pipeline, month, n, won, lost, undecided, win_rate in rows:
        group = frame[(frame.pipeline == pipeline) & (frame.month == month)]
        within = group[group.after <= 90]
        assert (n, won, lost) == (len(group), within.is_won.sum(), (within.is_closed & ~within.is_won).sum())
        assert undecided == n - won - lost
        ripe = (pd.Timestamp(month) + pd.offsets.MonthEnd(0)).date() + timedelta(days=90) <= TODAY
        assert win_rate == (pytest.approx(won / n) if ripe else None)


def test_a_scorecard_adds_up_to_its_pipeline(told: Any, deals: list[dict[str, Any]]) -> None:
    alive = [d for d in deals if not d["is_deleted"]]
    rows = {row[0]: row[1:] for row in told.execute(
        "select owner_id, open_deals, other_open_deals, open_amount_home, won_deals + lost_deals from bi.owner_scorecard").fetchall()}  # fmt: skip
    frame = closed(deals)
    for owner, (open_deals, others, amount, decided) in rows.items():
        mine = [d for d in alive if d["owner_id"] == owner and not d["is_closed"]]
        counted = [d for d in mine if (RANKS[d["stage"]] or 0) in (1, 2, 3, 4)]
        assert (open_deals, others) == (len(counted), len(mine) - len(counted))
        assert amount == sum((d["amount"] or 0 for d in counted), Decimal(0))
        theirs = frame[frame.owner_id.isna()] if owner is None else frame[frame.owner_id == owner]
        assert decided == sum(TODAY - pd.DateOffset(months=12) < pd.Timestamp(day) for day in theirs.day)
    assert set(rows) == {"a", "b", None}


def test_creation_counts_what_first_qualified_beside_what_was_made(told: Any, deals: list[dict[str, Any]]) -> None:
    first, last = TODAY - timedelta(days=200), TODAY - timedelta(days=50)
    expected: dict[Any, list[Any]] = {}
    for d in deals:
        days = [business_day(at) for at, stage in d["moves"] if (RANKS[stage] or 0) >= 1 and stage != "closed_lost"]
        qualified = bool(days) and first <= min(days) <= last
        made = first <= business_day(d["created_at"]) <= last
        if (qualified or made) and not d["is_deleted"]:
            row = expected.setdefault((d["pipeline"], d["owner_id"]), [0, Decimal(0), 0, Decimal(0)])
            for place, more in enumerate([qualified, qualified * (d["amount"] or Decimal(0)), made, made * (d["amount"] or Decimal(0))]):
                row[place] += more
    rows = told.execute("select * exclude source from bi.creation($1, $2)", [first, last]).fetchall()
    assert {row[:2]: list(row[2:]) for row in rows} == expected


def test_a_stage_weighs_what_it_has_won_so_far(told: Any, deals: list[dict[str, Any]]) -> None:
    """By the deals that reached it and are closed by now; too few of them weigh nothing."""
    rows = told.execute("select pipeline, stage, sum(amount_home), sum(weighted_home), sum(stage_weighted_home) from bi.open_pipeline($1, $1, $1) "
                        "group by 1, 2", [TODAY]).fetchall()  # fmt: skip
    weighed = 0
    for pipeline, stage, amount, weighted, by_stage in rows:
        rank = RANKS[stage]
        reached = [
            d for d in deals if d["pipeline"] == pipeline and not d["is_deleted"] and d["is_closed"]
            and rank and any((RANKS[s] or 0) >= rank and s != "closed_lost" for _, s in d["moves"])
        ]  # fmt: skip
        assert float(weighted) == pytest.approx(float(amount) / 2, abs=0.1)
        if len(reached) >= 30:
            weighed += 1
            assert float(by_stage) == pytest.approx(float(amount) * sum(d["is_won"] for d in reached) / len(reached), abs=0.1)
        else:
            assert by_stage is None
    assert weighed


# Targets, trust, age and concentration --------------------------------------------------------------------------------------------

Q4 = (date(2026, 10, 1), date(2026, 12, 31))


def counted(deals: list[dict[str, Any]]) -> pd.DataFrame:
    """Open deals from qualified to negotiation."""
    frame = pd.DataFrame([d for d in deals if not d["is_closed"] and not d["is_deleted"] and (RANKS[d["stage"]] or 0) in (1, 2, 3, 4)])
    frame["home"] = [Decimal(0) if a is None or pd.isna(a) else a for a in frame.amount]
    frame["age"] = [(TODAY - business_day(at)).days for at in frame.created_at]
    return frame


def target(con: Any, amount: int, span: tuple[date, date] = Q4, measure: str = "won", **scope: str) -> None:
    names = ["measure", "period_start", "period_end", "amount_home", *scope]
    marks = ", ".join(f"${n + 1}" for n in range(len(names)))
    con.execute(f"insert into core.target ({', '.join(names)}) values ({marks})", [measure, *span, amount, *scope.values()])


@pytest.fixture
def planned(told: Any) -> Iterator[Any]:
    told.execute("begin")
    told.execute("update core.owner set email = 'ada@acme.com' where owner_id = 'a'")
    yield told
    told.execute("rollback")


def test_coverage_is_what_is_open_against_what_is_left(planned: Any, deals: list[dict[str, Any]]) -> None:
    target(planned, 5_000_000)
    target(planned, 1, owner="b", pipeline="New", source="sales")  # met already
    for month in (10, 11, 12):  # a quarter's target may be told by the month; by an address, too
        first = date(2026, month, 1)
        target(planned, 700_000, (first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)), owner="Ada@acme.com")
    target(planned, 9, (date(2026, 10, 1), date(2026, 10, 31)), pipeline="Renewal")  # one month of three is no target of the quarter
    open_deals, won = counted(deals), closed(deals)
    won = won[won.is_won & pd.Series([Q4[0] <= day <= TODAY for day in won.day], won.index)]
    won["home"] = [Decimal(0) if a is None or pd.isna(a) else a for a in won.amount]
    scopes: dict[tuple[Any, Any, Any], Any] = {
        (None, None, None): (5_000_000, lambda f: f),
        ("sales", "New", "b"): (1, lambda f: f[(f.owner_id == "b") & (f.pipeline == "New")]),
        (None, None, "Ada@acme.com"): (2_100_000, lambda f: f[f.owner_id == "a"]),
        (None, "Renewal", None): (None, lambda f: f[f.pipeline == "Renewal"]),
    }
    rows = planned.execute("from bi.coverage($1, $2, $3)", [TODAY, *Q4]).fetchall()
    assert {row[:3] for row in rows} == scopes.keys()
    for row in rows:
        goal, part = scopes[row[:3]]
        amount, booked = (sum(part(frame).home, Decimal(0)) for frame in (open_deals, won))
        assert row[3:8] == (goal, booked, len(part(open_deals)), amount, 0)
        assert row[8] == sum(pd.isna(a) for a in [*part(open_deals).amount, *part(won).amount])
        assert row[9] == (pytest.approx(float(amount) / float(goal - booked)) if goal and goal > booked else None)
        assert row[10] == (pytest.approx(float(amount + booked) / goal) if goal else None)
        assert row[11] is None  # nothing was due in the quarters before: nobody knows what was required


def test_targets_reached_so_far(planned: Any, deals: list[dict[str, Any]]) -> None:
    year = (date(2026, 1, 1), date(2026, 12, 31))
    target(planned, 100_000, year, owner="ada@acme.com")
    target(planned, 200_000, year, "created", pipeline="New")
    won = closed(deals)
    mine = won[won.is_won & (won.owner_id == "a") & pd.Series([day >= year[0] for day in won.day], won.index)]
    made = [
        d for d in deals if not d["is_deleted"] and d["pipeline"] == "New"
        and (days := [business_day(at) for at, stage in d["moves"] if (RANKS[stage] or 0) >= 1 and stage != "closed_lost"]) and min(days) >= year[0]
    ]  # fmt: skip
    rows = planned.execute("select measure, owner_name, deals, actual_home, attainment from bi.target order by measure").fetchall()
    created, booked = sum((d["amount"] or Decimal(0) for d in made), Decimal(0)), sum((a for a in mine.amount if not pd.isna(a)), Decimal(0))
    assert rows[0][2:] == (len(made), created, pytest.approx(float(created) / 200_000))
    assert rows[1][1:] == ("Ada", len(mine), booked, pytest.approx(float(booked) / 100_000))


def test_age_counts_from_the_day_on_which_the_record_was_made(told: Any, deals: list[dict[str, Any]]) -> None:
    frame, won = counted(deals), closed(deals)
    days = pd.to_datetime(won.day)
    won = won[won.is_won & (days > pd.Timestamp(TODAY) - pd.DateOffset(months=12)) & (days <= pd.Timestamp(TODAY))]
    bands = [(0, 30, "0-30"), (31, 60, "31-60"), (61, 90, "61-90"), (91, 180, "91-180"), (181, 365, "181-365"), (366, 10**6, "over 365")]
    expected = {}
    for (pipeline, owner), group in frame.groupby(["pipeline", "owner_id"], dropna=False):
        cycles = won[(won.pipeline == pipeline)].cycle
        limit = cycles.quantile(0.9) if len(cycles) >= 30 else None
        for low, high, band in bands:
            part = group[group.age.between(low, high)]
            if len(part):
                old = part[part.age > limit] if limit is not None else None
                aged = (None, None) if old is None else (len(old), old.home.sum() or 0)
                expected[pipeline, None if pd.isna(owner) else owner, band] = (
                    len(part), part.home.sum(), int(part.amount.isna().sum()), *aged,
                )  # fmt: skip
    names = "pipeline, owner_id, age_band, deals, amount_home, open_without_amount, old_deals, old_amount_home"
    assert {row[:3]: row[3:] for row in told.execute(f"select {names} from bi.ageing").fetchall()} == expected
    assert any(row[3] for row in expected.values()), won.pipeline.value_counts()


def test_concentration_is_the_share_of_the_five_largest(told: Any, deals: list[dict[str, Any]]) -> None:
    frame = counted(deals)
    parts = {("all", None, "all"): frame, ("source", "sales", "sales"): frame}
    parts |= {("pipeline", "sales", key): part for key, part in frame.groupby("pipeline")}
    parts |= {("owner", "sales", None if pd.isna(key) else key): part for key, part in frame.groupby("owner_id", dropna=False)}
    rows = {row[:3]: row[3:] for row in told.execute("from bi.concentration($1, $2, $3)", [TODAY, *Q4]).fetchall()}
    assert rows.keys() == parts.keys()
    for key, part in parts.items():
        amounts = part.home.astype(float).sort_values(ascending=False)
        shares = amounts / amounts.sum()
        assert rows[key][:2] == (len(part), part.home.sum())
        assert rows[key][2:] == pytest.approx((shares.iloc[0], shares.iloc[:5].sum(), (shares**2).sum()))


def test_trusted_is_what_no_finding_of_that_day_speaks_against(planned: Any, deals: list[dict[str, Any]]) -> None:
    """A finding counts from the check that saw it to the one that no longer did; waived ones and rules that only observe speak against nothing."""
    frame = counted(deals).sample(40, random_state=1).reset_index()
    for rule, mistake, severity, state in (("quiet", "stale records", "high", "alert"), ("loud", "happy ears", "critical", "observe")):
        planned.execute("insert into quality.rule (rule_id, title, mistake, severity, state, audience, grp, version, definition) "
                        "values ($1, $1, $2, $3, $4, 'rep', 'g', '1', 'd')", [rule, mistake, severity, state])  # fmt: skip
    cases = [("quiet", "open", 5, None), ("quiet", "resolved", 9, 3), ("quiet", "waived", 5, None), ("loud", "open", 5, None)]
    blamed: dict[str, set[str]] = {"now": set(), "then": set()}
    for place, key in enumerate(frame.opportunity_key):
        rule, state, since, until = cases[place % 4]
        planned.execute(
            "insert into quality.finding (finding_id, opportunity_key, rule_id, severity, state, message, first_seen_at, last_seen_at, runs_seen, "
            "resolved_at) values ($1, $1, $2, 'high', $3, '', $4, $4, 1, $5)",
            [key, rule, state, NOW - timedelta(days=since), None if until is None else NOW - timedelta(days=until)],
        )  # fmt: skip
        if place % 4 == 0:
            blamed["now"].add(key)
        if place % 4 in (0, 1):
            blamed["then"].add(key)
    checked = "insert into quality.result (run_id, as_of, source, rule_id, evaluable) values ($1::varchar, $1, 'sales', 'quiet', $2)"
    planned.execute(checked, [NOW - timedelta(days=9), 7])
    asked = "select sum(trusted_home), sum(at_risk_home), sum(amount_home) from bi.open_pipeline($1, $1, $1) where is_counted"
    everything = counted(deals)
    for day, keys in ((TODAY, blamed["now"]), (TODAY - timedelta(days=4), blamed["then"])):
        existing = everything[[business_day(at) <= day for at in everything.created_at]]
        risk = existing[existing.opportunity_key.isin(keys)].home.sum()
        assert planned.execute(asked, [day]).fetchone() == (existing.home.sum() - risk, risk, existing.home.sum())
    assert planned.execute(asked, [TODAY - timedelta(days=10)]).fetchone()[:2] == (None, None)  # before the first check
    planned.execute(checked, [NOW, 0])
    assert planned.execute(asked, [TODAY]).fetchone()[:2] == (None, None)  # nobody could tell what was touched


# Edges ----------------------------------------------------------------------------------------------------------------------------


def at(days_ago: int, hour: int = 12) -> datetime:
    return datetime(2026, 11, 20, hour, tzinfo=UTC) - timedelta(days=days_ago)


def test_a_deal_that_was_opened_again_closed_on_the_last_day(con: Any) -> None:
    store(con, [deal(1, [(at(100), "qualified"), (at(80), "closed_lost"), (at(60), "proposal"), (at(10), "closed_won")])])
    assert con.execute("select closed_date, cycle_days, reopened, is_won from bi.closed_deal").fetchall() == [(business_day(at(10)), 90, 1, True)]
    assert con.execute("select stage, days, entry_no from bi.stage_interval order by entered_at").fetchall() == [
        ("qualified", 20, 1), ("closed_lost", 20, 1), ("proposal", 50, 1), ("closed_won", None, 1),
    ]  # fmt: skip
    assert con.execute("select sum(reached), sum(advanced), sum(lost) from bi.stage_conversion").fetchall() == [(4, 4, 0)]


def test_a_deal_that_was_closed_before_it_was_made_has_no_cycle_and_counts(con: Any) -> None:
    imported = deal(1, [(at(10), "closed_won")], closed_at=at(40), close_date=business_day(at(40)))
    store(con, [imported, deal(2, [(at(50), "qualified"), (at(20), "closed_won")])])
    assert con.execute("select cycle_days, crm_cycle_days from bi.closed_deal order by opportunity_key").fetchall() == [(None, None), (30, 30)]
    assert con.execute("select won_deals, mean_cycle_days from bi.velocity").fetchall() == [(2, 30)]


def test_deleted_and_merged_deals_are_in_no_metric(con: Any) -> None:
    store(con, [deal(1, [(at(50), "qualified"), (at(20), "closed_won")], is_deleted=True, merged_into="sales:2")])
    for view in ("closed_deal", "win_rate", "velocity", "stage_interval", "stage_conversion", "stage_duration", "owner_scorecard"):
        assert con.execute(f"select count(*) from bi.{view}").fetchall() == [(0,)], view


def test_days_are_those_of_the_business_and_years_those_of_its_books(con: Any) -> None:
    """Half past eleven at night in London is the next day in Berlin; a fiscal year that begins in February ends in the year that names it."""
    late = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    store(con, [deal(1, [(late - timedelta(days=5), "qualified"), (late, "closed_won")])], first_month=2)
    assert con.execute("select closed_date, closed_month, fiscal_year, fiscal_quarter from bi.closed_deal").fetchall() == [
        (date(2026, 2, 1), date(2026, 2, 1), 2027, 1)
    ]
    names = "fiscal_year, fiscal_quarter, fiscal_quarter_start, fiscal_year_start"
    assert con.execute(f"select {names} from bi.calendar where day = '2027-01-31'").fetchall() == [(2027, 4, date(2026, 11, 1), date(2026, 2, 1))]


def test_the_calendar_year_is_the_fiscal_year_that_begins_in_january(con: Any) -> None:
    store(con, [deal(1, [(at(50), "qualified")])], first_month=1)
    rows = con.execute("select fiscal_year, fiscal_quarter, fiscal_quarter_start from bi.calendar where day = '2026-12-31'").fetchall()
    assert rows == [(2026, 4, date(2026, 10, 1))]


def test_an_amount_without_a_rate_is_counted_and_not_zero(con: Any) -> None:
    moves = [(at(50), "qualified"), (at(20), "closed_won")]
    store(con, [deal(1, moves, currency="XXX", amount_home=None), deal(2, moves)])
    assert con.execute("select won_deals, won_amount_home, closed_without_amount from bi.win_rate").fetchall() == [(2, 200, 1)]
    assert con.execute("select average_won_home from bi.velocity").fetchall() == [(200,)]


def told_versions(con: Any, number: int, *versions: tuple[datetime, dict[str, Any]]) -> None:
    """A deal's timeline in place of the one that `store` gave it; a version says what it has other than the one before."""
    key, known = f"sales:{number}", {"origin": "crm_history", "is_deleted": False, "is_closed": False, "is_won": False, "stage": "proposal"}
    con.execute("delete from core.opportunity_version where opportunity_key = $1", [key])
    for place, (since, facts) in enumerate(versions):
        known |= facts | {"opportunity_key": key, "valid_from": since, "valid_to": versions[place + 1][0] if place + 1 < len(versions) else None}
        known["is_closed"] = known["stage"].startswith("closed")
        known["is_won"] = known["stage"] == "closed_won"
        marks = ", ".join(f"${n + 1}" for n in range(len(known)))
        con.execute(f"insert into core.opportunity_version ({', '.join(known)}) values ({marks})", list(known.values()))


def worth(amount: int, **facts: Any) -> dict[str, Any]:
    return {"amount": amount, "amount_home": amount, "currency": "EUR", "pipeline": "New", "owner_id": "a"} | facts


OCTOBER = (date(2026, 10, 1), date(2026, 10, 31))
BEFORE, LOCK, AFTER = (datetime(2026, 10, day, 12, tzinfo=UTC) for day in (1, 5, 20))


def forecasts(con: Any) -> None:
    """October as it was forecast on the 5th: what it brought is on the right."""
    made, due = datetime(2026, 9, 1, tzinfo=UTC), {"close_date": date(2026, 10, 25), "probability": Decimal("0.5")}
    timelines = [
        [(made, worth(100, forecast_category="commit", **due)), (AFTER, worth(120, stage="closed_won"))],  # 120 by Ada
        [(made, worth(50, forecast_category="best_case", **due)), (AFTER, {"stage": "closed_lost"})],
        [(made, worth(70, forecast_category="omitted", **due))],
        [(made, worth(30, forecast_category="commit", **due)), (BEFORE, {"stage": "closed_won"})],  # 30 by Ada, before the lock
        # 40 by Bo, made after it
        [(AFTER - timedelta(days=1), worth(40, owner_id="b", forecast_category="pipeline", **due)), (AFTER, {"stage": "closed_won"})],
        [(made, worth(900, owner_id="b", forecast_category="commit", **due | {"close_date": date(2026, 11, 1)}))],  # due later
        [(made, worth(10, owner_id="b", forecast_category="commit", **due)), (AFTER, {"is_deleted": True})],
        [(made, worth(60, owner_id="b", forecast_category="commit", **due)), (BEFORE, {"stage": "closed_won"}),
         (LOCK - timedelta(days=2), {"stage": "proposal"})],
    ]  # fmt: skip
    moves = [[(line[0][0], "qualified"), *((at, facts["stage"]) for at, facts in line[1:] if "stage" in facts)] for line in timelines]
    store(con, [deal(number, moved) for number, moved in enumerate(moves, 1)])
    for number, line in enumerate(timelines, 1):
        told_versions(con, number, *line)


def test_a_forecast_is_measured_at_the_owners_by_what_the_lock_day_said(con: Any) -> None:
    forecasts(con)
    rows = con.execute("select owner_id, method, deals, forecast_home, actual_home from bi.forecast($1, $2, $3)", [LOCK.date(), *OCTOBER]).fetchall()
    assert sorted(rows) == [
        ("a", "best_case", 3, 180, 150), ("a", "commit", 2, 130, 150), ("a", "pipeline", 3, 180, 150), ("a", "weighted", 3, 105, 150),
        ("b", "best_case", 2, 70, 40), ("b", "commit", 2, 70, 40), ("b", "pipeline", 2, 70, 40), ("b", "weighted", 2, 35, 40),
    ]  # fmt: skip
    names = "select owners, wape, accuracy, bias from bi.forecast_accuracy($1, $2, $3) where source is null and method = 'commit'"
    assert con.execute(names, [LOCK.date(), *OCTOBER]).fetchone() == (2, pytest.approx(50 / 190), pytest.approx(140 / 190), pytest.approx(10 / 190))


def test_what_was_won_by_a_day_is_what_was_known_then(con: Any) -> None:
    """A deal that was opened again since was won then; the day is that of the move, not the date that people type."""
    forecasts(con)
    asked = "select opportunity_key, amount_home, won_date from bi.won_by($1, $2, $3) order by 1"
    first = [("sales:4", 30, date(2026, 10, 1)), ("sales:8", 60, date(2026, 10, 1))]
    assert con.execute(asked, [date(2026, 10, 2), *OCTOBER]).fetchall() == first
    assert con.execute(asked, [date(2026, 10, 4), *OCTOBER]).fetchall() == first[:1]
    later = [("sales:1", 120, date(2026, 10, 20)), first[0], ("sales:5", 40, date(2026, 10, 20))]
    assert con.execute(asked, [OCTOBER[1], *OCTOBER]).fetchall() == later
    assert con.execute(asked, [TODAY, date(2026, 11, 1), TODAY]).fetchall() == []


def test_required_coverage_is_what_the_quarters_before_needed(con: Any) -> None:
    """On 20 August 40 deals of 100 were due by the end of September; 10 of them were won by then, for 120 each: 4,000 stood against 1,200."""
    made, end = datetime(2026, 1, 10, tzinfo=UTC), datetime(2026, 9, 20, tzinfo=UTC)
    store(con, [deal(n, [(made, "qualified"), *([(end, "closed_won")] if n <= 10 else [])]) for n in range(1, 41)])
    for n in range(1, 41):
        due = worth(100, close_date=date(2026, 9, 30))
        told_versions(con, n, (made, due), *([(end, worth(120, stage="closed_won"))] if n <= 10 else []))
    assert con.execute("select required_coverage from bi.coverage($1, $2, $3)", [TODAY, *Q4]).fetchall() == [(pytest.approx(4000 / 1200),)]
    con.execute("delete from core.opportunity_version where opportunity_key in (from range(11, 23) select 'sales:' || range)")
    assert con.execute("select required_coverage from bi.coverage($1, $2, $3)", [TODAY, *Q4]).fetchall() == [(None,)]  # 28 deals say too little


def test_past_sums_are_in_the_currency_and_stage_of_their_day(con: Any) -> None:
    """A deal changed from francs to euros: its day before counts by the rate of the franc."""
    made = datetime(2026, 9, 1, tzinfo=UTC)
    store(con, [deal(1, [(made, "qualified")])])
    francs, euros = worth(100, currency="CHF", amount_home=110, close_date=Q4[1]), worth(100, close_date=Q4[1], stage="discovery")
    told_versions(con, 1, (made, francs), (AFTER, euros))
    asked = "select stage, amount_home, without_amount from bi.open_pipeline($1, $2, $3)"
    assert con.execute(asked, [LOCK.date(), *Q4]).fetchall() == [("proposal", 110, 0)]
    assert con.execute(asked, [TODAY, *Q4]).fetchall() == [("discovery", 100, 0)]
    moved = "select bucket, sum(amount_home) from bi.pipeline_movement($1, $2, $3, $4) group by 1"
    buckets = dict(con.execute(moved, [LOCK.date(), TODAY, *Q4]).fetchall())
    assert buckets == {"opening": 110, "restated_out": -110, "restated_in": 100, "closing": 100}
