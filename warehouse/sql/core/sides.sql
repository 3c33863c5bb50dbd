-- sides: each deal that the CRM lists or that is live here, the values of both beside each other.
-- told names what the listing told: a field that the CRM hides says nothing, so it is taken for what is here.
create or replace temp table sides as
with here as (
    select * from core.opportunity where source = getvariable('source')
)
select coalesce(c.id, h.opportunity_id) as opportunity_id,
       c.id is not null as in_crm, h.opportunity_id is not null as is_known, coalesce(not h.is_deleted, false) as is_live,
       if(list_contains(getvariable('told'), 'stamp'), c.modified_at, h.crm_modified_at) as crm_stamp, h.crm_modified_at as stamp,
       if(list_contains(getvariable('told'), 'stage'), c.crm_stage, h.crm_stage) as crm_stage, h.crm_stage as stage,
       if(list_contains(getvariable('told'), 'pipeline'), c.pipeline, coalesce(h.pipeline, c.pipeline)) as crm_pipeline, h.pipeline,
       if(list_contains(getvariable('told'), 'pipeline'), c.pipeline_id, h.pipeline_id) as crm_pipeline_id, h.pipeline_id,
       if(list_contains(getvariable('told'), 'amount'), c.amount, h.amount) as crm_amount, h.amount,
       if(list_contains(getvariable('told'), 'currency'), c.currency, coalesce(h.currency, c.currency)) as crm_currency, h.currency,
       if(list_contains(getvariable('told'), 'closed'), c.is_closed, h.is_closed) as crm_closed, h.is_closed as closed
from sweep c
full join here h on h.opportunity_id = c.id
where c.id is not null or not h.is_deleted;
