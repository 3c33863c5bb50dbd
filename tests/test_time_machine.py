"""Six weeks of a company whose every past day is known, in both CRMs: what the warehouse says that its pipeline was, and what became of it.

People create, edit, close, reopen, delete, restore, merge and hand over deals all the while. One warehouse came in the third week and synced on
some of the nights after; another came on the last night.
"""

import random
import shutil
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import duckdb
import pytest
from office import ATTRIBUTES, START, Company

from connectors.simulator.http import serve
from flows import snapshot, sync
from flows.run import open_run
from flows.settings import load_settings

CONFIG = """
[warehouse]
path = "plumbline.duckdb"
landing = "landing"
threads = 1

[sources.sales]
crm = "salesforce"
instance_url = "{0}"
client_id = "plumbline-demo"
client_secret = "demo-secret"

[sources.inbound]
crm = "hubspot"
base_url = "{1}"
access_token = "demo-token"
"""
# Just before midnight in Berlin: what is stored as the day's pipeline is then how the day ended. Clocks moved on the 29th of March.
NIGHTS = [datetime(2026, 3, day, 22, 59, 58, tzinfo=UTC) for day in (21, 22, 24, 25)] + [
    datetime(2026, month, day, 21, 59, 58, tzinfo=UTC) for month, day in ((3, 31), (4, 7), (4, 15))
]
LAST_DAY = date(2026, 4, 15)
FIRST_DAY = date(2026, 3, 1)  # nothing had been there when it ended


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    company = Company(seed=11)
    servers = [serve(office.app()) for office in company.offices]
    files = {}
    for name in ("early", "late"):
        files[name] = tmp_path_factory.mktemp(name) / "plumbline.toml"
        files[name].write_text(CONFIG.format(*(server.url for server in servers)), encoding="utf-8")
    for night in NIGHTS:
        company.run(until=night)
        synchronise(files["early"], night)
    synchronise(files["late"], NIGHTS[-1])
    for server in servers:
        server.stop()
    yield SimpleNamespace(company=company, files=files, paths={name: file.parent / "plumbline.duckdb" for name, file in files.items()})
    company.close()


def synchronise(file, now):
    with open_run("sync", load_settings(file), now) as run:
        assert sync.sync(run).errors == {}
        snapshot.snapshot(run)


def opened(story, name):
    """The warehouse, and in temporary tables what is true."""
    con = duckdb.connect(str(story.paths[name]), read_only=True, config={"threads": 1})
    con.execute("set timezone = 'UTC'")
    story.company.tell(con, NIGHTS if name == "early" else NIGHTS[-1:])
    return con


# ---- as of any instant --------------------------------------------------------------------------------------------------------------

