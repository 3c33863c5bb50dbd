-- total: live deals and their amounts by pipeline, stage and currency, the CRM's beside the warehouse's. Amounts of one currency add up exactly.
create or replace temp table total as
with crm as (
    select crm_pipeline as pipeline, crm_stage, crm_currency as currency, count(*) as deals, sum(crm_amount) as amount
    from sides where in_crm group by all
),
here as (
    select pipeline, stage as crm_stage, currency, count(*) as deals, sum(amount) as amount
    from sides where is_live group by all
)
select coalesce(c.pipeline, h.pipeline) as pipeline, coalesce(c.crm_stage, h.crm_stage) as crm_stage, coalesce(c.currency, h.currency) as currency,
       coalesce(c.deals, 0) as crm_deals, coalesce(h.deals, 0) as warehouse_deals, c.amount as crm_amount, h.amount as warehouse_amount
from crm c
full join here h on c.pipeline is not distinct from h.pipeline and c.crm_stage is not distinct from h.crm_stage
                and c.currency is not distinct from h.currency;
