"""Targets and fiscal periods: CSV files that people keep, taken whole or not at all."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from warehouse import plan

Q4 = "2026-10-01,2026-12-31,,,,,2500000\n"
HEAD = "period_start,period_end,source,pipeline,owner,measure,amount_home\n"


@pytest.fixture
def told(con: Any) -> Any:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    con.execute("insert into core.source (source, crm, first_synced_at, last_synced_at) values ('sales', 'salesforce', $1, $1)", [now])
    return con


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def test_targets_are_taken_and_follow_the_file(told: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", HEAD + Q4 + '2026-10-01,2026-12-31,sales,"New, Business",ada@acme.com,created,0.10\n')
    assert plan.take(told, plan.TARGETS, file) == 2
    assert told.execute("from core.target order by amount_home").fetchall() == [
        ("created", date(2026, 10, 1), date(2026, 12, 31), "sales", "New, Business", "ada@acme.com", Decimal("0.10")),
        ("won", date(2026, 10, 1), date(2026, 12, 31), None, None, None, Decimal("2500000.00")),
    ]
    write(file, "Period_Start;Period_End;Amount_Home\n2026-10-01;2026-12-31;7\n")  # as a spreadsheet of another country writes it
    assert plan.take(told, plan.TARGETS, file) == 1
    assert told.execute("select measure, amount_home from core.target").fetchall() == [("won", 7)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "2026-10-01,2026-12-31,,,,won,1000\n2026-13-01,2026-12-31,,,,won,5\n", "line 3, period_start: 2026-13-01 is not a day like 2026"),
        (HEAD + '2026-10-01,2026-12-31,,,,won,"1,000"\n', "line 2, amount_home: 1,000 is not an amount like 250000.00"),
        (HEAD + "2026-10-01,2026-09-30,,,,won,5\n", "period_end: 2026-09-30 is before period_start"),
        (HEAD + "2026-10-01,2026-12-31,,,,booked,5\n", "measure: booked is neither won nor created"),
        (HEAD + "2026-10-01,2026-12-31,salse,,,won,5\n", "source: no source is called salse"),
        (HEAD + "2026-10-01,2026-12-31,,,,won,\n", "line 2, amount_home is empty"),
        (HEAD + "2026-10-01,2026-12-31,,,,won,-5\n", "-5 is less than 0"),
        (HEAD + "2026-10-01,2026-12-31,,,,won,5\n2026-10-01,2026-12-31,,,,,6\n", "line 3, line 2 is the same target"),
        ("period_start,period_end,amount\n2026-10-01,2026-12-31,5\n", "the column amount_home is missing"),
        ("period_start,period_end,amount_home,pipelin\n2026-10-01,2026-12-31,5,x\n", "Did you mean pipeline?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_held_before_holds(told: Any, tmp_path: Path, text: str, said: str) -> None:
    plan.take(told, plan.TARGETS, write(tmp_path / "good.csv", HEAD + "2026-01-01,2026-12-31,,,,won,1\n"))
    with pytest.raises(plan.PlanError) as caught:
        plan.take(told, plan.TARGETS, write(tmp_path / "bad.csv", text))
    assert said in str(caught.value) and "bad.csv" in str(caught.value)
    assert told.execute("select amount_home from core.target").fetchall() == [(1,)]


def test_a_target_may_be_of_a_source_that_was_not_synced_yet(con: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", HEAD + "2026-10-01,2026-12-31,sales,,,won,5\n" + Q4)
    assert plan.take(con, plan.TARGETS, file, {"sales": None}) == 2
    with pytest.raises(plan.PlanError, match="line 2, source: no source is called sales"):
        plan.take(con, plan.TARGETS, file)


@pytest.mark.parametrize("text", ["", "\x00\x01\x02", None])
def test_a_file_that_is_none_is_said_to_be_none(told: Any, tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "none.csv" if text is None else write(tmp_path / "x.csv", text)
    with pytest.raises(plan.PlanError, match=r"csv: "):
        plan.take(told, plan.TARGETS, file)


def test_periods_of_weeks_are_the_fiscal_calendar_of_their_days(told: Any, tmp_path: Path) -> None:
    head = "fiscal_year,fiscal_quarter,fiscal_period,period_start,period_end\n"
    rows = "2026,1,1,2026-02-01,2026-02-28\n2026,1,2,2026-03-01,2026-03-28\n2026,1,3,2026-03-29,2026-05-02\n2026,2,4,2026-05-03,2026-05-30\n"
    assert plan.take(told, plan.PERIODS, write(tmp_path / "445.csv", head + rows)) == 4
    names = "fiscal_year, fiscal_quarter, fiscal_period, fiscal_period_start, fiscal_quarter_start, fiscal_year_start"
    on = "select " + names + " from bi.calendar where day = $1"
    assert told.execute(on, [date(2026, 5, 2)]).fetchall() == [(2026, 1, 3, date(2026, 3, 29), date(2026, 2, 1), date(2026, 2, 1))]
    assert told.execute(on, [date(2026, 5, 3)]).fetchall() == [(2026, 2, 4, date(2026, 5, 3), date(2026, 5, 3), date(2026, 2, 1))]
    assert told.execute(on, [date(2026, 1, 31)]).fetchall() == [(2026, 1, 1, date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 1))]
    assert told.execute("select count(*) = count(distinct day) from bi.calendar").fetchall() == [(True,)]
    with pytest.raises(plan.PlanError, match="line 6, line 5 holds some of the same days"):
        plan.take(told, plan.PERIODS, write(tmp_path / "over.csv", head + rows + "2026,2,5,2026-05-30,2026-06-27\n"))
