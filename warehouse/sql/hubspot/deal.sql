-- day_of: the day that people see. What is stored is an instant, to be read in the portal's time zone, unless it is a day already.
create or replace temp macro day_of(value) as
    if(length(value) <= 10 and is_instant_text(value), try_cast(value as date), (instant_of(value) at time zone getvariable('timezone'))::date);

-- category_of: a forecast category in one spelling, from the value's name or its label.
create or replace temp macro category_word(value) as nullif(lower(regexp_replace(trim(value), '[^A-Za-z]+', '_', 'g')), '');
create or replace temp macro category_of(value) as
    case when category_word(value) in ('omit', 'omitted', 'not_forecasted') then 'omitted'
         when category_word(value) in ('commit', 'forecast') then 'commit'
         when category_word(value) in ('closed', 'closed_won') then 'closed'
         when category_word(value) in ('best_case', 'bestcase') then 'best_case'
         when category_word(value) in ('most_likely', 'mostlikely') then 'most_likely'
         else category_word(value) end;

-- fields: the touched deals with the properties that have a column of their own, as text, and `read`: those that are more than text, as
-- what they are.
create or replace temp table fields as
with texts as (
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
    where source = getvariable('source')
)
select *, {
    'amount': money_of(amount), 'amount_in_home_currency': money_of(amount_in_home_currency),
    'closedate': day_of(closedate), 'createdate': instant_of(createdate), 'hs_createdate': instant_of(hs_createdate),
    'hs_deal_stage_probability': share_of(hs_deal_stage_probability),
    'hs_is_closed': truth_of(hs_is_closed), 'hs_is_closed_won': truth_of(hs_is_closed_won),
    'hs_v2_date_entered_current_stage': instant_of(hs_v2_date_entered_current_stage),
    'notes_last_updated': instant_of(notes_last_updated), 'notes_next_activity_date': instant_of(notes_next_activity_date),
    'num_associated_contacts': try_cast(num_associated_contacts as integer),
    'hs_num_of_associated_line_items': number_of(hs_num_of_associated_line_items),
    'plumbline_flagged_since': date_of(plumbline_flagged_since), 'plumbline_snooze_until': date_of(plumbline_snooze_until)
} as read
from texts;

-- unparsed: the values that say something and could not be read, by the columns that miss them.
create or replace temp table unparsed as
with named as (
    select id, unnest([unread_one for unread_one in [
        if(unread(amount, read.amount), 'amount', NULL),
        if(unread(amount_in_home_currency, read.amount_in_home_currency), 'amount_in_home_currency', NULL),
        if(unread(closedate, read.closedate), 'closedate', NULL),
        if(unread(createdate, read.createdate), 'createdate', NULL),
        if(unread(hs_createdate, read.hs_createdate), 'hs_createdate', NULL),
        if(unread(hs_deal_stage_probability, read.hs_deal_stage_probability), 'hs_deal_stage_probability', NULL),
        if(unread(hs_is_closed, read.hs_is_closed), 'hs_is_closed', NULL),
        if(unread(hs_is_closed_won, read.hs_is_closed_won), 'hs_is_closed_won', NULL),
        if(unread(hs_v2_date_entered_current_stage, read.hs_v2_date_entered_current_stage), 'hs_v2_date_entered_current_stage', NULL),
        if(unread(notes_last_updated, read.notes_last_updated), 'notes_last_updated', NULL),
        if(unread(notes_next_activity_date, read.notes_next_activity_date), 'notes_next_activity_date', NULL),
        if(unread(num_associated_contacts, read.num_associated_contacts), 'num_associated_contacts', NULL),
        if(unread(hs_num_of_associated_line_items, read.hs_num_of_associated_line_items), 'hs_num_of_associated_line_items', NULL),
        if(unread(plumbline_flagged_since, read.plumbline_flagged_since), 'plumbline_flagged_since', NULL),
        if(unread(plumbline_snooze_until, read.plumbline_snooze_until), 'plumbline_snooze_until', NULL)
    ] if unread_one is not null]) as property
    from fields
    where not gone
)
select 'deals' as object, n.id as record_id, n.property, c.column_name, c.expected
from named n
join (values
    ('amount', 'amount', 'number'), ('amount_in_home_currency', 'amount_home', 'number'), ('closedate', 'close_date', 'date'),
    ('createdate', 'created_at', 'instant'), ('hs_createdate', 'created_at', 'instant'), ('hs_deal_stage_probability', 'probability', 'share'),
    ('hs_is_closed', 'is_closed', 'boolean'), ('hs_is_closed_won', 'is_won', 'boolean'),
    ('hs_v2_date_entered_current_stage', 'stage_entered_at', 'instant'), ('notes_last_updated', 'last_activity_at', 'instant'),
    ('notes_next_activity_date', 'next_activity_at', 'instant'), ('num_associated_contacts', 'contact_count', 'number'),
    ('hs_num_of_associated_line_items', 'has_line_items', 'number'), ('plumbline_flagged_since', 'crm_flag.flagged_since', 'date'),
    ('plumbline_snooze_until', 'crm_flag.snooze_until', 'date')
) c(property, column_name, expected) on c.property = n.property;

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

