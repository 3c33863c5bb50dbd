"""Findings over several checks: they open, stay, are waived and end for a reason, and always equal what Great Expectations counted."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rule_bench import NOW, ago, day, deal, findings, furnish, insert, run, warehouse

from expectations import findings as findings_module
from expectations import judge as judge_module
from expectations.errors import ReconciliationError, RuleError
from expectations.judge import Judgement
from expectations.verdict import Tally

TABLES = ("rule", "result", "finding", "score", "run", "reference_stat")
NIGHT = timedelta(days=1)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = warehouse()
    furnish(connection)
    return connection


def one(con: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> Any:
    return con.execute(sql, list(parameters)).fetchone()


def contents(con: duckdb.DuckDBPyConnection) -> dict[str, list[Any]]:
    return {table: con.execute(f"select * from quality.{table} order by all").fetchall() for table in TABLES}


def test_a_finding_opens_stays_and_is_fixed(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "good")
    bad = deal(con, "bad", contact_count=0, stage="discovery")
    first = run(con)
    assert (first.opened, first.kept, first.resolved) == (2, 0, 0)
    assert findings(con) == [("bad", "exit_qualified", "open", "medium"), ("bad", "no_contact", "open", "high")]
    opened = one(con, "select * from quality.finding where rule_id = 'no_contact'")

    con.execute("update core.opportunity set stage = 'proposal', stage_rank = 3, crm_stage = 'Proposal/Price Quote', owner_id = 'u2'")
    second = run(con, now=NOW + NIGHT)
    assert (second.opened, second.kept, second.resolved) == (0, 2, 0)
    finding_id, first_seen, last_seen, runs, message, owner = one(
        con, "select finding_id, first_seen_at, last_seen_at, runs_seen, message, owner_id from quality.finding"
        " where rule_id = 'no_contact'")  # fmt: skip
    assert (finding_id, first_seen, last_seen, runs) == (opened[0], NOW, NOW + NIGHT, 2)
    assert (message, owner) == ("No contact is attached in proposal.", "u2")
    assert one(con, "select severity from quality.finding where rule_id = 'exit_qualified'") == ("high",)   # one stage further

    con.execute("update core.opportunity set contact_count = 2")
    third = run(con, now=NOW + 2 * NIGHT)
    assert (third.opened, third.kept, third.resolved) == (0, 0, 2)
    assert one(con, "select distinct state, resolution, resolved_at, last_seen_at from quality.finding") == (
        "resolved", "fixed", NOW + 2 * NIGHT, NOW + NIGHT)  # fmt: skip

    con.execute("update core.opportunity set contact_count = 0 where opportunity_key = ?", [bad])
    fourth = run(con, now=NOW + 3 * NIGHT)
    assert (fourth.opened, fourth.kept, fourth.resolved) == (2, 0, 0)   # a new episode, the old one stays told
    assert one(con, "select count(*), count(distinct finding_id) from quality.finding where rule_id = 'no_contact'") == (2, 2)


def test_the_same_check_again_changes_nothing(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "bad", contact_count=0)
    run(con, run_id="r1")
    before = contents(con)
    again = run(con, run_id="r1")
    assert (again.opened, again.kept, again.resolved) == (0, 2, 0)
    after = contents(con)
    for table in ("rule", "result", "finding", "score", "reference_stat"):
        assert after[table] == before[table], table
    assert len(after["run"]) == 1


def test_why_a_finding_ends(con: duckdb.DuckDBPyConnection) -> None:
    for name in ("won", "deleted", "unknown", "regressed", "on hold"):
        deal(con, name, contact_count=0, description=None)
    deal(con, "vanished", contact_count=0)
    run(con)
    for name, change in {
        "won": "is_closed = true, is_won = true, stage = 'closed_won', stage_rank = 5, crm_stage = 'Closed Won',"
               " stage_default_probability = 1, close_date = date '2026-11-24', closed_at = timestamptz '2026-11-24 15:00:00+00'",
        "deleted": "is_deleted = true",
        "unknown": "contact_count = null",
        "regressed": "stage = 'qualified', stage_rank = 1, crm_stage = 'Qualification'",
        "on hold": "stage = 'on_hold', stage_rank = null, crm_stage = 'Parked'",
    }.items():  # fmt: skip
        con.execute(f"update core.opportunity set {change} where opportunity_id = ?", [name])
    con.execute("delete from core.opportunity where opportunity_id = 'vanished'")
    result = run(con, now=NOW + NIGHT)
    ends = con.execute("select split_part(opportunity_key, ':', 2), resolution from quality.finding where rule_id = 'no_contact'")
    assert dict(ends.fetchall()) == {
        "won": "closed", "deleted": "deleted", "unknown": "unknown", "regressed": "not_applicable", "on hold": "not_applicable",
        "vanished": "deleted",
    }  # fmt: skip
    assert result.opened == 0
    assert one(con, "select unknown_reason from quality.result where rule_id = 'no_contact' and as_of = ?", NOW + NIGHT) == (
        "1 deal: contacts of this source cannot be read",)  # fmt: skip


def test_a_rule_switched_off_or_changed_says_so(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "quiet", last_activity_at=ago(16), contact_count=0)
    run(con)
    run(con, now=NOW + timedelta(hours=1), settings={"no_contact": {"state": "off"}, "no_recent_activity": {"days": 30}})
    ends = con.execute("select rule_id, state, resolution from quality.finding order by 1").fetchall()
    assert ends == [("exit_qualified", "open", None), ("no_contact", "resolved", "rule_changed"),
                    ("no_recent_activity", "resolved", "rule_changed")]  # fmt: skip
    assert one(con, "select state from quality.rule where rule_id = 'no_contact'") == ("off",)
    assert one(con, "select count(*) from quality.result where rule_id = 'no_contact' and as_of > ?", NOW) == (0,)


def test_waived_findings_keep_their_episode(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "bad", contact_count=0)
    run(con)
    insert(con, "quality.waiver", waiver_id="w1", scope="deal", scope_key="sales:bad", rule_id="no_contact", reason="agreed",
           valid_from=NOW, valid_until=NOW + timedelta(days=2))  # fmt: skip
    waived = run(con, now=NOW + NIGHT)
    assert (waived.opened, waived.kept, waived.waived) == (0, 2, 1)
    assert findings(con, "no_contact") == [("bad", "no_contact", "waived", "high")]
    assert one(con, "select failed, waived, success from quality.result where rule_id = 'no_contact' and as_of = ?", NOW + NIGHT) == (
        0, 1, True)  # fmt: skip
    run(con, now=NOW + 3 * NIGHT)
    assert findings(con, "no_contact") == [("bad", "no_contact", "open", "high")]
    assert one(con, "select count(*) from quality.finding where rule_id = 'no_contact'") == (1,)


def test_great_expectations_counts_equal_the_findings(con: duckdb.DuckDBPyConnection) -> None:
    """On a hundred deals with all kinds of harm, rule by rule, and the stored result describes itself."""
    harm: list[dict[str, Any]] = [
        {}, {"contact_count": 0}, {"amount": None}, {"close_date": day(9)}, {"next_step": None}, {"owner_id": None},
        {"stage": "unmapped"}, {"stage": "closed_lost", "lost_reason": None}, {"last_activity_at": ago(99)}, {"contact_count": None},
    ]  # fmt: skip
    for i in range(100):
        deal(con, str(i), **({"stage": ("discovery", "proposal", "negotiation")[i % 3]} | harm[i % 10] | harm[i // 10]))
    result = run(con)
    validation = json.loads(one(con, "select validation from quality.run")[0])
    counted = {r["expectation_config"]["kwargs"]["rule_id"]: r["result"] for r in validation["results"]}
    stored = dict(con.execute("select rule_id, count(*) from quality.finding where state = 'open' group by 1").fetchall())
    assert {rule_id: r["unexpected_count"] for rule_id, r in counted.items() if r["unexpected_count"]} == stored
    assert len(stored) >= 8
    for r in result.results:
        assert one(con, "select sum(applicable), sum(evaluable), sum(failed) from quality.result where rule_id = ?", r.rule_id) == (
            r.applicable, r.evaluable, r.failed)  # fmt: skip
        assert (counted[r.rule_id]["element_count"], counted[r.rule_id]["unexpected_count"]) == (r.applicable, r.failed)
        assert r.applicable is not None
        assert r.evaluable == r.applicable - counted[r.rule_id]["missing_count"]
    # No deal's data is in what Great Expectations leaves behind: neither names nor ids nor samples.
    text = json.dumps(validation)
    assert "Deal 1" not in text
    assert "sales:" not in text
    assert "Uma" not in text


def test_a_count_that_does_not_reconcile_is_an_error_and_nothing_is_written(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    deal(con, "bad", contact_count=0)
    real = judge_module.judge

    def off_by_one(*args: Any, **kwargs: Any) -> Judgement:
        said = real(*args, **kwargs)
        tallies = dict(said.tallies)
        tallies["no_contact"] = Tally(*tallies["no_contact"][:3], failed=2)
        return Judgement(said.validation, said.success, said.kwargs, tallies, said.errors)

    monkeypatch.setattr(judge_module, "judge", off_by_one)
    with pytest.raises(ReconciliationError, match=r"no_contact judged 1 of \d deals as failing, counted 2"):
        run(con)
    assert all(not rows for rows in contents(con).values())


def test_what_was_written_is_counted_once_more(con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    deal(con, "bad", contact_count=0)
    run(con)
    before = contents(con)
    # A finding that no verdict stands behind: as if another program had written to the table.
    stray = "insert into quality.finding select * replace ('stray' as finding_id) from quality.finding where rule_id = 'no_contact'"
    monkeypatch.setattr(findings_module, "_reconcile", lambda *_: con.execute(stray))
    with pytest.raises(ReconciliationError, match="no_contact has 2 findings, counted 1"):
        run(con, now=NOW + NIGHT)
    con.execute("delete from quality.finding where finding_id = 'stray'")
    assert contents(con) == before


BROKEN = """
name: own
expectations:
  - type: expect_opportunities_to_pass
    severity: info
    description: Fails on data only.
    kwargs:
      applies_when: is_open
      fails_when: name::integer > 5
    meta: {rule_id: name_is_a_number, title: t, mistake: m, severity: low, state: alert, audience: rep, message: x, fix: f}
  - type: expect_opportunities_to_pass
    severity: warning
    description: Nobody is attached.
    kwargs:
      applies_when: is_open
      fails_when: contact_count = 0
    meta: {rule_id: nobody, title: t, mistake: m, severity: high, state: alert, audience: rep, message: "{contact_count} there", fix: f}
