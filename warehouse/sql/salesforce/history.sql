-- stage_told, close_told, next_step_told: what OpportunityHistory and OpportunityFieldHistory say of the touched opportunities.
create or replace temp table told as
select parent_id as opportunity_id, id as seq, try_cast(CreatedDate as timestamptz) as "at", StageName as crm_stage,
       try_cast(CloseDate as date) as close_date
from (
    select id, parent_id, unnest(json_transform(payload, '{"CreatedDate": "VARCHAR", "StageName": "VARCHAR", "CloseDate": "VARCHAR"}'))
    from raw.salesforce_opportunity_history semi join touched on touched.id = parent_id
    where source = getvariable('source')
);

create or replace temp table stage_told as
select opportunity_id, "at", seq, crm_stage from told where "at" is not null and crm_stage is not null;

create or replace temp table close_told as
select opportunity_id, "at", seq, close_date from told where "at" is not null and close_date is not null;

create or replace temp table next_step_told as
select parent_id as opportunity_id, max(try_cast(payload ->> '$.CreatedDate' as timestamptz)) as "at"
from raw.salesforce_opportunity_field_history semi join touched on touched.id = parent_id
where source = getvariable('source') and (payload ->> '$.Field') = 'NextStep'
group by parent_id;
