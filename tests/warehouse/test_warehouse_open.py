"""Opening the warehouse: one writer, versions, damage, and runs that a killed process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from warehouse import migrate, ops
from warehouse.connection import open_warehouse
from warehouse.errors import WarehouseDamaged, WarehouseError, WarehouseLocked, WarehouseMissing, WarehouseNewer

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def in_another_process(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_new_warehouse_has_every_table_with_its_comments_and_counts_in_utc(con: duckdb.DuckDBPyConnection) -> None:
    bare = con.execute("""
        select schema_name || '.' || table_name || '.' || column_name from duckdb_columns()
        where database_name = current_database() and schema_name in ('core', 'quality', 'ops', 'bi') and comment is null
    """).fetchall()
    assert bare == []
    found = con.execute("select schema_name || '.' || table_name from duckdb_tables() where comment is not null")
    assert {d.name for d in migrate.definitions("table")} <= {row[0] for row in found.fetchall()}
    assert con.execute("select comment from duckdb_columns() where table_name = 'activity' and column_name = 'at'").fetchone() == (
        "completed, or ended, or due",
    )
    assert con.execute("select current_setting('TimeZone')").fetchone() == ("UTC",)


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    writer = in_another_process(
        f"from warehouse.connection import open_warehouse; from pathlib import Path; import time\n"
        f"w = open_warehouse(Path({str(path)!r}), command='nightly'); print('open', flush=True); time.sleep(60)"
    )
    try:
        with pytest.raises(WarehouseLocked, match=rf"process {writer.pid} \(nightly\)"):
            open_warehouse(path)
        with pytest.raises(WarehouseLocked, match=f"process {writer.pid}"):
            open_warehouse(path, read_only=True)
    finally:
        writer.kill()
        writer.wait()
    open_warehouse(path).close()  # the kernel lets go of the lock of a killed process


def test_in_one_process_there_is_one_writer_too(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(path, command="sync"), pytest.raises(WarehouseLocked, match=rf"process {os.getpid()} \(sync\)"):
        open_warehouse(path)
    open_warehouse(path).close()


def test_a_tool_that_opened_the_private_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_warehouse(path).close()
    reader = in_another_process(
        f"import duckdb, time; c = duckdb.connect({str(path)!r}, read_only=True); print('open', flush=True); time.sleep(60)"
    )
    try:
        with pytest.raises(WarehouseLocked, match=rf"process {reader.pid}.*\n.*published"):
            open_warehouse(path)
        open_warehouse(path, read_only=True).close()
    finally:
        reader.kill()
        reader.wait()


def test_reading_needs_a_warehouse_and_leaves_none_behind(tmp_path: Path) -> None:
    with pytest.raises(WarehouseMissing, match="plumbline sync"):
        open_warehouse(tmp_path / "w.duckdb", read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"id,name\n1,Ada\n", b"\x00" * 20_000, "cut"])
def test_a_file_that_is_no_whole_database_is_damaged_and_stays_as_it_is(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "w.duckdb"
    if content == "cut":
        open_warehouse(path).close()
        content = path.read_bytes()[:30_000]
    path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(WarehouseDamaged, match="not a whole DuckDB database"):
        open_warehouse(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match=r"cannot be opened: .*\n.*path"):
        open_warehouse(tmp_path / "file" / "w.duckdb")


def test_a_file_called_as_one_of_its_schemas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"core is also the name of a schema inside.*\n.*plumbline\.duckdb"):
        open_warehouse(tmp_path / "core.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_warehouse_of_a_later_plumbline_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(path) as warehouse:
        warehouse.con.execute("insert into ops.schema_migration values (99, 'from the future', now())")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(WarehouseNewer, match="schema version 99, this Plumbline knows up to"):
            open_warehouse(path, read_only=read_only)
    assert path.read_bytes() == before


def test_migrations_run_once_each_in_a_transaction(tmp_path: Path) -> None:
    con = duckdb.connect()
    steps = tmp_path / "migrations"
    steps.mkdir()
    migrate.migrate(con, tmp_path, steps)
    con.execute("insert into core.source (source, crm, first_synced_at, last_synced_at) values ('sales', 'salesforce', now(), now())")
    (steps / "0002_spell_the_crm.sql").write_text("update core.source set crm = upper(crm);")
    (steps / "0003_breaks.sql").write_text("update core.source set crm = 'x'; select * from nowhere;")
    with pytest.raises(duckdb.CatalogException):
        migrate.migrate(con, tmp_path, steps)
    assert con.execute("select crm from core.source").fetchone() == ("SALESFORCE",)  # 2 is done, 3 has left nothing
    (steps / "0003_breaks.sql").write_text("update core.source set org_id = org_id || 'x', crm = crm || '!';")
    migrate.migrate(con, tmp_path, steps)
    migrate.migrate(con, tmp_path, steps)
    assert con.execute("select crm from core.source").fetchone() == ("SALESFORCE!",)
    named = con.execute("select version, name from ops.schema_migration where not starts_with(name, 'definitions') order by 1").fetchall()
    assert named == [(1, "base"), (2, "spell the crm"), (3, "breaks")]


def test_a_column_that_a_table_file_gained_is_added(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_warehouse(path) as warehouse:
        warehouse.con.execute("drop view bi.opportunity; drop view bi.finding; alter table core.account drop column employees")
        warehouse.con.execute("update ops.schema_migration set name = 'definitions old' where starts_with(name, 'definitions')")
    with open_warehouse(path) as warehouse:
        found = warehouse.con.execute(
            "select data_type, comment from duckdb_columns() where table_name = 'account' and column_name = 'employees'"
        )
        assert found.fetchone() == ("INTEGER", "number of employees")
        assert warehouse.con.execute("select count(*) from bi.opportunity").fetchone() == (0,)


def test_a_run_whose_process_was_killed_is_marked_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    killed = in_another_process(
        f"from warehouse.connection import open_warehouse; from warehouse import ops; from pathlib import Path\n"
        f"from datetime import datetime, UTC; import time\n"
        f"w = open_warehouse(Path({str(path)!r}))\n"
        f"ops.start_run(w.con, command='sync', now=datetime(2026, 11, 20, tzinfo=UTC), run_id='r1')\n"
        f"print('open', flush=True); time.sleep(60)"
    )
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with open_warehouse(path) as warehouse:
        assert warehouse.con.execute("select run_id, status, error from ops.sync_run").fetchall() == [
            ("r1", "interrupted", "the process ended before the run did")
        ]


def test_the_record_of_a_run(con: duckdb.DuckDBPyConnection) -> None:
    run = ops.start_run(con, command="nightly", now=NOW)
    other = ops.start_run(con, command="nightly", now=NOW)
    assert run != other
    ops.record_source(con, run, command="nightly", source="sales", now=NOW, error="no\n  answer", calls=7, daily_used=100, daily_limit=1000)
    ops.record_source(con, run, command="nightly", source="sales", now=NOW, calls=9)
    ops.finish_run(con, run, status="failed", error="it\nbroke", detail={"deals": 3})
    told = con.execute(
        "select source, status, error, detail ->> '$.deals' from ops.sync_run where run_id = $1 order by source nulls first", [run]
    )
    assert told.fetchall() == [(None, "failed", "it broke", "3"), ("sales", "done", None, None)]
    assert con.execute("select calls from ops.api_usage").fetchall() == [(9,)]
    assert con.execute("select status from ops.sync_run where run_id = $1", [other]).fetchone() == ("running",)
