"""What is planted in the simulated company is really there at `now`, and nothing else is.

The rules are written out here again, from their definitions and straight on the company's tables: neither the generator nor the
product's own rules are asked.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from connectors.simulator.company import build_company

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)

TRUTH = """
create or replace temp view changed as
    select *, ("at" at time zone 'Europe/Berlin')::date as day from company.deal_change;
create or replace temp view current_value as
    select deal_id, field, last(new order by seq) as value, last(day order by seq) as day from changed group by all;
create or replace temp view present as
    select * from (select deal_id, field, value from current_value) pivot (any_value(value)
        for field in ('stage', 'amount', 'close_date', 'owner', 'next_step', 'probability', 'forecast_category') group by deal_id);

create or replace temp view spell as  -- stays in a canonical stage; moves within one do not end them
with entry as (
    select c.deal_id, c.day, c.seq, s.canonical,
           coalesce(lag(s.canonical) over (partition by c.deal_id order by c.seq), '') <> s.canonical as begins
    from changed c join company.deal d using (deal_id) join company.stage s on s.pipeline = d.pipeline and s.stage = c.new
    where c.field = 'stage'
)
select deal_id, canonical, day as day_in, lead(day) over (partition by deal_id order by seq) as day_out,
       lead(day) over (partition by deal_id order by seq) - day as days
from entry where begins;

create or replace temp view judged as
select d.*, v.* exclude (deal_id), s.canonical, s.is_closed, s.is_won,
       (d.created_at at time zone 'Europe/Berlin')::date as created_day,
       last_spell.day_in as stage_day,
       (select max(day) from changed c where c.deal_id = d.deal_id and c.field = 'stage') as crm_stage_day,
       v.amount::decimal(18, 2) / r.rate as amount_home
from company.deal d join present v using (deal_id)
join company.stage s on s.pipeline = d.pipeline and s.stage = v.stage
join company.currency r on r.iso_code = d.currency
join (select deal_id, max(day_in) as day_in from spell where day_out is null group by 1) last_spell using (deal_id)
where not d.is_deleted;

create or replace temp view won as select *, stage_day - created_day as cycle from judged where is_won;
create or replace temp view dwell as
select w.pipeline, sp.canonical, sp.days from spell sp join won w using (deal_id) where day_out is not null;
create or replace temp view cycle_limit as
select p.pipeline,
       case when own.n >= 60 then own.p95 when org.n >= 60 then org.p95 when org.n >= 15 then 3 * org.median else 365 end as days,
       case when own.n >= 15 then own.amount else org.amount end as amount
from company.pipeline p
left join (select pipeline, count(*) n, quantile_cont(cycle, 0.95) p95, median(amount_home) as amount from won group by 1) own
    using (pipeline)
cross join (select count(*) n, quantile_cont(cycle, 0.95) p95, median(cycle) median, median(amount_home) as amount from won) org;
create or replace temp view dwell_limit as
select p.pipeline, b.canonical,
       case when own.n >= 30 then own.p90 when org.n >= 30 then org.p90 else b.days end as days
from company.pipeline p
cross join (values ('qualified', 30), ('discovery', 45), ('proposal', 30), ('negotiation', 30)) b(canonical, days)
left join (select pipeline, canonical, count(*) n, quantile_cont(days, 0.9) p90 from dwell group by all) own
    on own.pipeline = p.pipeline and own.canonical = b.canonical
left join (select canonical, count(*) n, quantile_cont(days, 0.9) p90 from dwell group by all) org on org.canonical = b.canonical;

create or replace temp view facts as
select j.*, $d::date - stage_day as dwell, $d::date - crm_stage_day as crm_dwell, $d::date - created_day as age,
       case canonical when 'prequalified' then 0 when 'qualified' then 1 when 'discovery' then 2 when 'proposal' then 3
                      when 'negotiation' then 4 end as rank,
       (select count(*) from company.deal_contact c where c.deal_id = j.deal_id) as contacts,
       $d::date - coalesce((select max((completed_at at time zone 'Europe/Berlin')::date) from company.activity a
                            where a.deal_id = j.deal_id and status = 'completed'), created_day) as quiet,
       (select min(due_date) from company.activity a where a.deal_id = j.deal_id and status = 'open' and due_date >= $d::date) as booked,
       p.kind as owner_kind, p.is_active as owner_active, acc.industry, acc.employees
from judged j left join company.person p on p.person_id = j.owner::integer
left join company.account acc using (account_id);
"""

FOUND = """
with o as (select f.*, dl.days as dwell_limit, cl.days as cycle_limit, cl.amount as usual_amount
           from facts f join cycle_limit cl using (pipeline) left join dwell_limit dl using (pipeline, canonical))
