-- pipeline_definition: the record types of opportunities, each with its sales process.
create or replace temp table pipeline_definition as
with record_type as (
    select id, is_deleted, unnest(json_transform(payload, '{"Name": "VARCHAR", "SobjectType": "VARCHAR", "IsActive": "VARCHAR",
        "BusinessProcessId": "VARCHAR"}'))
    from raw.salesforce_record_type
    where source = getvariable('source')
),
process as (
    select id, payload ->> '$.Name' as name from raw.salesforce_business_process where source = getvariable('source')
)
select r.Name as pipeline, r.id as pipeline_id, r.Name as label, p.name as sales_process,
       not r.is_deleted and coalesce(r.IsActive = 'true', true) as is_active
from record_type r
left join process p on p.id = r.BusinessProcessId
where r.Name is not null and coalesce(r.SobjectType, 'Opportunity') = 'Opportunity';