-- A property that was cleared is '' in HubSpot and NULL here, as in Salesforce.
create or replace temp table deal as
with pipeline as (
    select id, payload ->> '$.label' as label from raw.hubspot_pipeline where source = getvariable('source')
),
association as (
    select id, string_split(nullif(payload ->> '$.companies', ''), ';')[1] as company,
           len(coalesce(string_split(nullif(payload ->> '$.contacts', ''), ';'), [])) as contacts
    from raw.hubspot_deal_association semi join touched using (id)
    where source = getvariable('source') and not is_deleted
)
select getvariable('source') || ':' || t.id as opportunity_key, t.id as opportunity_id, nullif(t.dealname, '') as name,
       coalesce(s.survivor, a.company) as account_id, nullif(t.hubspot_owner_id, '') as owner_id,
       coalesce(p.label, nullif(t.pipeline, ''), 'default') as pipeline, nullif(t.pipeline, '') as pipeline_id, nullif(t.dealtype, '') as type,
       nullif(t.dealstage, '') as crm_stage,
       -- The pipeline's metadata says so too, in words: closed with probability 1 is won.
       coalesce(t.read.hs_is_closed, g.is_closed) as is_closed, coalesce(t.read.hs_is_closed_won, g.is_closed and g.probability = 1) as is_won,
       t.gone or m.survivor_id is not null as is_deleted, coalesce(t.gone_at, m.merged_at) as deleted_at,
       getvariable('source') || ':' || m.survivor_id as merged_into,
       t.read.amount,
       coalesce(nullif(t.deal_currency_code, ''), getvariable('org_currency')) as currency,
       if(getvariable('org_currency') = getvariable('home_currency'), t.read.amount_in_home_currency, NULL) as amount_home_told,
       coalesce(t.read.hs_deal_stage_probability, g.probability) as probability,
       category_of(t.hs_manual_forecast_category) as forecast_category,
       -- createdate may be edited by people; hs_createdate is the system's.
       coalesce(t.read.hs_createdate, t.read.createdate) as created_at,
       t.read.closedate as close_date, nullif(t.closedate, '') as close_date_told,
       t.read.hs_v2_date_entered_current_stage as crm_stage_entered_at,
       nullif(t.description, '') as description, nullif(t.hs_next_step, '') as next_step,
       -- A last activity in the future is one that was planned: until it is past, only the reading of the record is certain.
       if(t.read.notes_last_updated > getvariable('now'), t.landed_at, t.read.notes_last_updated) as last_activity_told,
       -- The next activity passes without a stamp on the deal. One of today counts until the day is over.
       if(n.day >= getvariable('business_date'), t.read.notes_next_activity_date, NULL) as next_activity_told,
       least(if(t.read.notes_last_updated > getvariable('now'), t.read.notes_last_updated, NULL),
             if(n.day >= getvariable('business_date'), timezone(getvariable('timezone'), (n.day + 1)::timestamp), NULL)) as told_recheck_at,
       coalesce(a.contacts, t.read.num_associated_contacts)::integer as contact_count,
       -- HubSpot leaves the number empty on deals that never had one.
       coalesce(t.read.hs_num_of_associated_line_items > 0, if(getvariable('line_items_readable'), false, NULL)) as has_line_items,
       nullif(t.closed_lost_reason, '') as lost_reason_told, t.modified_at as crm_modified_at, t.landed_at, t.payload,
       t.plumbline_status as flag_status, t.plumbline_score as flag_score, t.plumbline_top_issue as flag_top_issue,
       t.plumbline_issues as flag_issues, coalesce(t.read.plumbline_flagged_since::varchar, t.plumbline_flagged_since) as flag_flagged_since,
       coalesce(t.read.plumbline_snooze_until::varchar, t.plumbline_snooze_until) as flag_snooze_until
from fields t
cross join lateral (select (t.read.notes_next_activity_date at time zone getvariable('timezone'))::date as day) n
left join association a on a.id = t.id
left join account_survivor s on s.account_id = a.company
left join pipeline p on p.id = t.pipeline
left join pipeline_stage g on g.pipeline_id = t.pipeline and g.crm_stage = t.dealstage
left join deal_survivor m on m.id = t.id;