PAIRS = ", ".join(f"{{'attribute': '{name}', 'was': t.{name}::varchar, 'told': v.{name}::varchar}}" for name in ATTRIBUTES)
# Each attribute that the warehouse tells otherwise than it was; of a deal that it does not tell at all, that alone.
DIFFERENCES = f"""
    create or replace temp table difference as
    with was as (
        select i."at", t.* from instant i join truth t on t.valid_from <= i."at" and (t.valid_to > i."at" or t.valid_to is null)
    ),
    told as (
        select i."at", v.*
        from instant i join core.opportunity_version v on v.valid_from <= i."at" and (v.valid_to > i."at" or v.valid_to is null)
        where v.opportunity_key not in (select old_key from renamed)
    ),
    pair as (
        select "at", opportunity_key, t.opportunity_key is not null and v.opportunity_key is not null as is_both,
               unnest([{{'attribute': 'deal', 'was': (t.opportunity_key is not null)::varchar, 'told': (v.opportunity_key is not null)::varchar}},
                       {PAIRS}], recursive := true)
        from was t full join told v using ("at", opportunity_key)
    )
    select * exclude is_both, split_part(opportunity_key, ':', 1) as source
    from pair
    where was is distinct from told and (is_both or attribute = 'deal')
"""
# Why: nothing but what the CRMs do not tell explains a difference.
#   next step    Salesforce was told not to track it: between two syncs, what either of them saw (before the first, what that one saw)
#   bin          nothing tells that a deal was in the recycle bin for a while: it counts as there until a sync sees it there, and as gone until
#                one sees it back
#   gone         merged, or deleted for good: what happened to it since the last sync that saw it was never told, nor when it went
#   never seen   gone before any sync came
EXPLAINED = """
    create or replace temp table explained as
    with located as (
        select d.*, g."at" as gone_at, (select min(t.valid_from) from truth t where t.opportunity_key = d.opportunity_key) as born_at,
               (select max(s."at") from synced s where s."at" < g."at") as seen_last,
               (select min(s."at") from synced s where s."at" >= g."at") as missed,
               -- Under its new id a deal is seen from the merge on.
               (select max(s."at") from synced s where s."at" <= d."at" and s."at" >= coalesce(r."at", s."at")) as before,
               (select min(s."at") from synced s where s."at" > d."at" and s."at" >= coalesce(r."at", s."at")) as after
        from difference d
        left join gone g using (opportunity_key)
        left join (select opportunity_key, max("at") as "at" from renamed group by all) r using (opportunity_key)
    ),
    value as (
        unpivot (select opportunity_key, valid_from, valid_to, columns(* exclude (opportunity_key, valid_from, valid_to))::varchar from truth)
        on columns(* exclude (opportunity_key, valid_from, valid_to)) into name attribute value v
    ),
    seen as (
        select l.*, b.v as seen_before, a.v as seen_after, s.v as seen_at_last
        from located l
        left join value b on b.opportunity_key = l.opportunity_key and b.attribute = l.attribute and l.before >= b.valid_from
                         and (l.before < b.valid_to or b.valid_to is null)
        left join value a on a.opportunity_key = l.opportunity_key and a.attribute = l.attribute and l.after >= a.valid_from
                         and (l.after < a.valid_to or a.valid_to is null)
        left join value s on s.opportunity_key = l.opportunity_key and s.attribute = l.attribute and l.seen_last >= s.valid_from
                         and (l.seen_last < s.valid_to or s.valid_to is null)
    ),
    back as (  -- when deals came back
        select t.opportunity_key, u.valid_from as "at"
        from truth t join truth u on u.opportunity_key = t.opportunity_key and u.valid_from = t.valid_to
        where t.is_deleted and not u.is_deleted
    )
    select *,
           case when attribute = 'deal'
                     then if(told = 'false' and not exists (from synced y where y."at" >= s.born_at and y."at" < s.gone_at), 'never seen', NULL)
                when "at" >= seen_last and told is not distinct from seen_at_last and (attribute <> 'is_deleted' or "at" < missed) then 'gone'
                when source = 'sales' and attribute = 'next_step'
                     and (told is not distinct from seen_after or before is not null and told is not distinct from seen_before) then 'next step'
                when attribute = 'is_deleted'
                     and exists (from back b
                                 where b.opportunity_key = s.opportunity_key
                                   and if(was = 'true', b."at" > s."at" and b."at" <= after,
                                          seen_before = 'true' and b."at" > before and b."at" <= s."at"))
                     then 'bin' end as why
    from seen s
"""


