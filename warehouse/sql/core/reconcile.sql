-- difference: a row for each deal of `sides` that one side has and the other has not, and for each field in which both differ.
-- What a listing does not show is gone only when the listing is whole.
create or replace temp table difference as
with judged as (
    select *,
           case when in_crm and not is_known then 'missing'
                when in_crm and not is_live then 'revived'
                when in_crm then 'stale'
                when getvariable('whole') then 'gone' end as kind
    from sides
),
compared as (
    select *,
           [
               {'field': 'stamp', 'crm_value': crm_stamp::varchar, 'warehouse_value': stamp::varchar},
               {'field': 'stage', 'crm_value': crm_stage, 'warehouse_value': stage},
               {'field': 'pipeline', 'crm_value': crm_pipeline, 'warehouse_value': pipeline},
               {'field': 'pipeline_id', 'crm_value': crm_pipeline_id, 'warehouse_value': pipeline_id},
               {'field': 'amount', 'crm_value': crm_amount::varchar, 'warehouse_value': amount::varchar},
               {'field': 'currency', 'crm_value': crm_currency, 'warehouse_value': currency},
               {'field': 'closed', 'crm_value': crm_closed::varchar, 'warehouse_value': closed::varchar}
           ] as fields
    from judged
    where kind is not null
),
told as (
    select * exclude (fields),
           unnest(case kind when 'stale' then [f for f in fields if f.crm_value is distinct from f.warehouse_value]
                            else [{'field': NULL::varchar, 'crm_value': NULL::varchar, 'warehouse_value': NULL::varchar}] end) as differs
    from compared
)
select kind, opportunity_id, in_crm, is_live,
       if(in_crm, crm_pipeline, pipeline) as pipeline, if(in_crm, crm_stage, stage) as crm_stage, if(in_crm, crm_currency, currency) as currency,
       differs.field, differs.crm_value, differs.warehouse_value,
       if(in_crm, crm_amount, NULL) as crm_amount, if(is_live, amount, NULL) as warehouse_amount,
       crm_stamp > getvariable('watermark') as pending
from told;
