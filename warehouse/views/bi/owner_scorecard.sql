-- Each owner's pipeline, results of the twelve months before the last load, and hygiene, one row per owner that has or had deals.
--   source: name of the source
--   owner_id: the CRM's id of the owner; NULL for deals of nobody
--   owner_name: name of the owner
--   team: team of the owner
--   is_active: false where the owner left
--   open_deals: open deals from qualified to negotiation
--   open_amount_home: their amount
--   weighted_home: their amount x probability
--   other_open_deals: open deals before qualified, on hold or in a stage that is not mapped
--   past_due_deals: open deals whose close date is over
--   open_without_amount: open deals from qualified to negotiation that have no amount in the home currency
--   at_risk_amount_home: amount of the open ones with an open critical or high finding of a rule that alerts
--   won_deals: won in the twelve months
--   lost_deals: lost in them
--   won_amount_home: amount won
--   win_rate_count: won / (won + lost)
--   win_rate_value: the same by amount
--   average_won_home: mean amount won
--   median_cycle_days: median sales cycle of the won deals
--   pushes_per_deal: mean number of pushes of the close date, of open deals
--   score: mean hygiene score of the open deals
create or replace view bi.owner_scorecard as
with day as (
    select source, (last_synced_at at time zone coalesce(business_timezone, 'UTC'))::date as today from core.source
),
risk as (
    select distinct f.opportunity_key
    from quality.finding f
    join quality.rule r using (rule_id)
    where f.state = 'open' and r.state = 'alert' and f.severity in ('critical', 'high')
),
open_deal as (
    select o.*, coalesce(o.stage in ('qualified', 'discovery', 'proposal', 'negotiation'), false) as is_counted, r.opportunity_key is not null as is_at_risk,
           o.close_date < d.today as is_past_due
    from bi.opportunity o
    join day d using (source)
    left join risk r using (opportunity_key)
    where not o.is_closed
),
open_of as (
    select source, owner_id, count(*) filter (is_counted) as open_deals,
           coalesce(sum(amount_home) filter (is_counted), 0)::decimal(38, 2) as open_amount_home,
           coalesce(sum(weighted_home) filter (is_counted), 0)::decimal(38, 2) as weighted_home,
           count(*) filter (not is_counted) as other_open_deals, count(*) filter (is_past_due) as past_due_deals,
           count(*) filter (is_counted and amount_home is null) as open_without_amount,
           coalesce(sum(amount_home) filter (is_counted and is_at_risk), 0)::decimal(38, 2) as at_risk_amount_home,
           avg(close_date_pushes) as pushes_per_deal, avg(score) as score
    from open_deal
    group by source, owner_id
),
closed_of as (
    select c.source, c.owner_id, count(*) filter (c.is_won) as won_deals, count(*) filter (not c.is_won) as lost_deals,
           coalesce(sum(c.amount_home) filter (c.is_won), 0)::decimal(38, 2) as won_amount_home,
           coalesce(sum(c.amount_home) filter (not c.is_won), 0)::decimal(38, 2) as lost_amount_home,
           (avg(c.amount_home) filter (c.is_won))::decimal(38, 2) as average_won_home,
           quantile_cont(c.cycle_days, 0.5) filter (c.is_won) as median_cycle_days
    from bi.closed_deal c
    join day d using (source)
    where c.closed_date > d.today - interval 12 month and c.closed_date <= d.today
    group by c.source, c.owner_id
),
owner as (
    select source, owner_id from open_of union select source, owner_id from closed_of
)
select k.source, k.owner_id, w.name as owner_name, w.team, w.is_active, coalesce(o.open_deals, 0) as open_deals,
       coalesce(o.open_amount_home, 0)::decimal(38, 2) as open_amount_home, coalesce(o.weighted_home, 0)::decimal(38, 2) as weighted_home,
       coalesce(o.other_open_deals, 0) as other_open_deals, coalesce(o.past_due_deals, 0) as past_due_deals,
       coalesce(o.open_without_amount, 0) as open_without_amount, coalesce(o.at_risk_amount_home, 0)::decimal(38, 2) as at_risk_amount_home,
       coalesce(c.won_deals, 0) as won_deals, coalesce(c.lost_deals, 0) as lost_deals, coalesce(c.won_amount_home, 0)::decimal(38, 2) as won_amount_home,
       c.won_deals / (c.won_deals + c.lost_deals) as win_rate_count,
       c.won_amount_home::double / nullif(c.won_amount_home + c.lost_amount_home, 0)::double as win_rate_value,
       c.average_won_home, c.median_cycle_days, o.pushes_per_deal, o.score
from owner k
left join open_of o on o.source = k.source and o.owner_id is not distinct from k.owner_id
left join closed_of c on c.source = k.source and c.owner_id is not distinct from k.owner_id
left join core.owner w on w.owner_key = k.source || ':' || k.owner_id;
