-- Pipeline that was made in a span of business days: deals that first reached qualified, or a later stage, in it, with the amount that they have now; beside
-- them the deals whose records were made in it. Deleted deals are left out. Atrium counts what was transferred to an owner as new, too.
--   source: name of the source
--   pipeline: record type or pipeline
--   owner_id: the CRM's id of the owner
--   qualified_deals: deals that first reached qualified or later in it
--   qualified_amount_home: their amount; a deal without amount counts 0
--   created_deals: deals whose record was made in it, whatever stage
--   created_amount_home: their amount
create or replace macro bi.creation(from_date, to_date) as table
with qualified as (
    select opportunity_key, min(entered_date) as day from bi.stage_interval where stage_rank >= 1 and stage <> 'closed_lost' group by opportunity_key
),
deal as (
    select o.source, o.pipeline, o.owner_id, o.amount_home, coalesce(q.day between from_date::date and to_date::date, false) as is_qualified,
           o.created_date between from_date::date and to_date::date as is_created
    from bi.opportunity o
    left join qualified q using (opportunity_key)
)
select source, pipeline, owner_id, count(*) filter (is_qualified) as qualified_deals,
       coalesce(sum(amount_home) filter (is_qualified), 0)::decimal(38, 2) as qualified_amount_home,
       count(*) filter (is_created) as created_deals, coalesce(sum(amount_home) filter (is_created), 0)::decimal(38, 2) as created_amount_home
from deal
where is_qualified or is_created
group by all;
