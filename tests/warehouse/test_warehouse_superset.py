"""The dashboard under docs/superset asks for what the published file has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

SUPERSET = Path(__file__).resolve().parents[2] / "docs" / "superset"


def read(kind: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(SUPERSET.glob(f"{kind}/**/*.yaml"))]


def expressions(part: Any) -> Iterator[str]:
    """The SQL and the columns that a chart's parameters name, wherever they stand."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "sqlExpression" and value:
                yield value
            elif key in ("x_axis", "granularity_sqla", "column_name") and isinstance(value, str):
                yield f'"{value}"'
            elif key == "groupby":
                yield from (f'"{name}"' for name in value if isinstance(name, str))
            else:
                yield from expressions(value)
    elif isinstance(part, list):
        for value in part:
            yield from expressions(value)


@pytest.fixture(scope="module")
def datasets() -> dict[str, dict[str, Any]]:
    return {dataset["uuid"]: dataset for dataset in read("datasets")}


def relation(dataset: dict[str, Any]) -> str:
    return f"({dataset['sql']})" if dataset["sql"] else f"{dataset['schema']}.{dataset['table_name']}"


def test_every_dataset_has_the_columns_that_the_file_has(con: Any, datasets: dict[str, dict[str, Any]]) -> None:
    (database,) = read("databases")
    assert len(datasets) == 6
    for dataset in datasets.values():
        assert dataset["database_uuid"] == database["uuid"]
        found = {row[0] for row in con.execute(f"describe select * from {relation(dataset)}").fetchall()}
        assert {column["column_name"] for column in dataset["columns"] if not column["expression"]} <= found, dataset["table_name"]


def test_every_chart_asks_what_its_dataset_can_answer(con: Any, datasets: dict[str, dict[str, Any]]) -> None:
    charts = read("charts")
    for chart in charts:
        asked = list(expressions(chart["params"]))
        assert asked, chart["slice_name"]
        for expression in asked:
            con.execute(f"select {expression} from {relation(datasets[chart['dataset_uuid']])}")
    (dashboard,) = read("dashboards")
    shown = {part["meta"]["uuid"] for part in dashboard["position"].values() if isinstance(part, dict) and part.get("type") == "CHART"}
    assert shown == {chart["uuid"] for chart in charts}
