-- Every target with what was reached so far, by the last load: won in the period (bi.closed_deal), or first reached qualified in it (amounts of today). A target of NULL
-- source, pipeline or owner holds for all of them together: do not add it to targets of its parts. HubSpot's goals count by the close date.
--   measure: won or created
--   period_start: first business day
--   period_end: last business day
--   source: name of the source; NULL: all
--   pipeline: record type or pipeline; NULL: all
--   owner: the CRM's id of the owner or the e-mail address, as written; NULL: all
--   owner_name: name of the owner; NULL for all, or where no owner is known by that
--   target_home: the target, in the home currency
--   deals: deals that count towards it
--   actual_home: their amount; a deal without amount counts 0
--   without_amount: of them, deals that have no amount in the home currency
--   attainment: actual_home / target_home; NULL for a target of 0
create or replace view bi.target as
with reached as (
    select source, pipeline, owner_id, 'won' as measure, closed_date as day, amount_home from bi.closed_deal where is_won
    union all
    select o.source, o.pipeline, o.owner_id, 'created', q.day, o.amount_home
    from bi.opportunity o
    join (select opportunity_key, min(entered_date) as day from bi.stage_interval where stage_rank >= 1 and stage <> 'closed_lost' group by opportunity_key) q
      using (opportunity_key)
),
of_day as (
    select r.source, r.pipeline, r.owner_id, lower(w.email) as email, r.measure, r.day, count(*) as deals, sum(r.amount_home) as amount,
           count(*) filter (r.amount_home is null) as without_amount
    from reached r
    left join core.owner w on w.owner_key = r.source || ':' || r.owner_id
    group by all
),
target as (
    select row_number() over () as target_no, * from core.target
),
actual as (
    select t.target_no, sum(d.deals) as deals, sum(d.amount) as amount, sum(d.without_amount) as without_amount
    from target t
    join of_day d on d.measure = t.measure and d.day between t.period_start and t.period_end
     and (t.source is null or t.source = d.source) and (t.pipeline is null or t.pipeline = d.pipeline)
     and (t.owner is null or t.owner = d.owner_id or lower(t.owner) = d.email)
    group by t.target_no
)
select t.measure, t.period_start, t.period_end, t.source, t.pipeline, t.owner,
       (select any_value(w.name) from core.owner w where (t.source is null or w.source = t.source) and (w.owner_id = t.owner or lower(w.email) = lower(t.owner)))
           as owner_name,
       t.amount_home as target_home, coalesce(a.deals, 0)::bigint as deals, coalesce(a.amount, 0)::decimal(38, 2) as actual_home,
       coalesce(a.without_amount, 0)::bigint as without_amount, actual_home::double / nullif(t.amount_home, 0)::double as attainment
from target t
left join actual a using (target_no);