def instants(story, number):
    """Random ones, half of them before the first night; every other one is an instant at which a deal became another one."""
    chance, found = random.Random(4), []
    for since, until in ((START, NIGHTS[0]), (NIGHTS[0], NIGHTS[-1])):
        deeds = [at for office in story.company.offices for _, at, _ in office.past if since <= at < until]
        found += [chance.choice(deeds) if n % 2 else since + (until - since) * chance.random() for n in range(number // 2)]
    return found


def compare(con, points):
    con.execute('create or replace temp table instant as select unnest($1::timestamptz[]) as "at"', [points])
    con.execute(DIFFERENCES)
    con.execute(EXPLAINED)


@pytest.mark.parametrize(
    ("since", "expected"),
    [("early", {"next step", "bin", "gone", "never seen"}), ("late", {"next step", "bin", "never seen"})], ids=["third week", "last night"],
)  # fmt: skip
def test_the_pipeline_of_any_instant_is_as_it_was(story, since, expected):
    """200 instants, deal by deal: stage, closed flags, amount, currency, close date, owner, probability, category, pipeline, deleted or not."""
    with opened(story, since) as con:
        compare(con, instants(story, 200))
        compared = con.execute(
            'select count(*) from instant i join truth t on t.valid_from <= i."at" and (t.valid_to > i."at" or t.valid_to is null)'
        ).fetchone()[0]
        assert con.execute("from explained where why is null order by all limit 5").fetchall() == []
        assert {row[0] for row in con.execute("select distinct why from explained").fetchall()} == expected
        # An id that a merge ended is told under the survivor's, and counts on no day.
        renamed = "from core.opportunity_version where opportunity_key in (select old_key from renamed)"
        assert con.execute(f"select count(*) {renamed} and not is_deleted").fetchone() == (0,)
        assert compared > 20_000 and con.execute(f"select count(*) > 0 {renamed}").fetchone() == ((since == "early"),)


def test_what_syncs_saw_is_kept_though_the_crm_keeps_no_history_of_it(story):
    """At the instant of each night nothing is otherwise, next steps and the recycle bin included, but of deals that were gone before the next."""
    with opened(story, "early") as con:
        compare(con, NIGHTS)
        assert con.execute("from explained where opportunity_key not in (select opportunity_key from gone)").fetchall() == []


@pytest.mark.parametrize("since", ["early", "late"])
def test_versions_follow_each_other_and_end_with_the_deal(story, since):
    with opened(story, since) as con:
        broken = """
            from core.opportunity_version v join core.opportunity o using (opportunity_key)
            window deal as (partition by v.opportunity_key order by v.valid_from)
            qualify v.valid_to is distinct from lead(v.valid_from) over deal or v.valid_to <= v.valid_from
                    or (lag(v.valid_from) over deal is null and v.valid_from <> o.created_at)
        """
        assert con.execute(broken).fetchall() == []
        columns = "opportunity_key, stage, amount_home, " + ", ".join(ATTRIBUTES)
        present = con.execute(f"select {columns} from core.opportunity_version where valid_to is null order by 1").fetchall()
        assert present == con.execute(f"select {columns} from core.opportunity order by 1").fetchall()


def test_a_change_is_dated_when_it_was_made_not_when_it_was_seen(story):
    """Both warehouses tell the same of what the CRMs' histories tell, to the instant, whenever they were there."""
    told = """select opportunity_key, valid_from, crm_stage, amount, currency, close_date, owner_id, probability, forecast_category, pipeline
              from core.opportunity_version where origin = 'crm_history' """
    events = 'select opportunity_key, "at", kind, from_crm_stage, to_crm_stage, changed_by, changed_through from core.stage_event'
    with opened(story, "early") as ours, opened(story, "late") as theirs:
        known = [row[0] for row in theirs.execute("select opportunity_key from core.opportunity").fetchall()]
        alike = set(ours.execute(told).fetchall())
        assert set(theirs.execute(told).fetchall()) <= alike and len(alike) > 1000
        moves = [con.execute(f"{events} where opportunity_key in (select unnest($1)) order by all", [known]).fetchall() for con in (ours, theirs)]
        assert moves[0] == moves[1] and len(moves[0]) > 300


# ---- what became of it --------------------------------------------------------------------------------------------------------------

# The deals as each day ended: as the CRMs had them, but for what they do not tell (see EXPLAINED), which is as the warehouse knows it.
KNOWN = """
    create or replace temp table known as
    with day as (select unnest(generate_series($1::date, $2::date, interval 1 day))::date as day),
    version as (
        select d.day, v.*
        from day d
        join core.opportunity_version v on v.valid_from < bi.end_of_day(d.day) and (v.valid_to >= bi.end_of_day(d.day) or v.valid_to is null)
    ),
    truth_then as (
        select d.day, t.*
        from day d join truth t on t.valid_from < bi.end_of_day(d.day) and (t.valid_to >= bi.end_of_day(d.day) or t.valid_to is null)
        where t.opportunity_key not in (select opportunity_key from gone)
    )
    select v.day, v.opportunity_key, split_part(v.opportunity_key, ':', 1) as source, v.is_deleted, v.amount_home,
           if(t.day is null, v.pipeline, t.pipeline) as pipeline, if(t.day is null, v.owner_id, t.owner_id) as owner_id,
           if(t.day is null, v.currency, t.currency) as currency, if(t.day is null, v.amount, t.amount) as amount,
           if(t.day is null, v.close_date, t.close_date) as close_date, if(t.day is null, v.is_closed, t.is_closed) as is_closed,
           if(t.day is null, v.is_won, t.is_won) as is_won
    from version v left join truth_then t using (day, opportunity_key)
"""
FLOW = """
    insert into flow
    select $n, source, pipeline, owner_id, currency, bucket, deals, amount, amount_home from bi.pipeline_movement($t0, $t1, $w0, $w1)
    where $owner is null or owner_id = $owner
"""
# Bookings: won by the end and not closed at the beginning, to be closed within the window by the one day or, in the same hands, by the other.
BOOKED = """
    with booked as (
        select s.n, e.source, e.pipeline, e.owner_id, e.currency, count(*) as deals, sum(coalesce(e.amount, 0)) as amount,
               sum(coalesce(e.amount_home, 0)) as amount_home
        from span s
        join known e on e.day = s.t1
        left join known b on b.day = s.t0 and b.opportunity_key = e.opportunity_key
        where e.is_won and not e.is_deleted and not coalesce(b.is_closed, false) and (s.owner is null or e.owner_id = s.owner)
          and (e.close_date between s.w0 and s.w1
               or not b.is_deleted and b.close_date between s.w0 and s.w1
                  and (b.pipeline, b.owner_id, b.currency) is not distinct from (e.pipeline, e.owner_id, e.currency))
        group by all
    ),
    won as (
        select n, source, pipeline, owner_id, currency, -deals as deals, -amount as amount, -amount_home as amount_home from flow where bucket = 'won'
    )
    (from won except all from booked) union all (from booked except all from won)
"""
# A deal is restated only where its currency is another one, or it has, or had, no close date.
RESTATED = """
    with restated as (
        select n, source, pipeline, owner_id, sum(abs(deals)) as deals from flow where bucket in ('restated_in', 'restated_out') group by all
    ),
    explained as (
        select s.n, e.source, e.pipeline, e.owner_id, sum(if(b.currency <> e.currency, 2, 1)) as deals
        from span s
        join known e on e.day = s.t1
        join known b on b.day = s.t0 and b.opportunity_key = e.opportunity_key
        where (b.pipeline, b.owner_id) is not distinct from (e.pipeline, e.owner_id)
          and (b.currency <> e.currency or b.close_date is null or e.close_date is null)
        group by all
    )
    select r.*, e.deals
    from restated r
    left join explained e on e.n = r.n and e.source = r.source and e.pipeline = r.pipeline and e.owner_id is not distinct from r.owner_id
    where r.deals > coalesce(e.deals, 0)
"""


def waterfalls(con, number, seed):
    """Random ones, each of all or of one owner's: they must add up, and what was won must be what was booked. Returns what was in them."""
    chance = random.Random(seed)
    con.execute(KNOWN, [FIRST_DAY, LAST_DAY])
    owners = [None, *(row[0] for row in con.execute("select distinct owner_id from known where owner_id is not null order by 1").fetchall())]
    con.execute("create temp table span (n integer, t0 date, t1 date, w0 date, w1 date, owner varchar)")
    con.execute("""
        create temp table flow (n integer, source varchar, pipeline varchar, owner_id varchar, currency varchar, bucket varchar, deals bigint,
                                amount decimal(38, 2), amount_home decimal(38, 2))
    """)
    for n in range(number):
        t0, t1 = sorted(FIRST_DAY + timedelta(days=chance.randrange((LAST_DAY - FIRST_DAY).days + 1)) for _ in "ab")
        w0, w1 = sorted(FIRST_DAY + timedelta(days=chance.randrange(300)) for _ in "ab")
        span = {"n": n, "t0": t0, "t1": t1, "w0": w0, "w1": w1, "owner": chance.choice(owners)}
        con.execute("insert into span values ($n, $t0, $t1, $w0, $w1, $owner)", span)
        con.execute(FLOW, span)
    residue = """
        select n, source, pipeline, owner_id, currency, sum(if(bucket = 'closing', -deals, deals)) as deals,
               sum(if(bucket = 'closing', -amount, amount)) as amount, sum(if(bucket = 'closing', -amount_home, amount_home)) as amount_home
        from flow group by all having deals <> 0 or amount <> 0 or amount_home <> 0
    """
    assert con.execute(residue).fetchall() == []
    assert con.execute(BOOKED + " limit 5").fetchall() == []
    assert con.execute(RESTATED + " limit 5").fetchall() == []
    return {row[0] for row in con.execute("select distinct bucket from flow").fetchall()}


BUCKETS = {
    "opening", "new", "restored", "reopened", "transferred_in", "pulled_in", "pushed_in", "restated_in", "increased", "decreased", "fx", "deleted",
    "won", "lost", "transferred_out", "pushed_out", "pulled_out", "restated_out", "closing",
}  # fmt: skip


def test_a_thousand_waterfalls_add_up_and_what_was_won_was_booked(story):
    """fx is for rates that move. Who comes late never knows that a deal was in the recycle bin."""
    for since, number, lacking in (("early", 800, {"fx"}), ("late", 200, {"fx", "restored"})):
        with opened(story, since) as con:
            assert waterfalls(con, number, seed=2) == BUCKETS - lacking


def test_all_that_was_ever_won_is_what_the_crms_say_is_won(story):
    """From before the first deal to today, over a window in which all dates fall: the sum that people read in the CRM itself."""
    org, portal = (office for office in story.company.offices)
    sums = org.org.rows("""
        select "CurrencyIsoCode", count(*), sum(coalesce("Amount", 0))::decimal(18, 2) from "Opportunity" where "IsWon" and not "IsDeleted" group by 1
    """) + portal.portal.rows("""
        select coalesce(deal_currency_code, 'EUR'), count(*), sum(coalesce(nullif(amount, '')::decimal(18, 2), 0)) from object_deals
        where hs_is_closed_won = 'true' and _archived_at is null and _merged_into is null and nullif(closedate, '') is not null group by 1
    """)
    for since in ("early", "late"):
        with opened(story, since) as con:
            won = con.execute(
                """select source, currency, -sum(deals), -sum(amount), -sum(amount_home)
                   from bi.pipeline_movement($1, $2, '1900-01-01', '2999-12-31') where bucket = 'won' group by all order by all""",
                [FIRST_DAY, LAST_DAY],
            ).fetchall()
            assert sorted(row[1:4] for row in won) == sorted(sums)
            home = con.execute("""
                select source, currency, coalesce(sum(amount_home), 0) from core.opportunity
                where is_won and not is_deleted and close_date is not null
                group by all order by all
            """).fetchall()
            assert [(source, currency, amount) for source, currency, _, _, amount in won] == home


# ---- the pipeline of each day, kept -------------------------------------------------------------------------------------------------

TAKEN = """
    select snapshot_date, source, pipeline, stage, owner_id, owner_name, currency, deals, amount, amount_home, weighted_home, deals_without_amount,
           deals_without_rate
    from bi.pipeline_snapshot order by all
"""


@pytest.fixture
def rebuilt(story, tmp_path):
    """The early warehouse, on the evening of the last day, after `plumbline snapshot --since` the day before the first deal."""
    for file in (story.files["early"], story.paths["early"]):
        shutil.copy(file, tmp_path / file.name)
    with open_run("snapshot", load_settings(tmp_path / "plumbline.toml"), NIGHTS[-1]) as run:
        assert snapshot.rebuild(run, FIRST_DAY)["rebuilt"] == (LAST_DAY - FIRST_DAY).days
    with duckdb.connect(str(tmp_path / "plumbline.duckdb"), config={"threads": 1}) as con:
        yield con


def test_a_day_that_is_rebuilt_later_is_as_it_was_taken(story, rebuilt):
    """Nights that were there, and nights that were missed and rebuilt by the next one, to the cent; before the first, what no night took."""
    with opened(story, "early") as con:
        kept, marked = con.execute(TAKEN).fetchall(), "select snapshot_date, bool_or(is_rebuilt) from bi.pipeline_snapshot group by 1 order by 1"
        nights = {night.date() for night in NIGHTS}
        days = [NIGHTS[0].date() + timedelta(days=n) for n in range((LAST_DAY - NIGHTS[0].date()).days + 1)]
        assert con.execute(marked).fetchall() == [(day, day not in nights) for day in days]
    since = rebuilt.execute(TAKEN).fetchall()
    assert [row for row in since if row[0] >= days[0]] == kept
    assert len(kept) > 900 and {row[0] for row in since} == {FIRST_DAY + timedelta(days=n + 1) for n in range((LAST_DAY - FIRST_DAY).days)}


def test_each_rebuilt_day_is_the_pipeline_that_the_crms_had(story, rebuilt):
    """Open deals and their amounts per source, pipeline, owner and currency, but for deals that are gone."""
    story.company.tell(rebuilt, NIGHTS)
    rebuilt.execute(KNOWN, [FIRST_DAY, LAST_DAY])
    wrong = """
        with ours as (
            select snapshot_date as day, source, pipeline, owner_id, currency, sum(deals)::bigint as deals, sum(amount) as amount
            from bi.pipeline_snapshot group by all
        ),
        theirs as (
            select day, source, pipeline, owner_id, currency, count(*) as deals, sum(amount) as amount
            from known where not is_closed and not is_deleted group by all
        )
        (from ours except all from theirs) union all (from theirs except all from ours)
    """
    assert rebuilt.execute(wrong).fetchall() == []
