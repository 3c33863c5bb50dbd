-- How long deals stay in each open stage, per pipeline: stays that are over, of deals won and of all; and how long the deals that are in it now have been.
-- Business days. Percentiles need samples: with fewer than 30 stays a 90th percentile is no more than the longest one.
-- HubSpot's times in stage and Salesforce's stage duration are of the CRM's own stages: two that stand for one canonical stage are one stay here.
--   source: name of the source
--   pipeline: record type or pipeline
--   stage: canonical stage
--   stage_rank: its place in the funnel
--   stays: stays that are over
--   median_days: of them
--   p75_days: of them
--   p90_days: of them
--   won_stays: stays that are over, of deals won by now
--   won_median_days: of them
--   won_p90_days: of them
--   open_deals: deals that are in it now
--   open_median_days: days since they entered it
create or replace view bi.stage_duration as
with stay as (
    select i.*, if(i.left_at is null and not i.is_closed, date_diff('day', i.entered_date, (s.last_synced_at at time zone coalesce(s.business_timezone, 'UTC'))::date),
                   NULL) as open_days
    from bi.stage_interval i
    join core.source s using (source)
    where i.stage not in ('closed_won', 'closed_lost')
)
select source, pipeline, stage, any_value(stage_rank) as stage_rank, count(days) as stays,
       quantile_cont(days, 0.5) as median_days, quantile_cont(days, 0.75) as p75_days, quantile_cont(days, 0.9) as p90_days,
       count(days) filter (is_won) as won_stays, quantile_cont(days, 0.5) filter (is_won) as won_median_days,
       quantile_cont(days, 0.9) filter (is_won) as won_p90_days,
       count(open_days) as open_deals, quantile_cont(open_days, 0.5) as open_median_days
from stay
group by source, pipeline, stage;
