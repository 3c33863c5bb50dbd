-- What became of the deals that reached each stage, per pipeline and month in which they first did. A deal that skips a stage has reached it when it
-- enters a later one, and one that is won has reached them all. Counts may be added up over rows; for a rate take months that are older than a sales
-- cycle, for young ones are mostly open still. HubSpot's funnel of all stages loses a deal at the first stage that it skips; its funnel
-- of any stages counts the stages that deals were in, whatever the order.
--   source: name of the source
--   pipeline: record type or pipeline
--   stage: canonical stage reached, qualified to negotiation
--   stage_rank: its place in the funnel, 1 to 4
--   reached_month: first of the month in which they first reached it
--   reached: deals
--   advanced: of them, those that reached a later stage (won ones too)
--   lost: of them, those that were lost without
--   open: of them, those that are in it still, or before it again
--   won: of them, those that are won by now
--   closed: of them, those that are won or lost by now, from whichever stage
--   conversion_rate: advanced / reached
--   win_rate: won / reached
create or replace view bi.stage_conversion as
with stay as (
    select *, if(stage = 'closed_lost', NULL, stage_rank) as reached_rank from bi.stage_interval
),
deal as (
    select opportunity_key, any_value(source) as source, any_value(pipeline) as pipeline, max(reached_rank) as furthest, bool_or(is_won) as is_won,
           bool_or(is_closed) as is_closed
    from stay
    group by opportunity_key
),
stage as (
    select unnest(['qualified', 'discovery', 'proposal', 'negotiation']) as stage, unnest([1, 2, 3, 4]) as stage_rank
),
reached as (
    select s.opportunity_key, g.stage, g.stage_rank, min(s.entered_date) as reached_date
    from stay s
    join stage g on s.reached_rank >= g.stage_rank
    group by s.opportunity_key, g.stage, g.stage_rank
)
select d.source, d.pipeline, r.stage, r.stage_rank, date_trunc('month', r.reached_date)::date as reached_month, count(*) as reached,
       count(*) filter (d.furthest > r.stage_rank) as advanced,
       count(*) filter (d.furthest = r.stage_rank and d.is_closed) as lost,
       count(*) filter (d.furthest = r.stage_rank and not d.is_closed) as open,
       count(*) filter (d.is_won) as won, count(*) filter (d.is_closed) as closed,
       advanced / count(*) as conversion_rate, won / count(*) as win_rate
from reached r
join deal d using (opportunity_key)
group by d.source, d.pipeline, r.stage, r.stage_rank, reached_month;