select deal_id, 'close_date_past' as defect from o where not is_closed and close_date::date < $d::date
union all select deal_id, 'no_recent_activity' from o where rank between 1 and 4
    and quiet > case canonical when 'proposal' then 14 when 'negotiation' then 10 else 21 end and booked is null
union all select deal_id, 'stage_dwell' from o where rank between 1 and 4 and dwell > dwell_limit
union all select deal_id, 'next_step_empty' from o where rank between 1 and 4 and next_step is null and booked is null and crm_dwell > 2
union all select deal_id, 'over_aged' from o where rank between 0 and 4 and age > cycle_limit
union all select deal_id, 'amount_missing_or_zero' from o where rank between 2 and 4 and coalesce(amount::decimal(18, 2), 0) = 0
union all select deal_id, 'single_threaded' from o where rank >= 3 and contacts = 1 and amount_home >= usual_amount
union all select deal_id, 'no_contact' from o where rank between 2 and 4 and contacts = 0
union all select deal_id, 'owner_not_working' from o where not is_closed and (owner is null or not owner_active or owner_kind <> 'seller')
union all select deal_id, 'exit_qualified' from o where rank between 2 and 4
    and (contacts = 0 or coalesce(length(description), 0) < 30 or (industry is null and employees is null))
union all select deal_id, 'stage_unmapped' from o where not is_closed and canonical = 'unmapped'
union all select deal_id, 'state_inconsistent' from o where is_closed and (close_date::date > $d::date or created_day > close_date::date
    or (is_won and coalesce(amount::decimal(18, 2), 0) <= 0))
union all select deal_id, 'exit_closed_lost' from o where is_closed and not is_won and (loss_reason is null or loss_reason = 'Other')
"""
RULES = [
    "close_date_past", "no_recent_activity", "stage_dwell", "next_step_empty", "over_aged", "amount_missing_or_zero", "single_threaded",
    "no_contact", "owner_not_working", "exit_qualified", "stage_unmapped", "state_inconsistent", "exit_closed_lost",
]  # fmt: skip


def company(kind, deals, seed=7, now=NOW):
    con = duckdb.connect()
    con.execute("set timezone = 'UTC'")
    build_company(con, seed=seed, deals=deals, now=now, kind=kind)
    return con


def judge(con, day):
    con.execute(TRUTH.replace("$d::date", f"date '{day}'"))
    return set(con.execute(FOUND.replace("$d::date", f"date '{day}'")).fetchall())


def difference(found, wanted):
    return {"missing": sorted(wanted - found), "by accident": sorted(found - wanted)}


SAME: dict[str, list] = {"missing": [], "by accident": []}


def planted(con):
    return set(con.execute("select deal_id, defect from company.planted where defect in ?", [RULES]).fetchall())


@pytest.fixture(scope="module", params=["salesforce", "hubspot"])
def demo(request):
    return company(request.param, 1200 if request.param == "salesforce" else 800)


def test_planted_is_there_and_nothing_else(demo):
    assert difference(judge(demo, NOW.date()), planted(demo)) == SAME


def test_every_defect_occurs(demo):
    assert {defect for _, defect in planted(demo)} == set(RULES)


@pytest.mark.parametrize(
    "kind, deals, seed, now",
    [
        ("salesforce", 60, 1, NOW),
        ("hubspot", 150, 2, datetime(2027, 1, 3, 12, 0, tzinfo=UTC)),  # a Sunday, in another year
        ("salesforce", 400, 3, datetime(2026, 3, 31, 22, 30, tzinfo=UTC)),  # already the next day in Berlin, just after the clocks changed
        ("hubspot", 3000, 4, datetime(2026, 7, 4, 3, 0, tzinfo=UTC)),
        ("salesforce", 8000, 5, datetime(2028, 2, 29, 9, 0, tzinfo=UTC)),
    ],
)
def test_planted_holds_for_any_size_seed_and_day(kind, deals, seed, now):
    con = company(kind, deals, seed, now)
    today = (now + timedelta(hours=2)).date() if deals == 400 else now.date()
    assert difference(judge(con, today), planted(con)) == SAME


def test_sound_deals_stay_sound_for_two_nights(demo):
    before = planted(demo)
    later = judge(demo, (NOW + timedelta(days=2)).date())
    assert before <= later
    # Two days on some promised tasks are due and closing days have come: not more than that.
    assert len(later - before) <= 0.01 * demo.execute("select count(*) from company.deal").fetchone()[0]
