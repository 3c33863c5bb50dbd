"""The snapshot of a day and the file that BI tools read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from warehouse_land import NOON, RULES, deals_of, finding, one, opp_id, opportunity, rows, sales, score, stamp

from warehouse.errors import WarehouseError
from warehouse.load import load
from warehouse.publish import publish
from warehouse.snapshot import snapshot

DAY = timedelta(days=1)
@pytest.fixture
def judged(con: Any, tmp_path: Path) -> Any:
    """Two open deals of one owner, one of another, one closed, one deleted; the first has something wrong with it."""
    deals = [
        opportunity(1, Amount=1000.10), opportunity(2, Amount=None), opportunity(3, Amount=30.0, CurrencyIsoCode="CHF"),
        opportunity(4, StageName="Closed Won", IsClosed=True, IsWon=True, LastStageChangeDate=stamp(NOON - DAY)),
        opportunity(5, IsDeleted=True), opportunity(6, Amount=500.0, Probability=50.0, OwnerId=None),
    ]  # fmt: skip
    load(con, sales(tmp_path, 1, deals, full=True), now=NOON)
    con.execute(RULES)
    finding(con, 1, "close_date_past", "critical")
    finding(con, 1, "no_contact", "high", state="resolved")
    finding(con, 2, "deal_over_aged", "medium")
    for number in (1, 2, 3, 6):
        score(con, number, 70 if number == 1 else 100)
    return con


def test_the_snapshot_of_a_day(judged: Any) -> None:
    assert snapshot(judged, now=NOON, business_date=date(2026, 11, 20)) == {"snapshot_date": date(2026, 11, 20), "rows": 3, "deals": 4}
    taken = rows(judged, "from bi.pipeline_snapshot order by owner_id nulls first, currency desc")
    names = ("owner_name", "currency", "deals", "amount", "amount_home", "weighted_home", "flagged_deals")
    told = [tuple(row[name] for name in names) for row in taken]
    assert told == [
        (None, "EUR", 1, 500, 500, 250, 0),
        ("Ada Seller", "EUR", 2, Decimal("1000.10"), Decimal("1000.10"), Decimal("100.01"), 1),  # a rule that observes flags nothing
        ("Ada Seller", "CHF", 1, 30, None, None, 0),  # no rate: counted, and not zero
    ]
    assert sum(r["flagged_amount_home"] for r in taken) == Decimal("1000.10")


def test_a_second_snapshot_of_a_day_replaces_the_first(judged: Any) -> None:
    snapshot(judged, now=NOON, business_date=date(2026, 11, 19))
    snapshot(judged, now=NOON, business_date=date(2026, 11, 20))
    judged.execute("update core.opportunity set amount = 1 where opportunity_id = $1", [opp_id(1)])
    snapshot(judged, now=NOON + DAY, business_date=date(2026, 11, 20))
    per_day = "select snapshot_date, count(*) as n, sum(deals)::int as deals from bi.pipeline_snapshot group by 1 order by 1"
    assert rows(judged, per_day) == [
        {"snapshot_date": date(2026, 11, 19), "n": 3, "deals": 4}, {"snapshot_date": date(2026, 11, 20), "n": 3, "deals": 4},
    ]  # fmt: skip
    assert one(judged, "select amount from bi.pipeline_snapshot where snapshot_date = '2026-11-20' and flagged_deals > 0")["amount"] == 1


def test_the_views_say_it_in_plain_names(judged: Any) -> None:
    shown = {r["opportunity_id"]: r for r in rows(judged, "from bi.opportunity")}
    assert opp_id(5) not in shown
    first, won = shown[opp_id(1)], shown[opp_id(4)]
    assert (first["status"], first["hygiene_status"], first["score"]) == ("open", "clean", 70)
    assert (first["open_findings"], first["worst_severity"]) == (1, "critical")
    assert (first["created_date"], first["age_days"], first["days_in_stage"]) == (date(2026, 10, 21), 30, 30)
    assert (won["status"], won["closed_date"], won["days_in_stage"], won["age_days"]) == ("won", date(2026, 11, 19), None, 29)
    assert shown[opp_id(2)]["open_findings"] == 0
    findings = rows(judged, "select opportunity_name, rule_title, owner_name, state, fix from bi.finding where severity = 'critical'")
    assert findings == [
        {
            "opportunity_name": "Deal 1", "rule_title": "The close date is past", "owner_name": "Ada Seller", "state": "open",
            "fix": "Set a new date",
        },
    ]  # fmt: skip


def test_the_published_file_has_all_but_raw_with_every_comment(judged: Any, tmp_path: Path) -> None:
    snapshot(judged, now=NOON, business_date=date(2026, 11, 20))
    target = publish(judged, tmp_path / "out" / "published.duckdb", now=NOON)
    with duckdb.connect(str(target), read_only=True) as reader:
        schemas = {row[0] for row in reader.execute("select distinct schema_name from duckdb_tables()").fetchall()}
        assert schemas == {"core", "quality", "bi", "ops"}
        assert reader.execute("select count(*) from duckdb_columns() where not internal and comment is null").fetchone() == (0,)
        assert reader.execute("select count(*) from duckdb_views() where not internal and comment is null").fetchone() == (0,)
        assert reader.execute("select count(*) from duckdb_tables() where not internal and comment is null").fetchone() == (0,)
        macros = reader.execute("select schema_name || '.' || function_name, comment from duckdb_functions() where not internal").fetchall()
        assert len(macros) > 12 and all(comment for _, comment in macros), [name for name, comment in macros if not comment]
        told = "select function_name, unnest(parameters) as p, comment from duckdb_functions() where not internal"
        assert reader.execute(f"select function_name, p from ({told}) where not contains(comment, p || ' (argument): ')").fetchall() == []
        assert reader.execute("select count(*) from core.opportunity").fetchone() == (6,)
        assert reader.execute("select count(*) from bi.opportunity").fetchone() == (5,)
        assert reader.execute("select count(*) from bi.pipeline_snapshot").fetchone() == (3,)
        assert reader.execute("select as_of from ops.publication").fetchone()[0] == NOON  # type: ignore[index]
        storage = reader.execute("select tags['storage_version'] from duckdb_databases() where not internal").fetchone()
        assert storage == ("v1.0.0+",)  # drivers of several years can read it
    assert sorted(p.name for p in target.parent.iterdir()) == ["published.duckdb"]
    # The caller's connection is where it was.
    assert judged.execute("select current_database()").fetchone() == ("plumbline",)
    assert len(deals_of(judged)) == 6


def test_a_reader_of_the_old_file_is_not_disturbed(judged: Any, tmp_path: Path) -> None:
    target = tmp_path / "published.duckdb"
    publish(judged, target, now=NOON)
    with duckdb.connect(str(target), read_only=True) as reader:
        before = reader.execute("select count(*), sum(amount) from core.opportunity").fetchone()
        judged.execute("delete from core.opportunity where opportunity_id = $1", [opp_id(1)])
        publish(judged, target, now=NOON + DAY)
        assert reader.execute("select count(*), sum(amount) from core.opportunity").fetchone() == before
    count = "execute('select count(*) from core.opportunity').fetchone()[0]"
    code = f"import duckdb; print(duckdb.connect({str(target)!r}, read_only=True).{count})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "5\n"


def test_publishing_keeps_the_lock_on_the_private_file(judged: Any, tmp_path: Path) -> None:
    """Whoever opened the private file within this process would drop DuckDB's lock on it, and another writer could come in."""
    publish(judged, tmp_path / "published.duckdb", now=NOON)
    code = f"import duckdb; duckdb.connect({str(tmp_path / 'plumbline.duckdb')!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Could not set lock" in other.stderr


