-- instant_of: a HubSpot datetime, which is ISO 8601 in answers of today and milliseconds since 1970 in older ones.
create or replace temp macro instant_of(value) as
    if(regexp_full_match(value, '-?[0-9]{9,14}'), to_timestamp(try_cast(value as bigint) / 1000.0), try_cast(value as timestamptz));

-- day_of: the day that people see. What is stored is an instant, to be read in the portal's time zone, unless it is a day already.
create or replace temp macro day_of(value) as
    coalesce(if(length(value) <= 10, try_strptime(value, '%Y-%m-%d')::date, NULL), (instant_of(value) at time zone getvariable('timezone'))::date);

-- category_of: a forecast category in one spelling, from the value's name or its label.
create or replace temp macro category_word(value) as nullif(lower(regexp_replace(trim(value), '[^A-Za-z]+', '_', 'g')), '');
create or replace temp macro category_of(value) as
    case when category_word(value) in ('omit', 'omitted', 'not_forecasted') then 'omitted'
         when category_word(value) in ('commit', 'forecast') then 'commit'
         when category_word(value) in ('closed', 'closed_won') then 'closed'
         when category_word(value) in ('best_case', 'bestcase') then 'best_case'
         when category_word(value) in ('most_likely', 'mostlikely') then 'most_likely'
         else category_word(value) end;

