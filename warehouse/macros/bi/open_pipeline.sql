-- The open pipeline at the end of a business day, as it was to be closed in a period: per pipeline, owner and stage of that day. In the pipeline are stages from
-- qualified to negotiation; others (prequalified, on_hold, unmapped) have rows of their own that say so, and what was past due then is counted apart, not in
-- the period. Trusted is what no critical or high finding of a rule that alerts spoke against on that day, in sources whose activities could be judged
-- then: no CRM knows that number. Salesforce's expected revenue and HubSpot's weighted amount are weighted_home, by the probability that people or the stage set.
--   source: name of the source
--   pipeline: pipeline on that day
--   owner_id: the CRM's id of the owner on that day
--   stage: canonical stage, by the map of today
--   is_counted: the stage is one of qualified to negotiation
--   deals: open deals
--   amount_home: their amount; a deal without amount counts 0
--   weighted_home: their amount x the CRM's probability on that day
--   stage_weighted_home: their amount x the share of deals that reached the stage, in that pipeline, and are won, of those that are closed; NULL where fewer than 30 are
--   in_period_deals: of them, to be closed in the period
--   in_period_amount_home: their amount
--   past_due_deals: of them, those whose close date was over
--   past_due_amount_home: their amount
--   trusted_home: of amount_home, deals without such a finding; NULL where the source was not checked by then, or no rule about stale records could judge
--   at_risk_home: of amount_home, deals with one
--   without_amount: deals without an amount in the home currency
create or replace macro bi.open_pipeline(day, period_start, period_end) as table
with risk as (
    select distinct f.opportunity_key
    from quality.finding f
    join quality.rule r using (rule_id)
    where r.state = 'alert' and f.severity in ('critical', 'high') and f.state <> 'waived'
      and f.first_seen_at < bi.end_of_day(day) and (f.resolved_at >= bi.end_of_day(day) or f.resolved_at is null)
),
-- The last check of the source by then says whether freshness could be judged: a pipeline of which nobody knows when it was touched is not to be trusted.
judged as (
    select q.source
    from quality.result q
    left join quality.rule r using (rule_id)
    where q.as_of < bi.end_of_day(day)
    group by q.source, q.as_of
    qualify q.as_of = max(q.as_of) over (partition by q.source) and coalesce(sum(q.evaluable) filter (r.mistake = 'stale records'), 0) > 0
),
deal as (
    select split_part(opportunity_key, ':', 1) as source, opportunity_key, pipeline, owner_id, stage, amount_home, amount_home::decimal(38, 2) * probability as weighted,
           close_date between period_start::date and period_end::date and close_date >= day::date as is_in_period, close_date < day::date as is_past_due
    from bi.opportunity_at_end_of(day)
    where not is_closed and not is_deleted
),
odds as (
    select source, pipeline, stage, sum(won) / sum(closed) as win_rate, sum(closed) as closed from bi.stage_conversion group by all
)
select d.source, d.pipeline, d.owner_id, d.stage, d.stage in ('qualified', 'discovery', 'proposal', 'negotiation') as is_counted, count(*) as deals,
       coalesce(sum(d.amount_home), 0)::decimal(38, 2) as amount_home, coalesce(sum(d.weighted), 0)::decimal(38, 2) as weighted_home,
       if(any_value(w.closed) >= 30, (coalesce(sum(d.amount_home), 0)::double * any_value(w.win_rate))::decimal(38, 2), NULL) as stage_weighted_home,
       count(*) filter (d.is_in_period) as in_period_deals, coalesce(sum(d.amount_home) filter (d.is_in_period), 0)::decimal(38, 2) as in_period_amount_home,
       count(*) filter (d.is_past_due) as past_due_deals, coalesce(sum(d.amount_home) filter (d.is_past_due), 0)::decimal(38, 2) as past_due_amount_home,
       if(any_value(j.source) is null, NULL, coalesce(sum(d.amount_home) filter (r.opportunity_key is null), 0))::decimal(38, 2) as trusted_home,
       if(any_value(j.source) is null, NULL, coalesce(sum(d.amount_home) filter (r.opportunity_key is not null), 0))::decimal(38, 2) as at_risk_home,
       count(*) filter (d.amount_home is null) as without_amount
from deal d
left join odds w using (source, pipeline, stage)
left join risk r on r.opportunity_key = d.opportunity_key
left join judged j on j.source = d.source
group by d.source, d.pipeline, d.owner_id, d.stage;
