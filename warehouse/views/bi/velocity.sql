-- Sales velocity per pipeline over the twelve months before the last load: open deals x win rate x average won amount / mean sales cycle, in home currency a
-- day. All four are of the same pipeline and months, the open deals of today. Reports of the CRMs take the
-- cycle to the close date that people typed. Deals imported closed (closed before they were made) have no cycle.
--   source: name of the source
--   pipeline: record type or pipeline
--   open_deals: open deals from qualified to negotiation
--   won_deals: won in the twelve months
--   lost_deals: lost in them
--   win_rate_count: won / (won + lost)
--   average_won_home: mean amount of the won deals that have one
--   median_won_home: median amount of them
--   mean_cycle_days: mean sales cycle of the won deals
--   median_cycle_days: median of it
--   p90_cycle_days: 90th percentile of it
--   velocity_home: home currency per day; NULL where one of the four is missing
create or replace view bi.velocity as
with recent as (
    select c.*
    from bi.closed_deal c
    join core.source s using (source)
    where c.closed_date > (s.last_synced_at at time zone coalesce(s.business_timezone, 'UTC'))::date - interval 12 month
      and c.closed_date <= (s.last_synced_at at time zone coalesce(s.business_timezone, 'UTC'))::date
),
won as (
    select source, pipeline, count(*) filter (is_won) as won_deals, count(*) filter (not is_won) as lost_deals, won_deals / count(*) as win_rate_count,
           (avg(amount_home) filter (is_won))::decimal(38, 2) as average_won_home, (median(amount_home) filter (is_won))::decimal(38, 2) as median_won_home,
           avg(cycle_days) filter (is_won) as mean_cycle_days, quantile_cont(cycle_days, 0.5) filter (is_won) as median_cycle_days,
           quantile_cont(cycle_days, 0.9) filter (is_won) as p90_cycle_days
    from recent
    group by source, pipeline
),
open_now as (
    select source, pipeline, count(*) as open_deals
    from core.opportunity
    where not is_closed and not is_deleted and stage_rank between 1 and 4
    group by source, pipeline
)
select source, pipeline, coalesce(open_deals, 0) as open_deals, coalesce(won_deals, 0) as won_deals, coalesce(lost_deals, 0) as lost_deals, win_rate_count,
       average_won_home, median_won_home, mean_cycle_days, median_cycle_days, p90_cycle_days,
       (coalesce(open_deals, 0) * win_rate_count * average_won_home::double / nullif(mean_cycle_days, 0))::decimal(38, 2) as velocity_home
from won
full join open_now using (source, pipeline);
