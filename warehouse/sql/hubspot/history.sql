-- What the property histories say of the touched deals:
--   stage_told, close_told, next_step_told   for stage events and facts
--   state_told     what the deal was from an instant on; a value is wrapped, so that "nothing" can be told apart from "not said"
--   state_before   the same, of what it was before the instant at which something is told for the first time
-- each with who changed it and by what it came.
-- through_of: by what a change came, from HubSpot's word for its source. New words appear: where a user is named and the word is none of these, a
-- person did it in some tool of HubSpot's; else it is unknown.
create or replace temp macro through_of(kind, id, user_id) as
    case when kind in ('INTEGRATION', 'API', 'INTEGRATIONS_PLATFORM', 'INTEGRATIONS_SYNC', 'SALESFORCE', 'BET_CRM_CONNECTOR', 'PORTAL_OBJECT_SYNC')
             then if(list_contains(getvariable('own_ids'), id), 'plumbline', 'integration')
         when kind in ('AUTOMATION_PLATFORM', 'WORKFLOWS', 'AUTOMATION_JOURNEY', 'PRIMARY_AUTOMATION', 'CRM_PROCESSES_PLATFORM', 'SEQUENCES', 'BOT',
                       'PROSPECTING_AGENT', 'CUSTOMER_AGENT', 'BREEZE_AGENT', 'HELP_DESK_AI') then 'workflow'
         when kind in ('IMPORT', 'MIGRATION', 'EMAIL_INBOX_IMPORT') then 'import'
         when kind in ('MERGE_OBJECTS', 'MERGE_CONTACTS', 'MERGE_COMPANIES', 'MERGE_REVERT_OBJECTS') then 'merge'
         when kind in ('CALCULATED', 'DEFAULT', 'PROPERTY_DEFAULT_VALUE', 'PROPERTY_SETTINGS', 'PIPELINE_SETTINGS', 'SETTINGS', 'INTERNAL_PROCESSING',
                       'RECYCLING_BIN', 'DELETE_OBJECTS', 'RESTORE_OBJECTS', 'CENTRAL_EXCHANGE_RATES', 'DATA_ENRICHMENT', 'COMPANY_INSIGHTS',
                       'WAL_INCREMENTAL') then 'crm'
         when list_contains(getvariable('integration_ids'), user_id) then 'integration'
         when user_id is not null or kind in ('CRM_UI', 'CRM_UI_BULK_ACTION', 'BATCH_UPDATE', 'DEALS', 'MOBILE_IOS', 'MOBILE_ANDROID', 'SALES',
                                              'SIDEKICK', 'WORK_UI') then 'person' end;

-- Values of one instant come newest first, so that the last one has the number 0; seq puts the oldest first.
create or replace temp table told as
with entry as (
    select parent_id as opportunity_id, modified_at as "at",
           concat(epoch_ms(modified_at), lpad((999 - coalesce(try_cast(split_part(id, '|', 4) as integer), 0))::varchar, 3, '0')) as seq,
           payload ->> ['$.property', '$.value', '$.sourceType', '$.sourceId', '$.updatedByUserId'] as parts
    from raw.hubspot_deal_history semi join touched on touched.id = parent_id
    where source = getvariable('source')
),
sourced as (
    select *, coalesce(nullif(parts[5], ''), nullif(regexp_extract(parts[4], '^userId:([0-9]+)$', 1), '')) as user_id from entry
)
select s.opportunity_id, s."at", s.seq, s.parts[1] as property, s.parts[2] as value, coalesce(c.owner_id, 'userId:' || s.user_id) as changed_by,
       through_of(upper(s.parts[3]), s.parts[4], s.user_id) as changed_through
from sourced s
left join changer c using (user_id);

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

-- Into another pipeline a deal goes with another stage, which HubSpot writes down within the same second: that is one move.
update told set "at" = m.stage_at
from (
    select p.opportunity_id, p.seq, arg_min(s."at", (abs(epoch_ms(s."at") - epoch_ms(p."at")), s."at")) as stage_at
    from told p
    join told s using (opportunity_id)
    where p.property = 'pipeline' and s.property = 'dealstage' and s."at" between p."at" - interval 1 second and p."at" + interval 1 second
    group by p.opportunity_id, p.seq
) m
where told.property = 'pipeline' and told.opportunity_id = m.opportunity_id and told.seq = m.seq and told."at" <> m.stage_at;

