-- sweep: the live deals as they were landed, in the columns that are compared, each value as deal.sql would make it.
create or replace temp table sweep as
with fields as (
    select id, modified_at,
           unnest(json_transform(payload, '{
               "StageName": "VARCHAR", "RecordTypeId": "VARCHAR", "Amount": "VARCHAR", "CurrencyIsoCode": "VARCHAR", "IsClosed": "VARCHAR"}'))
    from landed
    where not is_deleted
),
pipelines as (
    select id, payload ->> '$.Name' as name from raw.salesforce_record_type where source = getvariable('source')
)
select f.id, f.modified_at, f.StageName as crm_stage, f.RecordTypeId as pipeline_id, coalesce(p.name, 'default') as pipeline,
       try_cast(f.Amount as decimal(18, 2)) as amount, coalesce(f.CurrencyIsoCode, getvariable('org_currency')) as currency,
       coalesce(if(s.modified_at > f.modified_at, s.is_closed, NULL), try_cast(f.IsClosed as boolean)) as is_closed
from fields f
left join stage_flag s on s.crm_stage = f.StageName
left join pipelines p on p.id = f.RecordTypeId;