-- fields: the touched deals with the properties that have a column of their own, as text.
create or replace temp table fields as
select id, payload, modified_at, is_deleted as gone, deleted_at as gone_at, landed_at,
       unnest(json_transform(payload, '{
           "dealname": "VARCHAR", "amount": "VARCHAR", "amount_in_home_currency": "VARCHAR", "deal_currency_code": "VARCHAR",
           "closedate": "VARCHAR", "createdate": "VARCHAR", "hs_createdate": "VARCHAR", "dealstage": "VARCHAR", "pipeline": "VARCHAR",
           "dealtype": "VARCHAR", "description": "VARCHAR", "hubspot_owner_id": "VARCHAR", "hs_next_step": "VARCHAR",
           "hs_deal_stage_probability": "VARCHAR", "hs_manual_forecast_category": "VARCHAR", "hs_is_closed": "VARCHAR",
           "hs_is_closed_won": "VARCHAR", "hs_v2_date_entered_current_stage": "VARCHAR", "notes_last_updated": "VARCHAR",
           "notes_next_activity_date": "VARCHAR", "num_associated_contacts": "VARCHAR", "hs_num_of_associated_line_items": "VARCHAR",
           "closed_lost_reason": "VARCHAR",
           "plumbline_status": "VARCHAR", "plumbline_score": "VARCHAR", "plumbline_top_issue": "VARCHAR", "plumbline_issues": "VARCHAR",
           "plumbline_flagged_since": "VARCHAR", "plumbline_snooze_until": "VARCHAR"}'))
from raw.hubspot_deal semi join touched using (id)
where source = getvariable('source');

create or replace temp table cast_failure as
select field, failures
from (
    select count(*) filter (amount <> '' and try_cast(amount as decimal(18, 2)) is null) as amount,
           count(*) filter (amount_in_home_currency <> '' and try_cast(amount_in_home_currency as decimal(18, 2)) is null) as amount_in_home_currency,
           count(*) filter (closedate <> '' and instant_of(closedate) is null) as closedate,
           count(*) filter (createdate <> '' and instant_of(createdate) is null) as createdate,
           count(*) filter (hs_deal_stage_probability <> '' and try_cast(hs_deal_stage_probability as decimal(18, 6)) is null)
               as hs_deal_stage_probability,
           count(*) filter (notes_last_updated <> '' and instant_of(notes_last_updated) is null) as notes_last_updated,
           count(*) filter (num_associated_contacts <> '' and try_cast(num_associated_contacts as integer) is null) as num_associated_contacts
    from fields
) unpivot (failures for field in (*))
where failures > 0;

create or replace temp table pipeline_stage as
with pipelines as (
    select id as pipeline_id, payload ->> '$.label' as pipeline, coalesce(payload -> '$.stages', '[]')::json[] as stages
    from raw.hubspot_pipeline
    where source = getvariable('source')
),
stages as (
    select pipeline_id, pipeline, unnest(stages) as stage from pipelines
)
select pipeline_id, pipeline, stage ->> '$.id' as crm_stage, try_cast(stage ->> '$.metadata.probability' as decimal(7, 6)) as probability,
       coalesce(try_cast(stage ->> '$.metadata.isClosed' as boolean),
                try_cast(stage ->> '$.metadata.probability' as decimal(7, 6)) in (0, 1)) as is_closed
from stages;

create or replace temp table account_survivor as
with recursive step as (
    select account_id, merged_into, 1 as steps from core.account where source = getvariable('source') and merged_into is not null
    union all
    select s.account_id, a.merged_into, s.steps + 1
    from step s join core.account a on a.account_key = s.merged_into
    where a.merged_into is not null and s.steps < 20
)
select account_id, arg_max(split_part(merged_into, ':', 2), steps) as survivor from step group by account_id;

create or replace temp table deal as
with pipeline as (
    select id, payload ->> '$.label' as label from raw.hubspot_pipeline where source = getvariable('source')
),
association as (
    select id, string_split(nullif(payload ->> '$.companies', ''), ';')[1] as company,
           len(coalesce(string_split(nullif(payload ->> '$.contacts', ''), ';'), [])) as contacts
    from raw.hubspot_deal_association semi join touched using (id)
    where source = getvariable('source') and not is_deleted
),
typed as (
    select f.*, try_cast(hs_is_closed as boolean) as closed, try_cast(hs_is_closed_won as boolean) as won,
           instant_of(notes_last_updated) as last_activity
    from fields f
)
select getvariable('source') || ':' || t.id as opportunity_key, t.id as opportunity_id, t.dealname as name,
       coalesce(s.survivor, a.company) as account_id, nullif(t.hubspot_owner_id, '') as owner_id,
       coalesce(p.label, t.pipeline, 'default') as pipeline, t.pipeline as pipeline_id, t.dealtype as type, t.dealstage as crm_stage,
       -- The pipeline's metadata says so too, in words: closed with probability 1 is won.
       coalesce(t.closed, g.is_closed) as is_closed, coalesce(t.won, g.is_closed and g.probability = 1) as is_won,
       t.gone or m.survivor_id is not null as is_deleted, coalesce(t.gone_at, m.merged_at) as deleted_at,
       getvariable('source') || ':' || m.survivor_id as merged_into,
       try_cast(t.amount as decimal(18, 2)) as amount,
       coalesce(nullif(t.deal_currency_code, ''), getvariable('org_currency')) as currency,
       if(getvariable('org_currency') = getvariable('home_currency'), try_cast(t.amount_in_home_currency as decimal(18, 2)), NULL)
           as amount_home_told,
       -- Delivered as the text of a 32-bit float: 0.4 arrives as 0.4000000059604644775390625.
       coalesce(try_cast(t.hs_deal_stage_probability as decimal(18, 6)), g.probability)::decimal(7, 6) as probability,
       category_of(t.hs_manual_forecast_category) as forecast_category,
       -- createdate may be edited by people; hs_createdate is the system's.
       coalesce(instant_of(t.hs_createdate), instant_of(t.createdate)) as created_at,
       day_of(t.closedate) as close_date, nullif(t.closedate, '') as close_date_told,
       instant_of(t.hs_v2_date_entered_current_stage) as crm_stage_entered_at,
       t.description, nullif(t.hs_next_step, '') as next_step,
       -- A last activity in the future is one that was planned: until it is past, only the reading of the record is certain.
       if(t.last_activity <= getvariable('now'), t.last_activity, if(t.last_activity is null, NULL, t.landed_at)) as last_activity_told,
       if(t.last_activity > getvariable('now'), t.last_activity, NULL) as told_recheck_at,
       instant_of(t.notes_next_activity_date) as next_activity_told,
       coalesce(a.contacts, try_cast(t.num_associated_contacts as integer))::integer as contact_count,
       -- HubSpot leaves the number empty on deals that never had one.
       coalesce(try_cast(t.hs_num_of_associated_line_items as double) > 0, if(getvariable('line_items_readable'), false, NULL)) as has_line_items,
       t.closed_lost_reason as lost_reason_told, t.modified_at as crm_modified_at, t.landed_at, t.payload,
       t.plumbline_status as flag_status, t.plumbline_score as flag_score, t.plumbline_top_issue as flag_top_issue,
       t.plumbline_issues as flag_issues, t.plumbline_flagged_since as flag_flagged_since, t.plumbline_snooze_until as flag_snooze_until
from typed t
left join association a on a.id = t.id
left join account_survivor s on s.account_id = a.company
left join pipeline p on p.id = t.pipeline
left join pipeline_stage g on g.pipeline_id = t.pipeline and g.crm_stage = t.dealstage
left join deal_survivor m on m.id = t.id;
