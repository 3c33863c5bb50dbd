-- The open pipeline by canonical stage, and what it was about a week ago in the daily snapshots.
with week as (
    select snapshot_date
    from (select distinct snapshot_date from bi.pipeline_snapshot)
    where date_diff('day', snapshot_date, $today::date) between 4 and 10
    order by abs(date_diff('day', snapshot_date, $today::date) - 7), snapshot_date desc
    limit 1
),
past as (
    select stage, sum(amount_home) as amount
    from bi.pipeline_snapshot
    where snapshot_date = (select snapshot_date from week)
    group by stage
),
present as (
    select stage, count(*) as deals, sum(amount_home) as amount, sum(amount_home * probability)::decimal(38, 2) as weighted,
        count(*) filter (where is_at_risk) as at_risk_deals,
        coalesce(sum(amount_home) filter (where is_at_risk), 0) as at_risk_amount,
        coalesce(sum(amount_home) filter (where not is_counted), 0) as uncounted_amount,
        count(*) filter (where not is_counted) as uncounted_deals,
        count(*) filter (where is_flagged) as flagged_deals, count(*) filter (where is_flagged) / count(*) as flagged_share,
        count(*) filter (where is_counted) as counted_deals
    from report_deal
    group by stage
)
select p.*, past.amount as week_amount, (select snapshot_date from week) as week_date,
    list_position(['qualified', 'discovery', 'proposal', 'negotiation', 'prequalified', 'on_hold', 'unmapped'],
        p.stage) as position
from present p
left join past on past.stage = p.stage
order by position nulls last, p.stage
