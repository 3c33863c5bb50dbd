-- stage_definition: the stages that the org defines, for every record type that deals use. Salesforce shares them among record types.
create or replace temp table stage_definition as
with stage_text as (
    select id, unnest(json_transform(payload, '{"ApiName": "VARCHAR", "MasterLabel": "VARCHAR", "SortOrder": "VARCHAR", "IsActive": "VARCHAR",
        "IsClosed": "VARCHAR", "IsWon": "VARCHAR", "DefaultProbability": "VARCHAR", "ForecastCategoryName": "VARCHAR"}'))
    from raw.salesforce_opportunity_stage
    where source = getvariable('source') and not is_deleted
),
pipeline as (
    select distinct pipeline from stage_seen
)
select distinct on (pipeline, crm_stage)
       p.pipeline, NULL::varchar as pipeline_id, coalesce(s.ApiName, s.MasterLabel) as crm_stage, coalesce(s.MasterLabel, s.ApiName) as label,
       try_cast(s.SortOrder as integer) as position, (try_cast(s.DefaultProbability as decimal(18, 6)) / 100)::decimal(7, 6) as probability,
       case lower(s.ForecastCategoryName) when 'forecast' then 'commit' else lower(replace(s.ForecastCategoryName, ' ', '_')) end as forecast_category,
       try_cast(s.IsClosed as boolean) as is_closed, try_cast(s.IsWon as boolean) as is_won, coalesce(s.IsActive = 'true', true) as is_active
from stage_text s cross join pipeline p
where coalesce(s.ApiName, s.MasterLabel) is not null
order by pipeline, crm_stage, is_active desc, position;
