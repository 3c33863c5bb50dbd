"""One check of the whole pipeline: judge every deal, open, keep and resolve findings, score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import orjson

from expectations import findings, guard, judge, loader
from expectations.errors import ExpectationsError, RulesNotRun
from expectations.rule import POINTS, SEVERITIES, Catalogue, Rule
from expectations.sql_text import read_sql

# Renewals are quiet and repeating by design; their type or pipeline says so in one of these languages.
RENEWAL = r"renew|verl(ä|ae)nger|renouvel|reconduc|renovaci|renova[çc]|rinnov|verleng|förnyelse|fornyelse|odnowien"


@dataclass(frozen=True)
class RuleResult:
    """A rule over all sources. Counts are None where the rule could not be run."""

    rule_id: str
    severity: str
    state: str
    applicable: int | None
    evaluable: int | None
    failed: int | None
    waived: int | None
    error: str | None = None


@dataclass(frozen=True)
class CheckResult:
    """What a check did. The same numbers stand in quality.run, quality.result and quality.score."""

    run_id: str
    as_of: datetime
    business_date: date
    rule_set_version: str
    success: bool
    """Great Expectations' own verdict: no rule of any severity fails and none errored. Gate on `fails` instead."""
    deals: int
    """Deals judged."""
    opened: int
    kept: int
    resolved: int
    waived: int
    """Episodes that began, went on and ended; those that stand waived now (they are among opened and kept)."""
    by_severity: Mapping[str, int]
    """Open findings of alert rules, for each of SEVERITIES."""
    observed: Mapping[str, int]
    """The same for rules that only observe."""
    results: tuple[RuleResult, ...]
    errors: Mapping[str, str]
    """Rules that could not be run, and why."""
    score: Decimal | None
    """Of all deals from qualified to negotiation, weighted by amount; None if there are none."""
    open_amount_home: Decimal
    at_risk_amount_home: Decimal
    shadow: bool = field(default=False)
    """True in the first days (`shadow_days`), in which alert rules only observe."""

    def fails(self, severity: str) -> bool:
        """Whether a gate at `severity` closes: an open alert finding of it or worse. Rules that errored close every gate."""
        worse = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return bool(self.errors) or any(self.by_severity[s] for s in worse)

    def raise_failures(self) -> None:
        """Raises RulesNotRun when a rule could not be run."""
        if self.errors:
            raise RulesNotRun(self.errors)


