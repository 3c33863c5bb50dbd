"""Traps of DuckDB itself that the settings of our connections must keep us out of."""

from warehouse.connection import open_warehouse


def test_a_large_insert_after_an_empty_one_arrives_whole(tmp_path):
    """DuckDB 1.5.5 lost every row of it, in silence, on two threads with insertion order preserved. A pull fills tables like this."""
    with open_warehouse(tmp_path / "w.duckdb", threads=2) as warehouse:
        con = warehouse.con
        con.execute("create temp table nothing (i bigint, t varchar)")
        con.execute("create temp table much as select i, 'x' || i as t from range(200000) r(i)")
        con.execute("create table kept (i bigint, t varchar)")
        con.execute("begin")
        con.execute("insert into kept select * from nothing")
        con.execute("insert into kept select * from much")
        con.execute("commit")
        assert con.execute("select count(*), sum(i) from kept").fetchone() == (200_000, 199_999 * 100_000)
