"""What the company plans, from CSV files that people keep: targets (core.target) and fiscal periods that are no months (core.fiscal_period).

A file is taken whole or not at all: a mistake in one line changes nothing that was taken before.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import duckdb

from warehouse.errors import WarehouseError
from warehouse.migrate import transaction

SHOWN = 5  # mistakes named in one message; the rest are counted


class PlanError(WarehouseError):
    """A CSV file of the plan cannot be used; the lines at fault are named."""


@dataclass(frozen=True)
class Plan:
    """A kind of file: the table that it fills, its columns, those of them that each row needs, and what makes a row wrong, as SQL over its texts
    (column, condition, what is said of it; {value} is the text)."""

    table: str
    columns: dict[str, str]  # name: type
    needed: tuple[str, ...]
    wrong: tuple[tuple[str, str, str], ...]
    pairs: tuple[tuple[str, str], ...]  # two rows a and b, a before b, that cannot both be: condition and what is said of it

    def default(self, column: str) -> str:
        return "coalesce(measure, 'won')" if column == "measure" else column


_SPAN = (("period_end", "try_cast(period_end as date) < try_cast(period_start as date)", "{value} is before period_start"),)
TARGETS = Plan(
    table="core.target",
    columns={
        "measure": "varchar", "period_start": "date", "period_end": "date", "source": "varchar", "pipeline": "varchar", "owner": "varchar",
        "amount_home": "decimal(18, 2)",
    },
    needed=("period_start", "period_end", "amount_home"),
    wrong=(
        ("measure", "measure not in ('won', 'created')", "{value} is neither won nor created"),
        (
            "source",
            "source is not null and source not in (select s.source from core.source s) and not list_contains(getvariable('plan_sources'), source)",
            "no source is called {value}",
        ),
        ("amount_home", "try_cast(amount_home as decimal(18, 2)) < 0", "{value} is less than 0"),
        *_SPAN,
    ),
    pairs=(
        (
            "coalesce(a.measure, 'won') = coalesce(b.measure, 'won') and a.period_start = b.period_start and a.period_end = b.period_end "
            "and (a.source, a.pipeline, a.owner) is not distinct from (b.source, b.pipeline, b.owner)",
            "is the same target",
        ),
    ),
)  # fmt: skip
PERIODS = Plan(
    table="core.fiscal_period",
    columns={"fiscal_year": "integer", "fiscal_quarter": "integer", "fiscal_period": "integer", "period_start": "date", "period_end": "date"},
    needed=("fiscal_year", "fiscal_quarter", "fiscal_period", "period_start", "period_end"),
    wrong=(
        ("fiscal_quarter", "try_cast(fiscal_quarter as integer) not between 1 and 4", "{value} is not 1 to 4"),
        ("fiscal_period", "try_cast(fiscal_period as integer) not between 1 and 53", "{value} is not 1 to 53"),
        *_SPAN,
    ),
    pairs=(
        (
            "try_cast(a.period_start as date) <= try_cast(b.period_end as date) "
            "and try_cast(b.period_start as date) <= try_cast(a.period_end as date)",
            "holds some of the same days",
        ),
    ),
)
SHAPES = {"date": "a day like 2026-03-31", "integer": "a whole number", "decimal(18, 2)": "an amount like 250000.00, without thousands separators"}


def take(con: duckdb.DuckDBPyConnection, plan: Plan, file: Path, sources: Collection[str] = ()) -> int:
    """Fill the plan's table from a CSV file with a header and return its rows. A table that says the same already is not written.

    sources: names that may be used though nothing of them was loaded yet.

    Raises PlanError where the file is missing or is no CSV, for columns that are unknown or missing, and for lines that cannot be read or
    contradict each other; the table is then as it was.
    """
    try:
        con.execute(
            "create or replace temp table plan_file as select row_number() over () + 1 as line, * "
            "from read_csv($1, header = true, all_varchar = true, auto_detect = true, null_padding = false, nullstr = '', sample_size = -1)",
            [str(file)],
        )
    except duckdb.IOException:
        raise PlanError("there is no such file, or it cannot be read.", path=file, fix="Correct [metrics] in the configuration.") from None
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        raise PlanError(f"this is no CSV file: {said}", path=file, fix=f"Its first line names the columns: {', '.join(plan.columns)}.") from None
    con.execute("set variable plan_sources = $1::varchar[]", [list(sources)])
    try:
        _check_columns(con, plan, file)
        _check_rows(con, plan, file)
        names = ", ".join(plan.columns)
        values = ", ".join(f"{plan.default(name)}::{kind} as {name}" for name, kind in plan.columns.items())
        new = f"select {values} from plan_file"
        old = f"select {names} from {plan.table}"
        differs = con.execute(f"select exists ((({new}) except all ({old})) union all (({old}) except all ({new})))").fetchone()
        if differs and differs[0]:
            with transaction(con):
                con.execute(f"delete from {plan.table}")
                con.execute(f"insert into {plan.table} by name {new}")
        row = con.execute(f"select count(*) from {plan.table}").fetchone()
        return int(row[0]) if row else 0
    finally:
        con.execute("reset variable plan_sources")
        con.execute("drop table plan_file")


def _check_columns(con: duckdb.DuckDBPyConnection, plan: Plan, file: Path) -> None:
    """The file's columns are some of the plan's, in any order and case; the ones it lacks are added empty."""
    found = [name for (name,) in con.execute("select column_name from (describe plan_file) where column_name <> 'line'").fetchall()]
    lacking = [name for name in plan.needed if name not in [f.strip().lower() for f in found]]
    if lacking:
        raise PlanError(
            f"the column {lacking[0]} is missing." if len(lacking) == 1 else f"the columns {', '.join(lacking)} are missing.", path=file,
            fix=f"The first line names the columns; they are {', '.join(plan.columns)}.",
        )  # fmt: skip
    for name in found:
        plain = name.strip().lower()
        if plain not in plan.columns:
            close = difflib.get_close_matches(plain, plan.columns, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise PlanError(f"there is no column {name!r} to fill.{hint}", path=file, fix=f"The columns are {', '.join(plan.columns)}.")
        if plain != name:
            quoted = name.replace('"', '""')
            con.execute(f'alter table plan_file rename column "{quoted}" to {plain}')
    for name in plan.columns.keys() - {f.strip().lower() for f in found}:
        con.execute(f"alter table plan_file add column {name} varchar")
    trimmed = ", ".join(f"nullif(trim({name}), '') as {name}" for name in plan.columns)
    con.execute(f"create or replace temp table plan_file as select line, {trimmed} from plan_file")


def _check_rows(con: duckdb.DuckDBPyConnection, plan: Plan, file: Path) -> None:
    checks = [f"select line, '{name} is empty' as said from plan_file where {name} is null" for name in plan.needed]
    checks += [
        f"select line, '{name}: ' || {name} || ' is not {SHAPES[kind]}' from plan_file "
        f"where {name} is not null and try_cast({name} as {kind}) is null"
        for name, kind in plan.columns.items()
        if kind in SHAPES
    ]
    for name, condition, said in plan.wrong:
        before, after = said.split("{value}")
        checks.append(f"select line, '{name}: {before}' || {name} || '{after}' from plan_file where {condition}")
    for condition, said in plan.pairs:
        checks.append(
            f"select b.line, 'line ' || a.line || ' {said}' from plan_file a join plan_file b on a.line < b.line and {condition}"
        )
    rows = con.execute(f"select line, said from ({' union all '.join(checks)}) order by line, said").fetchall()
    if rows:
        shown = "; ".join(f"line {line}, {said}" for line, said in rows[:SHOWN])
        more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        raise PlanError(f"{shown}{more}.", path=file, fix="Nothing of the file was taken; what was taken before holds. Correct these lines.")
