-- category_of: a forecast category in one spelling. ForecastCategory spells Commit as Forecast and Best Case as BestCase; people read
-- ForecastCategoryName.
create or replace temp macro category_of(value) as
    case lower(regexp_replace(trim(value), '[^A-Za-z]+', '_', 'g'))
        when 'forecast' then 'commit' when 'bestcase' then 'best_case' when 'mostlikely' then 'most_likely'
        else lower(regexp_replace(trim(value), '[^A-Za-z]+', '_', 'g')) end;

create or replace temp macro day_of(value) as try_cast(value as date);

-- fields: the touched opportunities with the fields that have a column of their own, as text.
create or replace temp table fields as
select id, payload, modified_at, is_deleted as gone, deleted_at as gone_at, landed_at,
       unnest(json_transform(payload, '{
           "Name": "VARCHAR", "AccountId": "VARCHAR", "OwnerId": "VARCHAR", "RecordTypeId": "VARCHAR", "Type": "VARCHAR",
           "StageName": "VARCHAR", "IsClosed": "VARCHAR", "IsWon": "VARCHAR", "Amount": "VARCHAR", "CurrencyIsoCode": "VARCHAR",
           "Probability": "VARCHAR", "ForecastCategoryName": "VARCHAR", "ForecastCategory": "VARCHAR", "CreatedDate": "VARCHAR",
           "CloseDate": "VARCHAR", "LastStageChangeDate": "VARCHAR", "Description": "VARCHAR", "NextStep": "VARCHAR",
           "LastActivityDate": "VARCHAR", "HasOpportunityLineItem": "VARCHAR", "Plumbline_Status__c": "VARCHAR", "Plumbline_Score__c": "VARCHAR",
           "Plumbline_Top_Issue__c": "VARCHAR", "Plumbline_Issues__c": "VARCHAR", "Plumbline_Flagged_Since__c": "VARCHAR",
           "Plumbline_Snooze_Until__c": "VARCHAR"}'))
from raw.salesforce_opportunity semi join touched using (id)
where source = getvariable('source');

-- unparsed: the values that say something and could not be read, by the columns that miss them.
create or replace temp table unparsed as
with named as (
    select id, unnest([unread_one for unread_one in [
        if(unread(Amount, try_cast(Amount as decimal(18, 2))), 'Amount', NULL),
        if(unread(Probability, try_cast(try_cast(Probability as decimal(18, 6)) / 100 as decimal(7, 6))), 'Probability', NULL),
        if(unread(CloseDate, day_of(CloseDate)), 'CloseDate', NULL),
        if(unread(CreatedDate, try_cast(CreatedDate as timestamptz)), 'CreatedDate', NULL),
        if(unread(LastStageChangeDate, try_cast(LastStageChangeDate as timestamptz)), 'LastStageChangeDate', NULL),
        if(unread(LastActivityDate, day_of(LastActivityDate)), 'LastActivityDate', NULL)
    ] if unread_one is not null]) as property
    from fields
    where not gone
)
select 'Opportunity' as object, n.id as record_id, n.property, c.column_name, c.expected
from named n
join (values
    ('Amount', 'amount', 'number'), ('Probability', 'probability', 'share'), ('CloseDate', 'close_date', 'date'),
    ('CreatedDate', 'created_at', 'instant'), ('LastStageChangeDate', 'stage_entered_at', 'instant'),
    ('LastActivityDate', 'last_activity_at', 'date')
) c(property, column_name, expected) on c.property = n.property;

-- Accounts that were merged, each with the one that stands for it in the end.
create or replace temp table account_survivor as
with recursive step as (
    select account_id, merged_into, 1 as steps from core.account where source = getvariable('source') and merged_into is not null
    union all
    select s.account_id, a.merged_into, s.steps + 1
    from step s join core.account a on a.account_key = s.merged_into
    where a.merged_into is not null and s.steps < 20
)
select account_id, arg_max(split_part(merged_into, ':', 2), steps) as survivor from step group by account_id;

create or replace temp table record_type as
select id, payload ->> '$.Name' as name from raw.salesforce_record_type where source = getvariable('source');

create or replace temp table deal as
with role_count as (
    select parent_id as id, count(distinct payload ->> '$.ContactId') as contacts
    from raw.salesforce_opportunity_contact_role semi join touched on touched.id = parent_id
    where source = getvariable('source') and not is_deleted
    group by parent_id
),
typed as (
    -- A stage that was changed after the record says more than the record does.
    select f.*, coalesce(if(s.modified_at > f.modified_at, s.is_closed, NULL), try_cast(f.IsClosed as boolean)) as closed,
           coalesce(if(s.modified_at > f.modified_at, s.is_won, NULL), try_cast(f.IsWon as boolean)) as won,
           try_cast(LastActivityDate as date) as last_activity_day
    from fields f
    left join stage_flag s on s.crm_stage = f.StageName
)
select getvariable('source') || ':' || t.id as opportunity_key, t.id as opportunity_id, t.Name as name,
       coalesce(s.survivor, t.AccountId) as account_id, t.OwnerId as owner_id,
       coalesce(r.name, 'default') as pipeline, t.RecordTypeId as pipeline_id, t.Type as type, t.StageName as crm_stage,
       t.closed as is_closed, t.won as is_won, t.gone as is_deleted, t.gone_at as deleted_at, NULL::varchar as merged_into,
       try_cast(t.Amount as decimal(18, 2)) as amount, coalesce(t.CurrencyIsoCode, getvariable('org_currency')) as currency,
       NULL::decimal(18, 2) as amount_home_told,
       try_cast(try_cast(t.Probability as decimal(18, 6)) / 100 as decimal(7, 6)) as probability,
       category_of(coalesce(t.ForecastCategoryName, t.ForecastCategory)) as forecast_category,
       try_cast(t.CreatedDate as timestamptz) as created_at, try_cast(t.CloseDate as date) as close_date,
       t.CloseDate as close_date_told,
       try_cast(t.LastStageChangeDate as timestamptz) as crm_stage_entered_at, t.Description as description, t.NextStep as next_step,
       -- A day that has not come when the record was read stands for a meeting to come: what happened, happened before it was read.
       case when t.last_activity_day <= getvariable('business_date') then timezone(getvariable('timezone'), t.last_activity_day::timestamp)
            when t.last_activity_day is not null then t.landed_at end as last_activity_told,
       if(t.last_activity_day > getvariable('business_date'), timezone(getvariable('timezone'), t.last_activity_day::timestamp), NULL)
           as told_recheck_at,
       NULL::timestamptz as next_activity_told,
       if(getvariable('contacts_readable'), coalesce(c.contacts, 0), NULL)::integer as contact_count,
       try_cast(t.HasOpportunityLineItem as boolean) as has_line_items,
       NULL::varchar as lost_reason_told, t.modified_at as crm_modified_at, t.landed_at, t.payload,
       t.Plumbline_Status__c as flag_status, t.Plumbline_Score__c as flag_score, t.Plumbline_Top_Issue__c as flag_top_issue,
       t.Plumbline_Issues__c as flag_issues, t.Plumbline_Flagged_Since__c as flag_flagged_since,
       t.Plumbline_Snooze_Until__c as flag_snooze_until
from typed t
left join account_survivor s on s.account_id = t.AccountId
left join record_type r on r.id = t.RecordTypeId
left join role_count c on c.id = t.id;
