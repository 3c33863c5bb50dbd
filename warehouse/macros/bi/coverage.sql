-- Whether the open pipeline of a period is enough for its target, at the end of a business day: one row for all deals, and one for each scope that has a target of won
-- deals in core.target. A target counts for the period that it names; where a scope has none for that, those that lie in it and fill it without a gap (the months of
-- a quarter) are summed. Required coverage is not the folk's 3x but what the company's own past says: in the four periods before, on the same day of the period,
-- open pipeline due in it / what of it was won by the period's end. Salesforce and HubSpot have no such number; Clari's coverage is the net one.
--   source: name of the source; NULL: all
--   pipeline: record type or pipeline on that day; NULL: all
--   owner: the CRM's id of the owner or the e-mail address, as the target has it; NULL: all
--   target_home: the target; NULL where there is none
--   won_home: won in the period by that day (bi.won_by)
--   open_deals: open deals from qualified to negotiation, to be closed in the period on that day or later
--   open_home: their amount; a deal without amount counts 0
--   past_due_home: amount of open deals whose close date in the period is over: in no other number
--   without_amount: of the won and the open deals, those that have no amount in the home currency
--   coverage: open_home / (target_home - won_home); NULL without a target and where it is met
--   coverage_gross: (open_home + won_home) / target_home
--   required_coverage: see above; NULL where fewer than 30 deals were open then
create or replace macro bi.coverage(day, period_start, period_end) as table
with asked as (
    select period_start::date as p0, period_end::date as p1, if(day(period_start::date) = 1 and period_end::date = last_day(period_end::date),
           date_diff('month', period_start::date, period_end::date + 1), NULL) as months, period_end::date - period_start::date + 1 as days
),
scope as (
    select source, pipeline, owner, sum(amount_home) filter (is_whole) as whole, sum(amount_home) filter (not is_whole) as parts,
           sum(target_days) filter (not is_whole) as part_days
    from (select t.source, t.pipeline, t.owner, t.amount_home, t.period_end - t.period_start + 1 as target_days,
                 t.period_start = a.p0 and t.period_end = a.p1 as is_whole
          from core.target t, asked a
          where t.measure = 'won' and t.period_start >= a.p0 and t.period_end <= a.p1)
    group by source, pipeline, owner
    union all by name
    select NULL as source, NULL as pipeline, NULL as owner, NULL as whole, NULL as parts, NULL as part_days
),
target as (
    select source, pipeline, owner, max(coalesce(s.whole, if(s.part_days = a.days, s.parts, NULL))) as target_home
    from scope s, asked a
    group by source, pipeline, owner
),
-- The deals that count on that day.
deal as (
    select split_part(opportunity_key, ':', 1) as source, pipeline, owner_id, amount_home, false as is_won, close_date < day::date as is_past_due
    from bi.opportunity_at_end_of(day)
    where not is_closed and not is_deleted and stage in ('qualified', 'discovery', 'proposal', 'negotiation')
      and close_date between period_start::date and period_end::date
    union all
    select source, pipeline, owner_id, amount_home, true, false
    from bi.won_by(least(day::date, period_end::date), period_start, period_end)
),
-- The same day of the four periods before.
earlier as (
    select i, if(a.months is null, day::date - (i * a.days)::integer, (day::date - to_months((i * a.months)::integer))::date) as lock_day,
           if(a.months is null, a.p0 - (i * a.days)::integer, (a.p0 - to_months((i * a.months)::integer))::date) as p0,
           if(a.months is null, a.p1 - (i * a.days)::integer, last_day((a.p1 - to_months((i * a.months)::integer))::date)) as p1
    from asked a, range(1, 5) as t(i)
),
instant as (
    select *, bi.end_of_day(lock_day) as locked_at, bi.end_of_day(p1) as ended_at from earlier where lock_day <= p1
),
due as (
    select n.i, n.ended_at, v.opportunity_key, v.pipeline, v.owner_id, coalesce(v.amount_home, 0) as amount_home
    from (from core.opportunity_version
          where not is_closed and not is_deleted and stage in ('qualified', 'discovery', 'proposal', 'negotiation')) v
    join instant n on v.valid_from < n.locked_at and (v.valid_to >= n.locked_at or v.valid_to is null)
    where v.close_date between greatest(n.p0, n.lock_day) and n.p1
),
past as (
    select split_part(d.opportunity_key, ':', 1) as source, d.pipeline, d.owner_id, count(*) as deals, sum(d.amount_home) as due_home,
           coalesce(sum(e.amount_home), 0) as won_home
    from due d
    -- An `or` in the condition would compare every deal with every win.
    left join (select opportunity_key, amount_home, valid_from, coalesce(valid_to, timestamptz 'infinity') as valid_to
               from core.opportunity_version
               where is_won and is_closed and not is_deleted) e
      on e.opportunity_key = d.opportunity_key and e.valid_from < d.ended_at and e.valid_to >= d.ended_at
    group by all
),
part as (
    select source, pipeline, owner_id, sum(amount_home) filter (is_won) as won, count(*) filter (not is_won and not is_past_due) as open_deals,
           sum(amount_home) filter (not is_won and not is_past_due) as open, sum(amount_home) filter (is_past_due) as past_due,
           count(*) filter (amount_home is null) as without_amount, 0 as past_deals, 0::decimal(38, 2) as past_home, 0::decimal(38, 2) as past_won
    from deal
    group by all
    union all
    select source, pipeline, owner_id, 0, 0, 0, 0, 0, deals, due_home, won_home from past
),
named as (
    select p.*, lower(w.email) as email from part p left join core.owner w on w.owner_key = p.source || ':' || p.owner_id
),
summed as (
    select t.source, t.pipeline, t.owner, any_value(t.target_home) as target_home, coalesce(sum(p.won), 0)::decimal(38, 2) as won_home,
           coalesce(sum(p.open_deals), 0)::bigint as open_deals, coalesce(sum(p.open), 0)::decimal(38, 2) as open_home,
           coalesce(sum(p.past_due), 0)::decimal(38, 2) as past_due_home, coalesce(sum(p.without_amount), 0)::bigint as without_amount,
           sum(p.past_deals) as past_deals, sum(p.past_home) as past_home, sum(p.past_won) as past_won
    from target t
    left join named p on (t.source is null or t.source = p.source) and (t.pipeline is null or t.pipeline = p.pipeline)
     and (t.owner is null or t.owner = p.owner_id or lower(t.owner) = p.email)
    group by t.source, t.pipeline, t.owner
)
select source, pipeline, owner, target_home, won_home, open_deals, open_home, past_due_home, without_amount,
       if(target_home > won_home, open_home::double / (target_home - won_home)::double, NULL) as coverage,
       (open_home + won_home)::double / nullif(target_home, 0)::double as coverage_gross,
       if(past_deals >= 30, past_home::double / nullif(past_won, 0)::double, NULL) as required_coverage
from summed;
