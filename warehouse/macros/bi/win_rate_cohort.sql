-- Of the deals made in each month, the share won within so many days. Only months of which every deal is older than that have a rate. Unlike
-- won / (won + lost) it counts deals that nobody closes.
--   source: name of the source
--   pipeline: record type or pipeline
--   created_month: first of the month
--   deals: made in it, not deleted
--   won: of them, won within the days
--   lost: of them, lost within the days
--   undecided: of them, neither
--   win_rate: won / deals; NULL while the youngest of the month is not that old
create or replace macro bi.win_rate_cohort(days) as table
with aged as (
    select o.source, o.pipeline, date_trunc('month', o.created_date)::date as created_month, o.created_date, o.is_closed, o.is_won,
           date_diff('day', o.created_date, coalesce(c.closed_date, o.close_date)) as after_days,
           days::integer as horizon, (o.as_of at time zone coalesce(s.business_timezone, 'UTC'))::date as today
    from bi.opportunity o
    join core.source s using (source)
    left join bi.closed_deal c using (opportunity_key)
)
select source, pipeline, created_month, count(*) as deals, count(*) filter (is_won and after_days <= horizon) as won,
       count(*) filter (is_closed and not is_won and after_days <= horizon) as lost, deals - won - lost as undecided,
       if(last_day(created_month) + max(horizon) <= max(today), won / deals, NULL) as win_rate
from aged
group by source, pipeline, created_month;
