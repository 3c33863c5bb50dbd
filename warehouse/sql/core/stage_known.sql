-- stage_known: the stages that the CRM defines, and those that deals are or were in though it does not define them (any more).
create or replace temp table stage_known as
with definition as (
    from stage_definition
)
select getvariable('source') as source, pipeline, pipeline_id, crm_stage, label, position, probability, forecast_category, is_closed, is_won, is_active
from definition
union all by name
select getvariable('source') as source, s.pipeline, NULL::varchar as pipeline_id, s.crm_stage, coalesce(n.label, s.crm_stage) as label, n.position,
       n.probability, n.forecast_category, coalesce(n.is_closed, s.is_closed) as is_closed, coalesce(n.is_won, s.is_won) as is_won,
       false as is_active
from stage_seen s
left join stage_alias n on n.name = s.crm_stage and coalesce(n.pipeline = s.pipeline, true)
where not exists (from definition d where d.pipeline = s.pipeline and d.crm_stage = s.crm_stage)
  -- HubSpot's stage ids are unique over pipelines: a deal that changed its pipeline was in a stage of the other one.
  and not (getvariable('crm') = 'hubspot' and exists (from definition d where d.crm_stage = s.crm_stage));
