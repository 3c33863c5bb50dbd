-- What the property histories say of the touched deals:
--   stage_told, close_told, next_step_told   for stage events and facts
--   state_told     what the deal was from an instant on; a value is wrapped, so that "nothing" can be told apart from "not said"
--   state_before   the same, of what it was before the instant at which something is told for the first time
create or replace temp table told as
select parent_id as opportunity_id, modified_at as "at", payload ->> '$.property' as property, payload ->> '$.value' as value
from raw.hubspot_deal_history semi join touched on touched.id = parent_id
where source = getvariable('source');

insert into unparsed
select distinct 'deals.history' as object, t.opportunity_id as record_id, t.property,
       case when t."at" is null then 'opportunity_version.valid_from' when property = 'closedate' then 'opportunity_version.close_date'
            else 'opportunity_version.amount' end as column_name,
       if(t."at" is null, 'instant', if(property = 'closedate', 'date', 'number')) as expected
from told t
join deal d using (opportunity_id)
where not d.is_deleted
  and (t."at" is null or property = 'amount' and unread(value, money_of(value)) or property = 'closedate' and unread(value, day_of(value)));

delete from told where "at" is null;

create or replace temp table stage_told as
select opportunity_id, "at", '' as seq, value as crm_stage from told where property = 'dealstage' and value <> '';

create or replace temp table close_told as
select opportunity_id, "at", '' as seq, day_of(value) as close_date
from told
where property = 'closedate' and day_of(value) is not null;

create or replace temp table next_step_told as
with steps as (
    select opportunity_id, "at", value, lag(value) over (partition by opportunity_id order by "at") as previous
    from told
    where property = 'hs_next_step'
)
select opportunity_id, max("at") as "at" from steps where nullif(value, '') is distinct from nullif(previous, '') group by opportunity_id;

create or replace temp macro said(attribute, name, value) as if(attribute = name, {'v': value}, NULL);

create or replace temp table state_told as
with stage_probability as (
    select crm_stage, any_value(probability) as probability from pipeline_stage where probability is not null group by crm_stage
)
select t.opportunity_id, t."at", 1 as rank, t.property as seq, said(property, 'dealstage', nullif(value, '')) as crm_stage,
       -- No history of its own: it is that of the stage, unless somebody says otherwise, which the record then shows.
       if(s.crm_stage is null, NULL, {'v': s.probability}) as probability,
       said(property, 'amount', money_of(value)) as amount, NULL::struct(v varchar) as currency,
       said(property, 'closedate', day_of(value)) as close_date, said(property, 'hubspot_owner_id', nullif(value, '')) as owner_id,
       said(property, 'hs_next_step', nullif(value, '')) as next_step,
       said(property, 'hs_manual_forecast_category', category_of(value)) as forecast_category,
       said(property, 'pipeline', coalesce(p.pipeline, nullif(value, ''), 'default')) as pipeline
from told t
left join core.pipeline p on p.source = getvariable('source') and p.pipeline_id = t.value and t.property = 'pipeline'
left join stage_probability s on s.crm_stage = t.value and t.property = 'dealstage'
where property in ('dealstage', 'pipeline', 'amount', 'closedate', 'hubspot_owner_id', 'hs_next_step', 'hs_manual_forecast_category');

-- A deal has a stage and a pipeline from the start; anything else was empty before its first value, unless that came with the deal or the
-- portal has forgotten older ones: it keeps about twenty of a property.
create or replace temp table state_before as
with first_value as (
    select s.seq as property, s.opportunity_id, count(*) as entries, arg_min(s, s."at") as state
    from state_told s
    group by s.seq, s.opportunity_id
),
kept as (
    select f.opportunity_id, f.state."at" as "at", f.state,
           f.property in ('dealstage', 'pipeline') or f.entries >= 20 or f.state."at" <= d.created_at + interval 1 minute as is_known
    from first_value f
    join deal d using (opportunity_id)
)
select opportunity_id, "at", 0 as rank, state.crm_stage, state.pipeline, state.currency, state.probability,
       if(is_known or state.amount is null, state.amount, {'v': NULL::decimal(18, 2)}) as amount,
       if(is_known or state.close_date is null, state.close_date, {'v': NULL::date}) as close_date,
       if(is_known or state.owner_id is null, state.owner_id, {'v': NULL::varchar}) as owner_id,
       if(is_known or state.next_step is null, state.next_step, {'v': NULL::varchar}) as next_step,
       if(is_known or state.forecast_category is null, state.forecast_category, {'v': NULL::varchar}) as forecast_category
from kept;