def check(
    con: duckdb.DuckDBPyConnection, *,
    run_id: str, now: datetime, business_date: date, timezone: str,
    settings: Mapping[str, Any] | None = None,
    suites: Path | Iterable[Path] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckResult:  # fmt: skip
    """Judges core.* and writes quality.* in one transaction; anything that fails leaves quality.* as it was.

    `con`: the warehouse, writable, with no transaction open. `now`: aware; `business_date`: the day it is in `timezone` (IANA
    name). `settings`: the [rules] table, see loader.load. Running it again with the same `run_id` replaces that run.
    Raises RuleError before anything is read, ReconciliationError or another ExpectationsError before anything is written.
    """
    if now.tzinfo is None:
        raise ValueError("now has to know its time zone")
    ZoneInfo(timezone)
    say = progress or (lambda text: None)
    catalogue = loader.load(settings, suites)
    catalogue, shadow = _in_shadow(con, catalogue, now)
    active = [rule for rule in catalogue.rules if rule.state != "off"]
    parameters = {
        "now": now, "business_date": business_date, "timezone": timezone, "run_id": run_id, "renewal": RENEWAL,
        "version": catalogue.version,
    }  # fmt: skip

    with _workspace(con):
        say("gathering the deals")
        deals = _gather(con, catalogue, parameters)
        say(f"judging {deals:,} deals by {len(active)} rules")
        judgement = judge.judge(con, active, catalog="plumbline_check", table="subject")
        findings.judge_deals(con, active, judgement)
        _make_rules(con, active, judgement.errors)
        run(con, "episode.sql", parameters)
        opened, kept, resolved = (_count(con, f"plumbline_check.{name}") for name in ("opened", "kept", "ended"))

        say("writing findings and scores")
        con.execute("begin transaction")
        try:
            run(con, "write_findings.sql", parameters)
            findings.reconcile_written(con, judgement.tallies)
            _write_catalogue(con, catalogue)
            run(con, "write_result.sql", parameters)
            run(con, "write_score.sql", parameters)
            con.execute("delete from quality.run where run_id = ?", [run_id])
            con.execute(
                "insert into quality.run by name select ? as run_id, ? as as_of, ? as business_date, ? as rule_set_version, ? as rules,"
                " ? as errored, ? as success, ? as opened, ? as kept, ? as resolved, ?::json as validation",
                [run_id, now, business_date, catalogue.version, len(active), len(judgement.errors), judgement.success,
                 opened, kept, resolved, orjson.dumps(judgement.validation).decode()],
            )  # fmt: skip
            result = _result(con, catalogue, active, parameters, judgement, (deals, opened, kept, resolved), shadow=shadow)
            con.execute("commit")
        except BaseException:
            con.execute("rollback")
            raise
    return result


def run(con: duckdb.DuckDBPyConnection, name: str, parameters: Mapping[str, Any]) -> None:
    """Runs a file of expectations/sql statement by statement, each with the parameters that it names."""
    for statement in con.extract_statements(read_sql(name)):
        con.execute(statement, {key: parameters[key] for key in statement.named_parameters})


@contextmanager
def _workspace(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """An attached database in memory for the tables of one check: other cursors of the same process see what it holds (they do
    not see temporary tables), and nothing of it is ever written to the warehouse's file."""
    con.execute("attach if not exists ':memory:' as plumbline_check")
    try:
        yield
    finally:
        con.execute("drop table if exists temp.deal_score")
        con.execute("detach plumbline_check")


def _gather(con: duckdb.DuckDBPyConnection, catalogue: Catalogue, parameters: Mapping[str, Any]) -> int:
    """Makes plumbline_check.subject and what it is made of; the number of deals in it."""
    con.execute("create or replace table plumbline_check.builtin (metric varchar, stage varchar, days integer)")
    for metric in ("dwell_p90", "cycle_p95"):
        value = catalogue.reference(metric)
        by_stage = value if isinstance(value, Mapping) else {} if value is None else {"*": value}
        for stage, days in by_stage.items():
            con.execute("insert into plumbline_check.builtin values (?, ?, ?)", [metric, stage, days])
    con.execute("create or replace table plumbline_check.made_of (column_name varchar, made_of varchar)")
    pairs = [(column, made_of) for column, several in guard.MADE_OF.items() for made_of in several]
    con.execute("insert into plumbline_check.made_of select unnest(?), unnest(?)", [list(side) for side in zip(*pairs, strict=True)])
    for name in ("helper", "stage_spell", "won_deal", "reference_stat", "subject_table", "subject"):
        run(con, f"{name}.sql", parameters)
    con.execute("drop table plumbline_check.stage_spell; drop table plumbline_check.won_deal")   # large, and not needed any more
    deals = _count(con, "plumbline_check.subject")
    if deals != con.execute("select count(distinct opportunity_key) from plumbline_check.subject").fetchall()[0][0]:
        raise ExpectationsError(
            "core.opportunity, core.account, core.owner or core.crm_flag holds a record twice, so deals would be judged twice.\n"
            "Nothing was judged. Run `plumbline sync --full`; if it stays, the warehouse needs repair."
        )
    return deals


def _in_shadow(con: duckdb.DuckDBPyConnection, catalogue: Catalogue, now: datetime) -> tuple[Catalogue, bool]:
    """In the first `shadow_days` after the first check, alert rules only observe."""
    first = con.execute("select min(as_of) from quality.run").fetchall()[0][0] or now
    if catalogue.shadow_days == 0 or now >= first + timedelta(days=catalogue.shadow_days):
        return catalogue, False
    rules = tuple(replace(r, state="observe") if r.state == "alert" else r for r in catalogue.rules)
    return Catalogue(rules, catalogue.version + "-shadow", catalogue.shadow_days), True


def _make_rules(con: duckdb.DuckDBPyConnection, active: list[Rule], errors: Mapping[str, str]) -> None:
    """The rules and severities of this check for SQL to join: errored ones with their error, changed ones marked."""
    before = dict(con.execute("select rule_id, definition from quality.rule where state <> 'off'").fetchall())
    con.execute(
        "create or replace table plumbline_check.rule"
        " (rule_id varchar, grp varchar, state varchar, changed boolean, errored boolean, error varchar)"
    )
    for r in active:
        changed = before.get(r.rule_id, r.definition) != r.definition
        con.execute(
            "insert into plumbline_check.rule values (?, ?, ?, ?, ?, ?)",
            [r.rule_id, r.group, r.state, changed, r.rule_id in errors, errors.get(r.rule_id)],
        )
    con.execute("create or replace table plumbline_check.severity (severity varchar, points integer)")
    con.executemany("insert into plumbline_check.severity values (?, ?)", [[s, p] for s, p in POINTS.items()])


def _write_catalogue(con: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    con.execute("delete from quality.rule")
    for r in catalogue.rules:
        con.execute(
            "insert into quality.rule by name select ? as rule_id, ? as title, ? as mistake, ? as severity, ? as state, ? as audience,"
            " ? as grp, ? as description, ? as fix, ? as version, ? as definition, ?::varchar[] as reads",
            [r.rule_id, r.title, r.mistake, r.severity, r.state, r.audience, r.group, r.description, r.fix,
             catalogue.version, r.definition, list(r.reads)],
        )  # fmt: skip


def _result(
    con: duckdb.DuckDBPyConnection, catalogue: Catalogue, active: list[Rule], parameters: Mapping[str, Any],
    judgement: judge.Judgement,
    counts: tuple[int, int, int, int], *, shadow: bool,
) -> CheckResult:  # fmt: skip
    found = con.execute(
        "select rule.state, finding.severity, count(*) from quality.finding join plumbline_check.rule using (rule_id)"
        " where finding.state = 'open' group by all"
    ).fetchall()
    standing = {(str(state), str(severity)): int(n) for state, severity, n in found}
    overall = con.execute(
        "select score, open_amount_home, at_risk_amount_home from quality.score where run_id = ? and scope = 'all'",
        [parameters["run_id"]],
    ).fetchone()
    results = []
    for r in active:
        n = judgement.tallies.get(r.rule_id)
        if n is None:
            results.append(RuleResult(r.rule_id, r.severity, r.state, None, None, None, None, judgement.errors[r.rule_id]))
        else:
            results.append(RuleResult(r.rule_id, r.severity, r.state, n.applicable, n.evaluable, n.failed, n.waived))
    deals, opened, kept, resolved = counts
    return CheckResult(
        run_id=parameters["run_id"], as_of=parameters["now"], business_date=parameters["business_date"],
        rule_set_version=catalogue.version, success=judgement.success, deals=deals, opened=opened, kept=kept, resolved=resolved,
        waived=_count(con, "quality.finding where state = 'waived'"),
        by_severity={s: standing.get(("alert", s), 0) for s in SEVERITIES},
        observed={s: standing.get(("observe", s), 0) for s in SEVERITIES},
        results=tuple(results), errors=dict(judgement.errors),
        score=overall[0] if overall else None,
        open_amount_home=(overall[1] if overall else None) or Decimal(0),
        at_risk_amount_home=(overall[2] if overall else None) or Decimal(0),
        shadow=shadow,
    )  # fmt: skip


def _count(con: duckdb.DuckDBPyConnection, what: str) -> int:
    return int(con.execute(f"select count(*) from {what}").fetchall()[0][0])