def test_a_publish_that_fails_leaves_the_old_file(judged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = publish(judged, tmp_path / "out" / "published.duckdb", now=NOON)
    before = target.read_bytes()

    def full_disk(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(WarehouseError, match=r"published\.duckdb: cannot be written: No space left on device"):
        publish(judged, target, now=NOON)
    monkeypatch.undo()
    assert target.read_bytes() == before
    assert sorted(p.name for p in target.parent.iterdir()) == ["published.duckdb"]
    publish(judged, target, now=NOON + DAY)  # and what it left behind is in nobody's way


# A BI tool in a process of its own: it opens the file once, answers for as long as it is asked, and opens it anew at the end.
READER = """
import duckdb, sys
asked = "select count(*), sum(amount), (select count(*) from core.opportunity_version) from bi.opportunity"
con = duckdb.connect(sys.argv[1], read_only=True)
for line in sys.stdin:
    if line.strip() == "again":
        con.close()
        con = duckdb.connect(sys.argv[1], read_only=True)
    print(con.execute(asked).fetchone(), flush=True)
"""


def test_a_reader_in_another_process_keeps_one_view_while_files_are_published(judged: Any, tmp_path: Path) -> None:
    target = publish(judged, tmp_path / "published" / "plumbline.duckdb", now=NOON)
    with subprocess.Popen([sys.executable, "-c", READER, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:

        def ask(word: str) -> str:
            assert reader.stdin and reader.stdout
            reader.stdin.write(word + "\n")
            reader.stdin.flush()
            return reader.stdout.readline()

        first = ask("")
        for night in range(3):
            judged.execute("update core.opportunity set amount = amount + 1000000")
            publish(judged, target, now=NOON + (night + 1) * DAY)
            assert ask("") == first
        later = ask("again")
        assert later != first and "Decimal" in later
        assert reader.stdin
        reader.stdin.close()


def test_publishers_to_one_place_wait_for_each_other(judged: Any, tmp_path: Path) -> None:
    """Two warehouses by mistake, or a person beside the night's run: each file is whole, and what a killed publisher left goes."""
    from concurrent.futures import ThreadPoolExecutor

    target = tmp_path / "published" / "plumbline.duckdb"
    target.parent.mkdir()
    (target.parent / "plumbline.duckdb.part").write_bytes(b"half a file")
    connections = [judged.cursor() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda con: publish(con, target, now=NOON), connections))
    assert [path.name for path in target.parent.iterdir()] == ["plumbline.duckdb"]
    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("select count(*) from bi.opportunity").fetchone() == (5,)


def test_the_run_that_publishes_is_not_in_the_file_as_running(judged: Any, tmp_path: Path) -> None:
    from warehouse import ops

    before = ops.start_run(judged, command="sync", now=NOON)
    ops.finish_run(judged, before, status="done")
    killed = ops.start_run(judged, command="nightly", now=NOON)
    ops.mark_interrupted(judged)
    ops.start_run(judged, command="publish", now=NOON)
    with duckdb.connect(str(publish(judged, tmp_path / "p.duckdb", now=NOON)), read_only=True) as con:
        found = con.execute("select run_id, status from ops.sync_run").fetchall()
    assert set(found) == {(before, "done"), (killed, "interrupted")}  # that one has no end either, and BI should know of it


# Publishes and dies when the new file is written and not yet in its place, as by a power cut.
KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from warehouse.connection import open_warehouse
from warehouse.publish import publish
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
with open_warehouse(Path(sys.argv[1])) as warehouse:
    publish(warehouse.con, Path(sys.argv[2]), now=datetime.now(UTC))
"""


def test_a_publisher_that_is_killed_leaves_the_old_file_and_is_in_nobodys_way(con: Any, tmp_path: Path) -> None:
    target = publish(con, tmp_path / "out" / "published.duckdb", now=NOON)
    before = target.read_bytes()
    other = [sys.executable, "-c", KILLED, str(tmp_path / "another.duckdb"), str(target)]
    assert subprocess.run(other, check=False, cwd=Path(__file__).resolve().parents[2]).returncode == -signal.SIGKILL
    assert target.read_bytes() == before
    assert (tmp_path / "out" / "published.duckdb.part").exists()
    publish(con, target, now=NOON + DAY)
    assert [path.name for path in target.parent.iterdir()] == ["published.duckdb"]
    with duckdb.connect(str(target), read_only=True) as reader:
        assert reader.execute("select count(*) from ops.publication").fetchone() == (2,)


def test_a_share_that_locks_no_directories_can_be_published_to(con: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr("fcntl.flock", refused)  # what NFS says to a directory
    assert publish(con, tmp_path / "published.duckdb", now=NOON).exists()


def test_sqlalchemy_reflects_tables_views_and_comments(judged: Any, tmp_path: Path) -> None:
    """With duckdb-engine, which many BI tools bring; it looks for types of PostgreSQL."""
    from sqlalchemy import MetaData, create_engine, func, inspect, select

    target = publish(judged, tmp_path / "published.duckdb", now=NOON)
    engine = create_engine(f"duckdb:///{target}", connect_args={"read_only": True})
    try:
        meta = MetaData()
        for schema in ("core", "quality", "ops", "bi"):
            meta.reflect(engine, schema=schema, views=True)
        names = {f"{row[0]}.{row[1]}" for row in judged.execute("select table_schema, table_name from information_schema.tables").fetchall()}
        assert set(meta.tables) == {name for name in names if not name.startswith("raw.")}
        assert all(table.comment for table in meta.tables.values())
        assert [str(column) for table in meta.tables.values() for column in table.columns if not column.comment] == []
        deal = meta.tables["bi.opportunity"]
        assert (str(deal.c.amount_home.type), str(deal.c.created_date.type)) == ("NUMERIC(18, 2)", "DATE")
        assert inspect(engine).get_view_names("bi")
        with engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(deal)).scalar() == 5
    finally:
        engine.dispose()
