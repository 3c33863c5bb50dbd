-- stage_definition: the stages of every deal pipeline of the portal.
create or replace temp table stage_definition as
with pipelines as (
    select id, is_deleted, payload ->> '$.label' as label, coalesce(payload -> '$.stages', '[]')::json[] as stages
    from raw.hubspot_pipeline
    where source = getvariable('source')
),
stages as (
    select label, id as pipeline_id, is_deleted, unnest(stages) as stage from pipelines
),
plain as (
    select coalesce(label, pipeline_id) as pipeline, pipeline_id, stage ->> '$.id' as crm_stage, stage ->> '$.label' as label,
           try_cast(stage ->> '$.displayOrder' as integer) as position, try_cast(stage ->> '$.metadata.probability' as decimal(7, 6)) as probability,
           -- Where the metadata does not say it, the probability does: HubSpot shows 1 as won and 0 as lost.
           coalesce(try_cast(stage ->> '$.metadata.isClosed' as boolean),
                    try_cast(stage ->> '$.metadata.probability' as decimal(7, 6)) in (0, 1), false) as is_closed,
           not is_deleted and coalesce(stage ->> '$.archived', 'false') <> 'true' as is_active,
           try_cast(stage ->> '$.createdAt' as timestamptz) as created_at
    from stages
)
select distinct on (pipeline, crm_stage)
       pipeline, pipeline_id, crm_stage, label, position, probability, NULL::varchar as forecast_category, is_closed,
       is_closed and coalesce(probability, 0) = 1 as is_won, is_active, created_at
from plain
where crm_stage is not null
order by pipeline, crm_stage, is_active desc, position;

-- stage_alias: what else records may call a stage.
create or replace temp table stage_alias as
select pipeline, label as name, label, any_value(position) as position, any_value(probability) as probability,
       any_value(forecast_category) as forecast_category, any_value(is_closed) as is_closed, any_value(is_won) as is_won
from stage_definition
group by pipeline, label;
