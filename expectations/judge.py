"""Runs Great Expectations over the subject and hands back its Validation Result, with each rule's counts or its error.

The only module that makes Great Expectations work; it imports it when called. The context is ephemeral: nothing is read from
or written to disk, no progress bars, no network.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from expectations.errors import ExpectationsError
from expectations.rule import EXPECTATION_TYPE, GX_SEVERITY, Rule
from expectations.verdict import Tally, tally, tally_sql

SUITE_NAME = "plumbline"


@dataclass(frozen=True)
class Judgement:
    """What Great Expectations said."""

    validation: dict[str, Any]
    """The Validation Result as JSON: configurations and counts, no record and no value of any record."""
    success: bool
    kwargs: Mapping[str, Mapping[str, str]]
    """By rule: the kwargs of the expectation as the Validation Result holds them. Rules that errored are not here."""
    tallies: Mapping[str, Tally]
    """By rule: deals by verdict as the Validation Result counts them."""
    errors: Mapping[str, str]
    """By rule: why it could not be run."""


def judge(con: duckdb.DuckDBPyConnection, rules: Sequence[Rule], *, catalog: str, table: str) -> Judgement:
    """Validates `catalog.main.table`, which has to be committed, against the rules. A rule whose SQL fails on the data is an
    error of its own and does not keep the others from being judged."""
    validation = _validate(con, rules, catalog=catalog, table=table)
    broken = [r for r in validation["results"] if not _ran(r)]
    if broken:
        # One query computes the whole suite, so one bad rule takes all others with it: find the culprits, run without them.
        errors = _culprits(con, rules, f'"{catalog}".main."{table}"')
        if not errors:
            errors = {_rule_id(r): _gx_error(r) for r in broken}
        culprits = [r for r in validation["results"] if _rule_id(r) in errors]
        validation = _validate(con, [r for r in rules if r.rule_id not in errors], catalog=catalog, table=table)
        again = [_rule_id(r) for r in validation["results"] if not _ran(r)]
        if again:
            raise ExpectationsError(
                f"Great Expectations could not run {', '.join(again)}: {_gx_error(validation['results'][0])}.\nNothing was judged."
            )
        validation["results"] += culprits
        validation["success"] = False
    else:
        errors = {}
    ran = [r for r in validation["results"] if _rule_id(r) not in errors]
    return Judgement(
        validation=validation,
        success=bool(validation["success"]),
        kwargs={_rule_id(r): r["expectation_config"]["kwargs"] for r in ran},
        tallies={_rule_id(r): _counted(r["result"]) for r in ran},
        errors=errors,
    )


def _validate(con: duckdb.DuckDBPyConnection, rules: Sequence[Rule], *, catalog: str, table: str) -> dict[str, Any]:
    import great_expectations as gx

    from expectations import adapter, expectation  # noqa: F401  (importing registers the expectation type)

    with adapter.live_connection(con, catalog=catalog) as handle, _quiet():
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_plumbline_duckdb("warehouse", live=handle)
        batch = source.add_table_asset("opportunities", table_name=table).add_batch_definition_whole_table("all")
        suite = context.suites.add(gx.ExpectationSuite(name=SUITE_NAME, expectations=[_declaration(rule) for rule in rules]))
        if len(suite.expectations) != len(rules):   # GX drops what it does not know and only logs it
            raise ExpectationsError(f"Great Expectations took {len(suite.expectations)} of {len(rules)} rules. Nothing was judged.")
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=SUITE_NAME, data=batch, suite=suite))
        result: dict[str, Any] = definition.run(result_format="SUMMARY").to_json_dict()
    return result


def _declaration(rule: Rule) -> dict[str, Any]:
    return {
        "type": EXPECTATION_TYPE,
        "severity": GX_SEVERITY[rule.severity],
        "description": rule.title,
        "kwargs": {"rule_id": rule.rule_id, **rule.kwargs},
        "meta": {
            "rule_id": rule.rule_id, "severity": rule.severity, "state": rule.state, "group": rule.group,
            "audience": rule.audience, "mistake": rule.mistake, "fix": rule.fix,
        },
    }  # fmt: skip


class _quiet:
    """GX logs whole tracebacks of failed queries, SQL and values in them; the error reaches the user in our own words."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("great_expectations")
        self.level = self.logger.level
        self.logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)


def _rule_id(result: Mapping[str, Any]) -> str:
    return str(result["expectation_config"]["meta"]["rule_id"])   # GX's own ids change with every suite that is built


def _ran(result: Mapping[str, Any]) -> bool:
    """An expectation that errored has its exceptions keyed by metric and no result; it is not one that failed."""
    return result["exception_info"].get("raised_exception") is False and "unexpected_count" in result["result"]


def _counted(result: Mapping[str, Any]) -> Tally:
    failed, waived, unknown = int(result["unexpected_count"]), int(result["waived_count"]), int(result["missing_count"])
    return Tally(unknown=unknown, passed=int(result["element_count"]) - unknown - waived - failed, waived=waived, failed=failed)


def _culprits(con: duckdb.DuckDBPyConnection, rules: Sequence[Rule], table: str) -> dict[str, str]:
    errors = {}
    for rule in rules:
        try:
            tally(con.execute(f"select {tally_sql(rule.kwargs)} from {table}").fetchall()[0][0])
        except duckdb.Error as error:
            # The first line only: what follows quotes the statement. Values are not quoted back into stored results.
            errors[rule.rule_id] = f"{type(error).__name__}: its SQL fails on the data ({rule.where})"
    return errors


def _gx_error(result: Mapping[str, Any]) -> str:
    info = result["exception_info"]
    inner = next((v for v in info.values() if isinstance(v, Mapping)), info)
    return str(inner.get("exception_message") or "it raised an exception").strip().splitlines()[0][:200]
