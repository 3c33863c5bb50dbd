-- new_version: the versions of `version_state` with what follows from them: closed flags, canonical stage, amount in the home currency.
-- In the stage in which the deal is now, its own flags say whether it is closed; in other stages, the flags of the stage do.
create or replace temp table new_version as
with stage_of as (
    from core.stage_map where source = getvariable('source')
),
-- HubSpot's stage ids are unique over all pipelines, Salesforce's stages are shared by all: a stage of a pipeline that is gone is known.
stage_anywhere as (
    select crm_stage, min(stage) as stage, bool_or(is_closed) as is_closed, bool_or(is_won) as is_won from stage_of group by crm_stage
),
money as (
    select distinct currency, coalesce(close_date, getvariable('business_date')) as day
    from version_state
    where currency <> getvariable('home_currency') and amount is not null
),
rate_of_day as (
    select m.currency, m.day, r.rate
    from money m
    join core.exchange_rate r on r.currency = m.currency and m.day >= r.valid_from and (r.valid_to is null or m.day < r.valid_to)
    qualify row_number() over (partition by m.currency, m.day order by r.source <> getvariable('source'), r.source, r.valid_from desc) = 1
),
flagged as (
    select v.*, p.stage as present_stage, p.amount_home as present_home, p.fx_rate as present_rate, p.currency as present_currency,
           coalesce(m.stage, a.stage) as mapped_stage,
           (v.crm_stage, v.pipeline) is not distinct from (p.crm_stage, p.pipeline) as is_present_stage,
           if(is_present_stage, p.is_closed, coalesce(m.is_closed, a.is_closed, false)) as is_closed,
           if(is_present_stage, p.is_won, coalesce(m.is_closed, a.is_closed, false) and coalesce(m.is_won, a.is_won, false)) as is_won
    from version_state v
    join present p using (opportunity_key)
    left join stage_of m on m.pipeline = v.pipeline and m.crm_stage = v.crm_stage
    left join stage_anywhere a on a.crm_stage = v.crm_stage
)
select f.opportunity_key, f.valid_from, f.valid_to, f.origin,
       case when is_present_stage then present_stage when f.is_won then 'closed_won' when f.is_closed then 'closed_lost'
            when mapped_stage in ('closed_won', 'closed_lost') then 'unmapped' else coalesce(mapped_stage, 'unmapped') end as stage,
       f.crm_stage, f.pipeline, f.amount, f.currency,
       case when f.valid_to is null then present_home
            when f.currency = getvariable('home_currency') then f.amount
            -- Converted by HubSpot itself: the rate that it uses for this deal.
            when getvariable('crm') = 'hubspot' and f.currency = present_currency and present_rate is not null
                then (f.amount * present_rate)::decimal(18, 2)
            else (f.amount * r.rate)::decimal(18, 2) end as amount_home,
       f.close_date, f.owner_id, f.probability, f.forecast_category, f.next_step, f.is_closed, f.is_won, f.is_deleted, f.changed_by,
       f.changed_through
from flagged f
left join rate_of_day r on r.currency = f.currency and r.day = coalesce(f.close_date, getvariable('business_date'));
