-- sweep: the live deals as they were landed, in the columns that are compared, each value as deal.sql would make it.
create or replace temp table sweep as
with fields as (
    select id, modified_at,
           unnest(json_transform(payload, '{
               "dealstage": "VARCHAR", "pipeline": "VARCHAR", "amount": "VARCHAR", "deal_currency_code": "VARCHAR"}'))
    from landed
    where not is_deleted
),
pipelines as (
    select id, payload ->> '$.label' as label from raw.hubspot_pipeline where source = getvariable('source')
)
select f.id, f.modified_at, f.dealstage as crm_stage, f.pipeline as pipeline_id, coalesce(p.label, f.pipeline, 'default') as pipeline,
       money_of(f.amount) as amount, coalesce(nullif(f.deal_currency_code, ''), getvariable('org_currency')) as currency,
       NULL::boolean as is_closed
from fields f
left join pipelines p on p.id = f.pipeline;