"""


def test_a_rule_that_errors_neither_opens_nor_ends_findings(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    suite = tmp_path / "own.yaml"
    suite.write_text(BROKEN)
    deal(con, "a", name="7", contact_count=0)
    first = run(con, suites=suite)
    assert [(r.rule_id, r.failed) for r in first.results] == [("name_is_a_number", 1), ("nobody", 1)]

    deal(con, "b", name="words", contact_count=0)
    second = run(con, now=NOW + NIGHT, suites=suite)
    assert set(second.errors) == {"name_is_a_number"}
    with pytest.raises(RuleError, match="1 could not be run, name_is_a_number"):    # a check that is not whole does not end green
        second.raise_failures()
    assert "own.yaml:4" in second.errors["name_is_a_number"]
    assert "words" not in str(second.errors)   # a deal's data does not leak into stored errors
    assert second.fails("critical")
    assert not second.success
    assert findings(con) == [("a", "name_is_a_number", "open", "low"), ("a", "nobody", "open", "high"), ("b", "nobody", "open", "high")]
    assert one(con, "select last_seen_at from quality.finding where rule_id = 'name_is_a_number'") == (NOW,)
    row = one(con, "select applicable, failed, success, error is null from quality.result where rule_id = 'name_is_a_number'"
                   " and as_of = ?", NOW + NIGHT)  # fmt: skip
    assert row == (None, None, None, False)
    results = json.loads(one(con, "select validation from quality.run order by as_of desc limit 1")[0])["results"]
    assert {r["expectation_config"]["meta"]["rule_id"] for r in results} == {"name_is_a_number", "nobody"}


def test_observing_rules_and_the_first_days_keep_findings_out_of_gate_and_score(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "late", close_date=day(3))
    observed = run(con, settings={"close_date_past": {"state": "observe"}})
    assert (observed.observed["critical"], observed.by_severity["critical"]) == (1, 0)
    assert not observed.fails("critical")
    assert observed.score == 100

    shadowed = run(con, now=NOW + NIGHT, settings={"shadow_days": 14})
    assert shadowed.shadow
    assert not shadowed.fails("info")
    alert = run(con, now=NOW + 14 * NIGHT, settings={"shadow_days": 14})
    assert not alert.shadow
    assert alert.fails("critical")
    assert alert.rule_set_version != shadowed.rule_set_version


def test_a_wrong_setting_stops_the_check_before_anything_is_read(con: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(RuleError, match="no rule 'close_date_passed'"):
        run(con, settings={"close_date_passed": {"state": "off"}})
    assert contents(con)["run"] == []


def test_an_empty_warehouse_is_judged_too() -> None:
    result = run(warehouse())
    assert (result.deals, result.opened, result.success, result.score) == (0, 0, True, None)


def test_deals_that_appear_twice_are_refused(con: duckdb.DuckDBPyConnection) -> None:
    deal(con, "twice")
    deal(con, "twice")
    with pytest.raises(Exception, match="holds a record twice"):
        run(con)


@pytest.mark.slow
def test_a_hundred_thousand_findings_at_once_and_again(con: duckdb.DuckDBPyConnection) -> None:
    """Past one row group of 122,880 DuckDB inserts in parallel, where 1.5 loses rows after an empty insert into the same table."""
    con.execute("set threads = 2")
    deal(con, "0", contact_count=0)
    con.execute(
        "insert into core.opportunity select o.* replace (concat('sales:', i) as opportunity_key, i::varchar as opportunity_id)"
        " from core.opportunity o, range(1, 130000) t(i)"
    )
    first = run(con)
    second = run(con, now=NOW + NIGHT)
    assert (first.opened, second.opened, second.kept) == (260_000, 0, 260_000)
    assert one(con, "select count(*), min(runs_seen) from quality.finding where state = 'open'") == (260_000, 2)
