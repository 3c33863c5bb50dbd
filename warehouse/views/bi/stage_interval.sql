-- The stays of deals in canonical stages, from CRM history and what syncs saw: neighbouring CRM stages that stand for one canonical stage are one
-- stay, and a stage that a deal comes back to is another. A stage that was skipped has no row. Deleted deals are left out.
--   opportunity_key: see bi.opportunity
--   source: name of the source
--   pipeline: record type or pipeline of today
--   stage: canonical stage
--   stage_rank: its place in the funnel, 0 to 5; NULL for on_hold and unmapped
--   entry_no: 1 for the deal's first stay in this stage
--   entered_at: instant
--   left_at: instant; NULL while it lasts
--   entered_date: business day
--   left_date: business day
--   days: business days from entering to leaving; NULL while it lasts
--   next_stage: canonical stage that followed
--   is_won: the deal is won by now
--   is_closed: the deal is closed by now
create or replace view bi.stage_interval as
with entry as (
    select e.opportunity_key, o.source, o.pipeline, e.to_stage as stage, e."at" as entered_at, o.is_won, o.is_closed,
           coalesce(s.business_timezone, 'UTC') as zone,
           lead(e."at") over deal as left_at, lead(e.to_stage) over deal as next_stage
    from core.stage_event e
    join core.opportunity o using (opportunity_key)
    join core.source s on s.source = o.source
    where not o.is_deleted and e.from_stage is distinct from e.to_stage
    -- Within one instant a move ends where the next begins.
    window deal as (partition by e.opportunity_key order by e."at", coalesce(e.from_stage, ''))
)
select opportunity_key, source, pipeline, stage,
       case stage when 'prequalified' then 0 when 'qualified' then 1 when 'discovery' then 2 when 'proposal' then 3 when 'negotiation' then 4
                  when 'closed_won' then 5 when 'closed_lost' then 5 end as stage_rank,
       row_number() over (partition by opportunity_key, stage order by entered_at) as entry_no, entered_at, left_at,
       (entered_at at time zone zone)::date as entered_date, (left_at at time zone zone)::date as left_date,
       date_diff('day', (entered_at at time zone zone)::date, (left_at at time zone zone)::date) as days, next_stage, is_won, is_closed
from entry;
