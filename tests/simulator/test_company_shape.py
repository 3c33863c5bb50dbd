"""The simulated company hangs together: same seed, same company; every reference resolves; history adds up to the present."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import duckdb
import pytest

from connectors.simulator.company import build_company

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
TABLES = (
    "profile", "currency", "dated_rate", "team", "person", "pipeline", "stage", "account", "contact", "deal", "deal_change",
    "deal_contact", "activity", "planted", "rep_style",
)  # fmt: skip

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def company(kind, deals, seed=7, now=NOW):
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    build_company(con, seed=seed, deals=deals, now=now, kind=kind)
    return con


@pytest.fixture(scope="module", params=["salesforce", "hubspot"])
def demo(request):
    return company(request.param, 1200 if request.param == "salesforce" else 800)


def one(con, sql):
    return con.execute(sql).fetchone()[0]


def none(con, sql):
    """The query finds no row."""
    assert con.execute(f"{sql} limit 5").fetchall() == []


def fingerprint(con):
    return {table: one(con, f"select sum(hash(t))::varchar from company.{table} t") for table in TABLES}


def test_same_seed_same_company_and_another_seed_another():
    first, again, other = company("hubspot", 300), company("hubspot", 300), company("hubspot", 300, seed=8)
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first)["deal"] != fingerprint(other)["deal"]


def test_chunks_do_not_show(monkeypatch):
    """Deals beyond the first slice are numbered, chained and attached like those within it."""
    monkeypatch.setattr("connectors.simulator.company.CHUNK", 70)
    con = company("salesforce", 300)
    assert one(con, "select count(distinct deal_id) from company.deal_change where field = 'stage' and old is null") == 300
    assert one(con, "select count(*) = count(distinct activity_id) and max(activity_id) = count(*) from company.activity")
    assert one(con, "select count(distinct deal_id) from company.deal_contact") > 280


def test_sizes(demo):
    deals = one(demo, "select count(*) from company.deal")
    assert deals in (800, 1200)
    assert one(demo, "select count(*) from company.deal where deal_id between 1 and 1200") == deals
    assert 15 < one(demo, "select count(*) from company.deal_change") / deals < 30
    assert 5 < one(demo, "select count(*) from company.activity") / deals < 15


def test_keys_and_references(demo):
    for table, key in [
        ("deal", "deal_id"), ("account", "account_id"), ("contact", "contact_id"), ("person", "person_id"), ("stage", "stage_no"),
        ("activity", "activity_id"), ("person", "email"), ("account", "name"), ("contact", "email"),
    ]:  # fmt: skip
        assert one(demo, f"select count(*) = count(distinct {key}) from company.{table}"), (table, key)
    for table, column, to, key in [
        ("deal", "account_id", "account", "account_id"), ("deal", "created_by", "person", "person_id"),
        ("deal", "deleted_by", "person", "person_id"), ("deal", "merged_into", "deal", "deal_id"),
        ("account", "owner_id", "person", "person_id"), ("account", "created_by", "person", "person_id"),
        ("contact", "account_id", "account", "account_id"), ("person", "manager_id", "person", "person_id"),
        ("deal_change", "deal_id", "deal", "deal_id"), ("deal_change", "person_id", "person", "person_id"),
        ("deal_contact", "deal_id", "deal", "deal_id"), ("deal_contact", "contact_id", "contact", "contact_id"),
        ("activity", "deal_id", "deal", "deal_id"), ("activity", "contact_id", "contact", "contact_id"),
        ("activity", "owner_id", "person", "person_id"), ("planted", "deal_id", "deal", "deal_id"),
        ("deal", "currency", "currency", "iso_code"), ("deal", "pipeline", "pipeline", "pipeline"),
    ]:  # fmt: skip
        none(demo, f"select {column} from company.{table} where {column} is not null and {column} not in (select {key} from company.{to})")
    none(demo, "select * from company.deal_change where field = 'owner' and new::integer not in (select person_id from company.person)")
    none(demo, """select * from company.deal_change c join company.deal d using (deal_id) where field = 'stage'
                  and not exists (from company.stage s where s.pipeline = d.pipeline and s.stage = c.new)""")
    # contacts of a deal are the account's
    none(demo, """select * from company.deal_contact dc join company.deal d using (deal_id) join company.contact c using (contact_id)
                  where d.account_id is not null and c.account_id <> d.account_id""")
    none(demo, "select deal_id, contact_id from company.deal_contact group by all having count(*) > 1")
    none(demo, "select deal_id from company.deal_contact group by all having count(*) filter (is_primary) <> 1")


def test_history_is_a_chain_from_creation_to_now(demo):
    none(demo, """select * from (select *, lag(new) over w as before, row_number() over w as nth from company.deal_change
                                 window w as (partition by deal_id, field order by seq))
                  where (nth = 1 and old is not null) or (nth > 1 and (old is distinct from before or new is not distinct from old))""")
    none(demo, """select * from (select *, lag("at") over (partition by deal_id order by seq) as before from company.deal_change)
                  where before > "at" """)
    none(demo, "select deal_id from company.deal_change group by 1 having max(seq) <> count(*) or count(distinct seq) <> count(*)")
    none(demo, """select deal_id from company.deal_change c join company.deal using (deal_id) where old is null and c."at" = created_at
                  group by 1 having count(*) < 7 or count(distinct field) <> 7""")
    none(demo, """select deal_id from company.deal_change c join company.deal d using (deal_id)
                  group by deal_id, deleted_at, created_at, last_modified_at
                  having min(c."at") <> created_at or max(c."at") > coalesce(deleted_at, max(c."at"))
                      or last_modified_at <> greatest(max(c."at"), coalesce(deleted_at, max(c."at")))""")
    assert one(demo, "select count(distinct deal_id) from company.deal_change where field = 'close_date' and old is not null") > 200
    # probability and forecast category come with the stage
    none(demo, """select c.deal_id, c.seq from company.deal_change c join company.deal d using (deal_id)
                  join company.stage s on s.pipeline = d.pipeline and s.stage = c.new
                  where c.field = 'stage' and s.probability::varchar <> (
                      select last(p.new order by p.seq) from company.deal_change p
                      where p.deal_id = c.deal_id and p.field = 'probability' and p.seq <= c.seq + 1)""")


def test_people_work_in_business_hours_and_nothing_is_ahead_of_now(demo):
    for table, column in [("deal_change", '"at"'), ("deal", "created_at"), ("deal", "deleted_at"), ("deal_contact", "created_at"),
                          ("activity", "created_at"), ("activity", "completed_at"), ("account", "created_at")]:  # fmt: skip
        none(demo, f"""with local as (select {column} at time zone 'Europe/Berlin' as at_ from company.{table} where {column} is not null)
                       select * from local where isodow(at_) > 5 or at_::time not between time '07:00' and time '19:00'""")
        none(demo, f"select * from company.{table} where {column} >= timestamptz '2026-11-23 00:00:00+01'")
    none(demo, "select * from company.activity where status = 'open' and completed_at is not null or start_at > end_at")
    none(demo, "select * from company.activity a join company.deal d using (deal_id) where a.created_at < d.created_at - interval 1 hour")
    none(demo, "select * from company.activity join company.deal using (deal_id) where completed_at > deleted_at")
    none(demo, "select * from company.deal_contact dc join company.deal d using (deal_id) where dc.created_at < d.created_at")
    none(demo, "select * from company.deal d join company.account a using (account_id) where d.created_at < a.created_at")


def test_former_sellers_do_nothing_after_they_left(demo):
    assert one(demo, "select count(*) from company.person where not is_active and kind = 'seller'") >= 2
    none(demo, """select * from company.deal_change join company.person using (person_id) where "at" > left_at""")
    none(demo, "select * from company.activity join company.person on person_id = owner_id where completed_at > left_at")


def test_outcomes_are_believable(demo):
    demo.execute("""create or replace temp view outcome as
        select d.deal_id, d.pipeline, d.is_deleted, s.is_closed, s.is_won, s.canonical from company.deal d
        join (select deal_id, last(new order by seq) as stage from company.deal_change where field = 'stage' group by 1) v using (deal_id)
        join company.stage s on s.pipeline = d.pipeline and s.stage = v.stage""")
    assert 0.24 < one(demo, "select avg(is_won::int) from outcome where is_closed") < 0.33
    assert 0.15 < one(demo, "select avg((not is_closed)::int) from outcome") < 0.3
    clean = one(demo, """select avg((deal_id not in (select deal_id from company.planted))::int) from outcome
                         where not is_closed and not is_deleted""")
    assert 0.5 < clean < 0.7
    # percentiles need thirty won deals in each stage
    through = demo.execute("""select s.canonical, count(distinct deal_id) from outcome o
        join company.deal_change c using (deal_id) join company.stage s on s.pipeline = o.pipeline and s.stage = c.new
        where c.field = 'stage' and o.is_won and s.canonical in ('qualified', 'discovery', 'proposal', 'negotiation')
        group by 1""").fetchall()
    assert len(through) == 4 and min(n for _, n in through) >= 30
    # some go back, some are reopened, some skip
    assert one(demo, """select count(distinct deal_id) from (
        select c.deal_id, s.is_closed, lag(s.is_closed) over (partition by c.deal_id order by seq) as was from company.deal_change c
        join company.deal d using (deal_id) join company.stage s on s.pipeline = d.pipeline and s.stage = c.new where field = 'stage')
        where was and not is_closed""") >= 2
    assert one(demo, "select count(*) from company.deal where is_deleted") >= 4
    assert one(demo, "select count(distinct currency) from company.deal") >= 3


@pytest.mark.parametrize("kind, days", [("salesforce", 16), ("hubspot", 84)])
def test_what_was_deleted_is_still_in_the_recycle_bin(kind, days):
    con = company(kind, 600)
    assert one(con, "select count(*) from company.deal where is_deleted and merged_into is null") >= 4
    none(con, f"""select * from company.deal where is_deleted and merged_into is null
                  and deleted_at < timestamptz '{NOW}' - interval {days} days""")


def test_merges_only_in_hubspot():
    hubspot, salesforce = company("hubspot", 800), company("salesforce", 300)
    assert one(salesforce, "select count(*) from company.deal where merged_into is not null") == 0
    assert one(hubspot, "select count(*) from company.deal where merged_into is not null") >= 3
    none(hubspot, """select * from company.deal a join company.deal b on b.deal_id = a.merged_into
                     where not a.is_deleted or a.account_id <> b.account_id or a.deleted_at < b.created_at or b.is_deleted""")


def test_rates_cover_all_time_without_gaps(demo):
    none(demo, """with rate as (
                      select *, lead(start_date, 1, date '9999-12-31') over (partition by iso_code order by start_date) as following,
                             min(start_date) over (partition by iso_code) as first from company.dated_rate)
                  select * from rate where next_start_date <> following or rate <= 0 or first > date '2024-11-22'""")
    none(demo, """select * from company.currency c join company.dated_rate d using (iso_code)
                  where next_start_date > date '9999-01-01' and c.rate <> d.rate""")


def test_next_steps_name_people_and_days(demo):
    written = demo.execute("select new from company.deal_change where field = 'next_step' and new is not null").fetchall()
    steps = [step for (step,) in written]
    assert len(set(steps)) > 200 and not any("{" in step for step in steps)
    dated = sum(any(month in step for month in MONTHS) for step in steps)
    assert dated > len(steps) / 2
    assert max(map(len, steps)) <= 255


def test_refuses_what_it_cannot_build():
    with pytest.raises(ValueError, match="time zone"):
        company("hubspot", 10, now=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="at least one"):
        company("hubspot", 0)


@pytest.mark.slow
def test_a_hundred_thousand_deals_in_seconds():
    started = time.monotonic()
    con = company("salesforce", 100_000)
    assert time.monotonic() - started < 45
    assert one(con, "select count(*) from company.deal_change") > 1_500_000
