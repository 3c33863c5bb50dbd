"""Great Expectations on DuckDB: what stock GX cannot do, and the two traps that an adapter can fall into."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from expectations.verdict import Tally, tally, tally_sql, verdict


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute(
        "create table deal as select i as id, 'deal ' || i as name, i * 10.5::decimal(18, 2) as amount, date '2026-01-01' + i::int as day,"
        " if(i % 10 = 0, null, 'x') as step, ['new', 'won', 'lost'][i % 3 + 1] as stage from range(1, 101) t(i)"
    )
    return connection


@pytest.fixture
def batch(con: duckdb.DuckDBPyConnection) -> Iterator[Any]:
    import great_expectations as gx

    from expectations import adapter

    with adapter.live_connection(con) as handle:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_plumbline_duckdb("w", live=handle).add_table_asset("deals", table_name="deal")
        yield asset.add_batch_definition_whole_table("all").get_batch()


# type, kwargs, succeeds, deals that do not pass (None: the type does not count them)
CORE: list[tuple[str, dict[str, Any], bool, int | None]] = [
    ("expect_table_row_count_to_equal", {"value": 100}, True, None),
    ("expect_table_row_count_to_be_between", {"min_value": 101}, False, None),
    ("expect_column_to_exist", {"column": "amount"}, True, None),
    ("expect_table_columns_to_match_set", {"column_set": ["id", "name", "amount", "day", "step", "stage"]}, True, None),
    ("expect_column_values_to_not_be_null", {"column": "step"}, False, 10),
    ("expect_column_values_to_be_unique", {"column": "id"}, True, 0),
    ("expect_compound_columns_to_be_unique", {"column_list": ["stage", "step"]}, False, None),
    ("expect_column_values_to_be_in_set", {"column": "stage", "value_set": ["new", "won"]}, False, 33),
    ("expect_column_values_to_be_between", {"column": "amount", "min_value": 0, "max_value": 1000}, False, 5),
    ("expect_column_values_to_match_regex", {"column": "name", "regex": "[05]$"}, False, 80),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "amount", "column_B": "id"}, True, 0),
    ("expect_column_median_to_be_between", {"column": "id", "min_value": 50, "max_value": 51}, True, None),
    ("expect_column_distinct_values_to_be_in_set", {"column": "stage", "value_set": ["new", "won", "lost"]}, True, None),
]


def test_core_expectations_run_on_duckdb(batch: Any) -> None:
    import great_expectations as gx
    from great_expectations.expectations.registry import get_expectation_impl

    said = {}
    for name, kwargs, _, _ in CORE:
        result = batch.validate(get_expectation_impl(name)(**kwargs), result_format="SUMMARY").to_json_dict()
        assert result["exception_info"]["raised_exception"] is False, (name, result["exception_info"])
        said[name] = (result["success"], result["result"].get("unexpected_count"))
    wanted = {name: (success, said[name][1] if bad is None else bad) for name, _, success, bad in CORE}
    assert said == wanted
    assert gx.__version__.startswith("1.24.")


def test_a_later_validation_sees_what_was_committed_in_between(con: duckdb.DuckDBPyConnection, batch: Any) -> None:
    """A connection that GX keeps open must not read from the snapshot of its first query, nor hold up a checkpoint."""
    import great_expectations.expectations as gxe

    rows = gxe.ExpectTableRowCountToEqual(value=100)
    assert batch.validate(rows).success
    other = con.cursor()
    other.execute("insert into deal (id) values (101)")
    other.execute("checkpoint")
    result = batch.validate(rows)
    assert (result.success, result.result["observed_value"]) == (False, 101)


def test_the_adapter_reads_a_file_that_is_open_for_writing(tmp_path: Any) -> None:
    import great_expectations as gx
    import great_expectations.expectations as gxe

    from expectations import adapter

    writer = duckdb.connect(str(tmp_path / "w.duckdb"))
    writer.execute("create table deal as select 1 as id")
    with adapter.live_connection(writer) as handle:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_plumbline_duckdb("w", live=handle).add_table_asset("deals", table_name="deal")
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        writer.execute("begin")
        writer.execute("insert into deal values (2)")
        assert batch.validate(gxe.ExpectTableRowCountToEqual(value=1)).success   # what is not committed is not judged
        writer.execute("commit")
        assert batch.validate(gxe.ExpectTableRowCountToEqual(value=2)).success


def test_a_suite_of_rules_is_one_query_and_its_result_holds_its_own_conditions(
    con: duckdb.DuckDBPyConnection, batch: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import great_expectations as gx

    from expectations import adapter, expectation

    queries: list[str] = []
    real = adapter.PlumblineDuckDBExecutionEngine.execute_query
    monkeypatch.setattr(adapter.PlumblineDuckDBExecutionEngine, "execute_query",
                        lambda self, query: (queries.append(str(query)), real(self, query))[1])  # fmt: skip

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Great Expectations went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # Casts, percent signs, quotes and braces pass through SQLAlchemy as they are.
    rules = [
        {"rule_id": f"r{i}", "applies_when": "strftime(day, '%Y') = '2026'",
         "unknown_because": "case when step is null then 'no ''step''' end",
         "fails_when": f"id % {i} = 0 and {{'a': id::varchar}}.a like '%{i % 10}%'", "waived_when": "stage = 'won'"}
        for i in range(2, 14)
    ]  # fmt: skip
    suite = gx.ExpectationSuite("s", expectations=[expectation.ExpectOpportunitiesToPass(**rule) for rule in rules])
    result = batch.validate(suite, result_format="SUMMARY").to_json_dict()

    assert len(queries) == 1
    assert capfd.readouterr().err == ""
    for rule, said in zip(rules, result["results"], strict=True):
        assert said["exception_info"]["raised_exception"] is False
        assert {**said["expectation_config"]["kwargs"], **rule} == said["expectation_config"]["kwargs"]
        by_verdict = dict(con.execute(f"select {verdict(rule)}, count(*) from deal group by 1").fetchall())
        assert said["result"]["element_count"] == 100 - by_verdict.get("na", 0)
        assert said["result"]["missing_count"] == by_verdict.get("unknown", 0) == 10
        assert said["result"]["unexpected_count"] == by_verdict.get("fail", 0)
        assert said["result"]["waived_count"] == by_verdict.get("waived", 0)
        assert said["success"] == (by_verdict.get("fail", 0) == 0)


def test_counts_are_packed_and_taken_apart_without_loss() -> None:
    rule = {"applies_when": "v <> 'na'", "unknown_because": "if(v = 'unknown', 'x', null)", "fails_when": "v in ('fail', 'waived')",
            "waived_when": "v = 'waived'"}  # fmt: skip
    con = duckdb.connect()
    con.execute("create table t (v varchar, n bigint)")
    assert tally(con.execute(f"select {tally_sql(rule)} from t").fetchall()[0][0]) == Tally(0, 0, 0, 0)
    con.execute("insert into t values ('na', 5), ('unknown', 1234), ('pass', 100000), ('waived', 1), ('fail', 77777)")
    packed = con.execute(f"select {tally_sql(rule)} from t, range(n)").fetchall()[0][0]
    found = tally(packed)
    assert found == Tally(unknown=1234, passed=100_000, waived=1, failed=77_777)
    assert (found.applicable, found.evaluable) == (179_012, 177_778)


def test_three_valued_logic_counts_null_as_unknown() -> None:
    con = duckdb.connect()
    rule = {"applies_when": "a", "unknown_because": "null", "fails_when": "f", "waived_when": "null"}
    cases = con.execute(
        f"select a, f, {verdict(rule)} from (values (true), (false), (null)) x(a), (values (true), (false), (null)) y(f)"
    ).fetchall()
    assert {(a, f): v for a, f, v in cases} == {
        (True, True): "fail", (True, False): "pass", (True, None): "unknown",
        (False, True): "na", (False, False): "na", (False, None): "na",
        (None, True): "na", (None, False): "na", (None, None): "na",
    }  # fmt: skip
