-- new_stage_event: the moves of `stage_move` in canonical stages.
create or replace temp table new_stage_event as
with stage_of as (
    from core.stage_map where source = getvariable('source')
),
-- HubSpot's stage ids are unique over all pipelines, so a deal that changed its pipeline still finds its old stages.
stage_anywhere as (
    select crm_stage, any_value(stage) as stage, any_value(stage_rank) as stage_rank, bool_or(is_closed) as is_closed, bool_or(is_won) as is_won
    from stage_of
    group by crm_stage
),
moved as (
    select m.opportunity_key, m."at", m.seq, m.from_crm_stage, m.to_crm_stage, m.changed_by, m.changed_through,
           coalesce(f.stage, fa.stage, if(m.from_crm_stage is null, NULL, 'unmapped')) as from_stage,
           coalesce(t.stage, ta.stage, 'unmapped') as to_stage,
           coalesce(f.stage_rank, fa.stage_rank) as from_rank, coalesce(t.stage_rank, ta.stage_rank) as to_rank,
           coalesce(f.is_closed, fa.is_closed, false) as from_closed, coalesce(t.is_closed, ta.is_closed, false) as to_closed,
           coalesce(t.is_won, ta.is_won, false) as to_won
    from stage_move m
    left join stage_of f on f.pipeline = m.pipeline and f.crm_stage = m.from_crm_stage
    left join stage_of t on t.pipeline = m.pipeline and t.crm_stage = m.to_crm_stage
    left join stage_anywhere fa on fa.crm_stage = m.from_crm_stage
    left join stage_anywhere ta on ta.crm_stage = m.to_crm_stage
)
select opportunity_key, "at", seq, from_stage, to_stage, from_crm_stage, to_crm_stage, from_closed, to_closed,
       case when to_closed then if(to_won, 'won', 'lost')
            when from_crm_stage is null then 'enter'
            when from_closed then 'reopen'
            when from_rank is null or to_rank is null or from_rank = to_rank then 'move'
            when to_rank < from_rank then 'regress'
            when to_rank = from_rank + 1 then 'advance'
            else 'skip' end as kind,
       changed_by, changed_through
from moved;