create or replace temp table stage_told as
select opportunity_id, "at", seq, value as crm_stage, changed_by, changed_through from told where property = 'dealstage' and value <> '';

create or replace temp table close_told as
select opportunity_id, "at", seq, day_of(value) as close_date
from told
where property = 'closedate' and day_of(value) is not null;

create or replace temp table next_step_told as
with steps as (
    select opportunity_id, "at", value, lag(value) over (partition by opportunity_id order by "at", seq) as previous
    from told
    where property = 'hs_next_step'
)
select opportunity_id, max("at") as "at" from steps where nullif(value, '') is distinct from nullif(previous, '') group by opportunity_id;

create or replace temp macro said(attribute, name, value) as if(attribute = name, {'v': value}, NULL);

create or replace temp table state_told as
with stage_probability as (
    select crm_stage, any_value(probability) as probability from pipeline_stage where probability is not null group by crm_stage
)
select t.opportunity_id, t."at", 1 as rank, t.property, t.seq || t.property as seq, t.changed_by, t.changed_through,
       said(property, 'dealstage', nullif(value, '')) as crm_stage,
       -- No history of its own: it is that of the stage, unless somebody says otherwise, which the record then shows.
       if(s.crm_stage is null, NULL, {'v': s.probability}) as probability,
       said(property, 'amount', money_of(value)) as amount,
       said(property, 'deal_currency_code', coalesce(nullif(value, ''), getvariable('org_currency'))) as currency,
       said(property, 'closedate', day_of(value)) as close_date, said(property, 'hubspot_owner_id', nullif(value, '')) as owner_id,
       said(property, 'hs_next_step', nullif(value, '')) as next_step,
       said(property, 'hs_manual_forecast_category', category_of(value)) as forecast_category,
       said(property, 'pipeline', coalesce(p.pipeline, nullif(value, ''), 'default')) as pipeline
from told t
left join core.pipeline p on p.source = getvariable('source') and p.pipeline_id = t.value and t.property = 'pipeline'
left join stage_probability s on s.crm_stage = t.value and t.property = 'dealstage'
where property in ('dealstage', 'pipeline', 'amount', 'deal_currency_code', 'closedate', 'hubspot_owner_id', 'hs_next_step',
                   'hs_manual_forecast_category');

-- What came with the deal, it had from the start. What was set later had been empty before, but for a stage and a pipeline, which every deal
-- has, and but for what the portal has forgotten: it keeps about twenty values of a property. What was before these is unknown.
create or replace temp table state_before as
with first_value as (
    select s.property, s.opportunity_id, count(*) as entries, arg_min(s, (s."at", s.seq)) as state
    from state_told s
    group by s.property, s.opportunity_id
),
kept as (
    select f.opportunity_id, f.state."at" as "at", f.state, f.state."at" <= d.created_at + interval 1 minute as is_first,
           is_first or f.property in ('dealstage', 'pipeline') and f.entries < 20 as is_known, f.entries
    from first_value f
    join deal d using (opportunity_id)
)
select opportunity_id, "at", 0 as rank, state.seq, is_first, state.changed_by, state.changed_through,
       if(is_known or state.crm_stage is null, state.crm_stage, {'v': NULL::varchar}) as crm_stage,
       if(is_known or state.pipeline is null, state.pipeline, {'v': NULL::varchar}) as pipeline,
       if(is_known or state.crm_stage is null, state.probability, {'v': NULL::decimal(7, 6)}) as probability,
       if(is_known or state.amount is null, state.amount, {'v': NULL::decimal(18, 2)}) as amount,
       -- A deal that names no currency is in the portal's own.
       if(is_known or state.currency is null, state.currency, {'v': if(entries < 20, getvariable('org_currency'), NULL)}) as currency,
       if(is_known or state.close_date is null, state.close_date, {'v': NULL::date}) as close_date,
       if(is_known or state.owner_id is null, state.owner_id, {'v': NULL::varchar}) as owner_id,
       if(is_known or state.next_step is null, state.next_step, {'v': NULL::varchar}) as next_step,
       if(is_known or state.forecast_category is null, state.forecast_category, {'v': NULL::varchar}) as forecast_category
from kept;
