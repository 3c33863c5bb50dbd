-- stage_definition: the org's stages, for every record type that deals use. Salesforce shares them among record types; a sales process takes some
-- of them. Where the org tells which (process_told), the others count only for the deals that are in them all the same.
create or replace temp table stage_of_org as
with stage_text as (
    select id, unnest(json_transform(payload, '{"ApiName": "VARCHAR", "MasterLabel": "VARCHAR", "SortOrder": "VARCHAR", "IsActive": "VARCHAR",
        "IsClosed": "VARCHAR", "IsWon": "VARCHAR", "DefaultProbability": "VARCHAR", "ForecastCategoryName": "VARCHAR", "CreatedDate": "VARCHAR"}'))
    from raw.salesforce_opportunity_stage
    where source = getvariable('source') and not is_deleted
)
select distinct on (crm_stage)
       coalesce(ApiName, MasterLabel) as crm_stage, coalesce(MasterLabel, ApiName) as label, try_cast(SortOrder as integer) as position,
       (try_cast(DefaultProbability as decimal(18, 6)) / 100)::decimal(7, 6) as probability,
       case lower(ForecastCategoryName) when 'forecast' then 'commit' else lower(replace(ForecastCategoryName, ' ', '_')) end as forecast_category,
       try_cast(IsClosed as boolean) as is_closed, try_cast(IsWon as boolean) as is_won, coalesce(IsActive = 'true', true) as is_active,
       try_cast(CreatedDate as timestamptz) as created_at
from stage_text
where coalesce(ApiName, MasterLabel) is not null
order by crm_stage, is_active desc, position;

-- What was told once of a record type holds until it is told again: an inactive one is not asked.
create or replace temp table process_told as
select distinct d.pipeline, unnest(from_json(s.payload ->> '$.Stages', '["VARCHAR"]')) as crm_stage
from raw.salesforce_record_type_stages s
join pipeline_definition d on d.pipeline_id = s.id
where s.source = getvariable('source');

create or replace temp table stage_definition as
with placed as (
    select p.pipeline, s.*,
           p.pipeline not in (select pipeline from process_told)
           or exists (from process_told t where t.pipeline = p.pipeline and t.crm_stage in (s.crm_stage, s.label)) as is_offered
    from stage_of_org s
    cross join (select distinct pipeline from stage_seen) p
)
select pipeline, NULL::varchar as pipeline_id, crm_stage, label, position, probability, forecast_category, is_closed, is_won,
       is_active and is_offered as is_active, created_at
from placed
where is_offered
   or exists (from stage_seen n where n.on_deals and n.pipeline = placed.pipeline and n.crm_stage in (placed.crm_stage, placed.label));

-- stage_alias: what else records may call a stage: the label, as those of old do, also one that it had before; and a stage that its pipeline lacks.
create or replace temp table stage_alias as
with named as (
    select crm_stage as name, crm_stage, 1 as rank from stage_of_org
    union all
    select label, crm_stage, 2 from stage_of_org
    union all
    select label, crm_stage, 3 from core.stage_version where source = getvariable('source') and label is not null
)
select distinct on (n.name)
       NULL::varchar as pipeline, n.name, s.label, s.position, s.probability, s.forecast_category, s.is_closed, s.is_won
from named n
join stage_of_org s using (crm_stage)
order by n.name, n.rank, s.is_active desc, s.position;
