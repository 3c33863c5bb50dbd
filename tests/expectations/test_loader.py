"""Suites are read strictly: every mistake is refused with its place and a hint, and none costs a rule in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from expectations.errors import RuleError
from expectations.loader import load
from expectations.rule import GX_SEVERITY

SUITE = """\
name: freshness
expectations:
  - type: expect_opportunities_to_pass
    severity: warning
    description: Deals are not quiet.
    kwargs:
      applies_when: is_open and stage_rank >= 1
      unknown_when:
        - if: activity_capability = 'none'
          because: activities cannot be read
      fails_when: days_quiet > $days
    meta:
      rule_id: quiet
      title: Quiet
      mistake: stale records
      severity: high
      state: alert
      audience: rep
      thresholds:
        days: {qualified: 21, negotiation: 10}
        strict: false
        words: [a, b]
        cap: 5
      severity_when:
        - {if: $strict or days_quiet > $cap, then: critical}
        - {if: "list_contains($words, type)", then: low}
      message: "Quiet for {days_quiet:days}."
      evidence: {days: days_quiet}
      fix: Call.
"""


def read(tmp_path: Path, text: str = SUITE, settings: dict[str, Any] | None = None) -> Any:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load(settings, path)


def test_the_packaged_suites_hold_the_first_twelve_rules() -> None:
    catalogue = load()
    assert {rule.rule_id: (rule.group, rule.severity, rule.audience) for rule in catalogue.rules} == {
        "no_recent_activity": ("freshness", "high", "rep"), "stage_dwell_over_p90": ("freshness", "high", "rep"),
        "next_step_empty": ("next_step", "high", "rep"), "close_date_past": ("close_date", "critical", "rep"),
        "exit_qualified": ("exit", "medium", "rep"), "exit_closed_lost": ("exit", "medium", "rep"),
        "deal_over_aged": ("hoarding", "high", "rep"), "amount_missing_or_zero": ("completeness", "medium", "rep"),
        "no_contact": ("completeness", "high", "rep"), "single_threaded": ("completeness", "medium", "rep"),
        "owner_not_working": ("integrity", "critical", "admin"), "state_inconsistent": ("integrity", "critical", "admin"),
    }  # fmt: skip
    assert {rule.state for rule in catalogue.rules} == {"alert"}
    assert load().version == catalogue.version


def test_great_expectations_is_not_imported_to_read_rules() -> None:
    code = (
        "import sys; import expectations; from expectations import check, loader; loader.load();"
        " sys.exit('great_expectations' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


# what is replaced, by what, line of the error, words of the error
MISTAKES = [
    ("type: expect_opportunities_to_pass", "type: expect_oportunities_to_pass", 3, "Did you mean 'expect_opportunities_to_pass'"),
    ("type: expect_opportunities_to_pass", "type: expect_column_values_to_not_be_null", 3, "unknown type"),
    ("    severity: warning", "    sev: warning", 4, "unknown key 'sev'"),
    ("    severity: warning", "    severity: critical", 4, "Great Expectations' severity of a high rule is 'warning'"),
    ("      fix: Call.\n", "", 12, "the key 'fix' is missing"),
    ("fails_when: days_quiet", "fail_when: days_quiet", 11, "Did you mean 'fails_when'"),
    ("days_quiet > $days\n", "days_quite > $days\n", 11, "there is no column 'days_quite'\nDid you mean 'days_quiet'"),
    ("days_quiet > $days\n", "days_quiet > $day\n", 11, "Did you mean 'days'"),
    ("days_quiet > $days\n", "days_quiet > $days)) or ((true\n", 11, "not valid SQL"),
    ("days_quiet > $days\n", "days_quiet > $days) from plumbline_check.subject; drop table core.opportunity; select (1\n", 11, "not"),
    ("days_quiet > $days\n", "days_quiet > $days -- always\n", 11, "comment"),
    ("days_quiet > $days\n", "days_quiet - $days\n", 11, "has to be true or false"),
    ("days_quiet > $days\n", "max(days_quiet) > $days\n", 11, "aggregate"),
    ("days_quiet > $days\n", "created_day < current_date - $days\n", 11, "business_date"),
    ("days_quiet > $days\n", "created_day < today() - $days\n", 11, "business_date"),
    ("days_quiet > $days\n", "is_open in (select is_open from core.opportunity) and $days > 0\n", 11, "does not fit"),
    ("if: activity_capability = 'none'", "when: activity_capability = 'none'", 9, "unknown key 'when'"),
    ("applies_when: is_open and", "applies_when: is_opened and", 7, "there is no column 'is_opened'"),
    ("rule_id: quiet", "rule_id: Quiet rule", 13, "small letters"),
    ("      severity: high", "      severity: hihg", 16, "Did you mean 'high'"),
    ("state: alert", "state: on", 17, "'state' has to be a text"),
    ("state: alert", "state: alarm", 17, "Did you mean 'alert'"),
    ("audience: rep", "audience: reps", 18, "Did you mean 'rep'"),
    ("qualified: 21", "qualifed: 21", 20, "Did you mean 'qualified'"),
    ("cap: 5", "cap: five", 23, "not a whole number"),
    ("cap: 5", "cap: 5\n        unused: 7", 24, "no condition uses the threshold '$unused'"),
    ("cap: 5", "cap: 5\n        amount: 7", 24, "it is taken"),
    ("then: critical", "then: grave", 25, "unknown then 'grave'"),
    ("{days_quiet:days}.", "{days_quite:days}.", 27, "days_quite"),
    ("{days_quiet:days}.", "{days_quiet:days.", 27, "brace"),
    ("evidence: {days: days_quiet}", "evidence: {days: days_quite}", 28, "days_quite"),
    ("fix: Call.", "fix: Call.\n      fix: Write.", 30, "stands twice"),
    ("name: freshness", "name: [", 3, "not valid YAML"),
    ("expectations:\n", "expectation:\n", 2, "Did you mean 'expectations'"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "line", "words"), MISTAKES, ids=[f"{m[1][:40].strip()}" for m in MISTAKES])
def test_a_mistake_is_refused_with_its_line(tmp_path: Path, good: str, bad: str, line: int, words: str) -> None:
    assert good in SUITE
    with pytest.raises(RuleError) as refusal:
        read(tmp_path, SUITE.replace(good, bad, 1))
    assert words in str(refusal.value)
    assert refusal.value.where == f"{tmp_path / 'mine.yaml'}:{line}", str(refusal.value)
    if line > 13 and "stands twice" not in words:
        assert refusal.value.rule_id == "quiet"


def test_the_suite_of_these_tests_is_right(tmp_path: Path) -> None:
    rule = read(tmp_path).rules[0]
    assert (rule.rule_id, rule.group, rule.gravest, rule.where) == ("quiet", "freshness", "critical", f"{tmp_path / 'mine.yaml'}:3")
    condition = "days_quiet > (case stage when 'qualified' then 21 when 'negotiation' then 10 end)"
    assert rule.kwargs["fails_when"] == f"case when list_has_any(unreadable, ['days_quiet']) then null else {condition} end"
    assert "is_snoozed" not in rule.kwargs["waived_when"]   # it can be critical


def test_a_rule_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(SUITE)
    with pytest.raises(RuleError, match=r"b\.yaml:3 \(rule quiet\): the rule stands twice, also at .*a\.yaml:3"):
        load(None, tmp_path)


def test_a_folder_without_suites_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="no suites"):
        load(None, tmp_path)
    with pytest.raises(RuleError, match=r"gone\.yaml: the file cannot be read"):
        load(None, tmp_path / "gone.yaml")


def test_settings_change_thresholds_and_state(tmp_path: Path) -> None:
    plain = read(tmp_path)
    some = read(tmp_path, settings={"quiet": {"days": {"negotiation": 7}, "state": "observe"}, "shadow_days": 14})
    assert some.rules[0].thresholds["days"] == {"qualified": 21, "negotiation": 7}
    assert (some.rules[0].state, some.shadow_days) == ("observe", 14)
    every = read(tmp_path, settings={"quiet": {"days": 5, "strict": True, "words": ["it's"], "cap": 9}})
    assert every.rules[0].thresholds == {"days": {"qualified": 5, "negotiation": 5}, "strict": True, "words": ["it's"], "cap": 9}
    assert "['it''s']::varchar[]" in every.rules[0].severity_sql
    assert len({plain.version, some.version, every.version}) == 3
    assert plain.rules[0].definition != every.rules[0].definition


@pytest.mark.parametrize(("settings", "words"), [
    ({"quite": {}}, r"\[rules\]: there is no rule 'quite'\nDid you mean 'quiet'"),
    ({"shadow_day": 3}, "Did you mean 'shadow_days'"),
    ({"shadow_days": -1}, "not a number of days"),
    ({"shadow_days": True}, "not a number of days"),
    ({"quiet": "off"}, r"\[rules.quiet\]: a rule's settings are a table"),
    ({"quiet": {"state": "mute"}}, "'mute' is not a state"),
    ({"quiet": {"day": 3}}, r"\[rules.quiet\]: unknown key 'day'\nDid you mean 'days'"),
    ({"quiet": {"days": "7"}}, "'7' is neither a whole number nor numbers by stage"),
    ({"quiet": {"days": {"negotiaton": 7}}}, r"\[rules.quiet\] days: the rule has no threshold for 'negotiaton'\nDid you mean 'negot"),
    ({"quiet": {"days": {"negotiation": -7}}}, "not a whole number"),
    ({"quiet": {"strict": 1}}, "not true or false"),
    ({"quiet": {"words": "a"}}, "not a list of texts"),
    ({"quiet": {"cap": 1.5}}, "not a whole number"),
])  # fmt: skip
def test_a_wrong_setting_is_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RuleError, match=words):
        read(tmp_path, settings=settings)


def test_a_setting_cannot_smuggle_sql(tmp_path: Path) -> None:
    hostile = "x']); drop table quality.finding; --"
    rule = read(tmp_path, settings={"quiet": {"words": [hostile]}}).rules[0]
    assert "['x'']); drop table quality.finding; --']::varchar[]" in rule.severity_sql


def test_every_packaged_rule_reads_as_a_rule() -> None:
    for rule in load().rules:
        assert rule.title[0].isupper(), rule.rule_id
        assert not rule.title.endswith("."), rule.rule_id
        assert rule.fix.endswith("."), rule.rule_id
        assert len(rule.description) > 40, rule.rule_id
        assert GX_SEVERITY[rule.severity] == rule.source["severity"]
