"""A fresh warehouse per test, copied from one that is made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from warehouse import derive
from warehouse.connection import open_warehouse


@pytest.fixture(scope="session")
def empty_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warehouse") / "empty.duckdb"
    with open_warehouse(path) as warehouse:
        for crm in derive.TABLES:  # as after a first load: making tables takes longer than most tests
            derive.prepare(warehouse.con, crm)
    return path


@pytest.fixture
def con(empty_warehouse: Path, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path / "plumbline.duckdb"
    shutil.copyfile(empty_warehouse, path)
    with open_warehouse(path, threads=1) as warehouse:
        yield warehouse.con
