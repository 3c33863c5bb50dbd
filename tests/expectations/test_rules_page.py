"""docs/rules.md is what the suites say today, and nothing in it is made by hand."""

from __future__ import annotations

from pathlib import Path

import duckdb

from expectations.loader import load
from expectations.rule_page import columns, render
from expectations.sql_text import read_sql


def test_the_page_of_rules_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "rules.md"
    assert page.read_text(encoding="utf-8") == render(), "run: python -m expectations.rule_page > docs/rules.md"


def test_the_page_names_every_rule_and_every_column() -> None:
    page = render()
    for rule in load().rules:
        assert f"### {rule.rule_id}\n" in page
        assert rule.fix in page
    con = duckdb.connect()
    con.execute("attach ':memory:' as plumbline_check")
    con.execute(read_sql("subject_table.sql"))
    described = [r[0] for r in con.execute("describe plumbline_check.subject").fetchall()]
    assert [name for name, _, _ in columns()] == described
