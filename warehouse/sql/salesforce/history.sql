-- What OpportunityHistory and OpportunityFieldHistory say of the touched opportunities:
--   stage_told, close_told, next_step_told   for stage events and facts
--   state_told     what the deal was from an instant on; a value is wrapped, so that "nothing" can be told apart from "not said"
--   state_before   the same, of what it was before the instant at which something is told for the first time
-- The 18 characters of an id that is given in 15: each of the last three says which of five letters before are capitals.
create or replace temp macro id_letter(five) as
    substr('ABCDEFGHIJKLMNOPQRSTUVWXYZ012345', 1 + list_sum([if(substr(five, i, 1) between 'A' and 'Z', 1 << (i - 1), 0) for i in range(1, 6)])::bigint, 1);
create or replace temp macro id_of(value) as
    if(length(value) = 15, value || id_letter(value[1:5]) || id_letter(value[6:10]) || id_letter(value[11:15]), value);

-- told: a row whenever stage, amount, close date or probability changed, with all of them as they were then.
create or replace temp table told as
select parent_id as opportunity_id, id as seq, try_cast(CreatedDate as timestamptz) as "at", StageName as crm_stage,
       try_cast(Amount as decimal(18, 2)) as amount, CurrencyIsoCode as currency, try_cast(CloseDate as date) as close_date,
       (try_cast(Probability as decimal(18, 6)) / 100)::decimal(7, 6) as probability, category_of(ForecastCategory) as forecast_category,
       try_cast(PrevAmount as decimal(18, 2)) as previous_amount, try_cast(PrevCloseDate as date) as previous_close_date,
       CreatedById as changed_by, through_user(CreatedById, c.changed_through) as changed_through
from (
    select id, parent_id,
           unnest(json_transform(payload, '{"CreatedDate": "VARCHAR", "StageName": "VARCHAR", "Amount": "VARCHAR", "CurrencyIsoCode": "VARCHAR",
               "CloseDate": "VARCHAR", "Probability": "VARCHAR", "ForecastCategory": "VARCHAR", "PrevAmount": "VARCHAR",
               "PrevCloseDate": "VARCHAR", "CreatedById": "VARCHAR"}'))
    from raw.salesforce_opportunity_history semi join touched on touched.id = parent_id
    where source = getvariable('source')
)
left join changer c on c.user_id = CreatedById
where try_cast(CreatedDate as timestamptz) is not null;

create or replace temp table first_told as
select opportunity_id, min("at") as "at" from told group by opportunity_id;

-- field_told: changes of single fields, as far as the org tracks them, but for those that a row of OpportunityHistory tells as well.
-- A lookup comes twice, with the names and with the ids.
create or replace temp table field_told as
with entry as materialized (
    select parent_id as opportunity_id, id as seq, modified_at as "at", payload ->> ['$.Field', '$.OldValue', '$.NewValue', '$.CreatedById'] as parts
    from raw.salesforce_opportunity_field_history semi join touched on touched.id = parent_id
    where source = getvariable('source') and modified_at is not null
),
known as materialized (
    select opportunity_id, seq, "at", parts[2] as old_value, parts[3] as new_value, parts[4] as changed_by,
           through_user(parts[4], c.changed_through) as changed_through,
           case parts[1] when 'StageName' then 'crm_stage' when 'Amount' then 'amount' when 'CurrencyIsoCode' then 'currency'
                         when 'CloseDate' then 'close_date' when 'Probability' then 'probability'
                         when 'ForecastCategoryName' then 'forecast_category' when 'ForecastCategory' then 'forecast_category'
                         when 'NextStep' then 'next_step' when 'Owner' then 'owner_id' when 'OwnerId' then 'owner_id'
                         when 'RecordType' then 'pipeline' when 'RecordTypeId' then 'pipeline' end as attribute
    from entry
    left join changer c on c.user_id = parts[4]
)
select k.*
from known k
anti join (select opportunity_id, told."at" from told join first_told f using (opportunity_id) where told."at" > f."at") t
    on t.opportunity_id = k.opportunity_id and t."at" = k."at"
where attribute in ('crm_stage', 'amount', 'close_date', 'probability')
union all
select * from known where attribute in ('currency', 'forecast_category', 'next_step')
union all
select opportunity_id, seq, "at", id_of(old_value) as old_value, id_of(new_value) as new_value, changed_by, changed_through, attribute
from known
where (attribute = 'owner_id' and regexp_full_match(coalesce(new_value, old_value), '00[5G][0-9A-Za-z]{12}([0-9A-Za-z]{3})?'))
   or (attribute = 'pipeline' and regexp_full_match(coalesce(new_value, old_value), '012[0-9A-Za-z]{12}([0-9A-Za-z]{3})?'));

create or replace temp macro said(attribute, name, value) as if(attribute = name, {'v': value}, NULL);

create or replace temp table state_told as
select opportunity_id, "at", 1 as rank, seq, {'v': crm_stage} as crm_stage, {'v': amount} as amount,
       if(currency is null, NULL, {'v': currency}) as currency, {'v': close_date} as close_date, {'v': probability} as probability,
       if(forecast_category is null, NULL, {'v': forecast_category}) as forecast_category, changed_by, changed_through
from told
union all by name
-- Within one second the row that holds the whole state has the last word, but on what it is not written for.
select f.opportunity_id, f."at", if(attribute in ('crm_stage', 'amount', 'close_date', 'probability'), 0, 2) as rank, f.seq, f.changed_by,
       f.changed_through, said(attribute, 'crm_stage', new_value) as crm_stage,
       said(attribute, 'amount', try_cast(new_value as decimal(18, 2))) as amount, said(attribute, 'currency', new_value) as currency,
       said(attribute, 'close_date', try_cast(new_value as date)) as close_date,
       said(attribute, 'probability', (try_cast(new_value as decimal(18, 6)) / 100)::decimal(7, 6)) as probability,
       said(attribute, 'forecast_category', category_of(new_value)) as forecast_category,
       said(attribute, 'next_step', new_value) as next_step, said(attribute, 'owner_id', new_value) as owner_id,
       said(attribute, 'pipeline', coalesce(p.pipeline, 'default')) as pipeline
from field_told f
left join core.pipeline p on p.source = getvariable('source') and p.pipeline_id = f.new_value and f.attribute = 'pipeline';

create or replace temp table state_before as
with first_field as (
    select opportunity_id, attribute, min("at") as "at", arg_min({'v': old_value}, ("at", seq)).v as value
    from field_told
    group by opportunity_id, attribute
)
select f.opportunity_id, f."at", 0 as rank, '' as seq, false as is_first, NULL::varchar as changed_by, NULL::varchar as changed_through,
       said(attribute, 'crm_stage', value) as crm_stage,
       said(attribute, 'amount', try_cast(value as decimal(18, 2))) as amount, said(attribute, 'currency', value) as currency,
       said(attribute, 'close_date', try_cast(value as date)) as close_date,
       said(attribute, 'probability', (try_cast(value as decimal(18, 6)) / 100)::decimal(7, 6)) as probability,
       said(attribute, 'forecast_category', category_of(value)) as forecast_category,
       said(attribute, 'next_step', value) as next_step, said(attribute, 'owner_id', value) as owner_id,
       said(attribute, 'pipeline', coalesce(p.pipeline, 'default')) as pipeline
from first_field f
left join first_told t using (opportunity_id)
left join core.pipeline p on p.source = getvariable('source') and p.pipeline_id = f.value and f.attribute = 'pipeline'
where f.attribute in ('next_step', 'owner_id', 'pipeline') or coalesce(f."at" <= t."at", true)
union all by name
-- Rows that go back to the creation need no guess; where older ones are gone, what the first one says had been so before, but for what it
-- says of amount and close date.
select t.opportunity_id, t."at", -1 as rank, '' as seq, false as is_first, {'v': t.crm_stage} as crm_stage, {'v': coalesce(t.previous_amount, t.amount)} as amount,
       if(t.currency is null, NULL, {'v': t.currency}) as currency, {'v': coalesce(t.previous_close_date, t.close_date)} as close_date,
       {'v': t.probability} as probability, if(t.forecast_category is null, NULL, {'v': t.forecast_category}) as forecast_category
from told t
join first_told f using (opportunity_id, "at")
join deal d using (opportunity_id)
where t."at" > d.created_at
qualify row_number() over (partition by opportunity_id order by seq) = 1;

-- Where OpportunityHistory may not be read, fields that are tracked tell of stages and dates all the same.
create or replace temp table stage_told as
select opportunity_id, "at", seq, crm_stage, changed_by, changed_through from told where crm_stage is not null
union all
select opportunity_id, "at", seq, new_value, changed_by, changed_through from field_told
where attribute = 'crm_stage' and new_value is not null and opportunity_id not in (select opportunity_id from first_told)
union all
select b.opportunity_id, d.created_at, '', b.crm_stage.v, NULL, NULL
from state_before b
join deal d using (opportunity_id)
where b.crm_stage.v is not null and d.created_at < b."at" and b.opportunity_id not in (select opportunity_id from first_told);

create or replace temp table close_told as
select opportunity_id, "at", seq, close_date from told where close_date is not null
union all
select opportunity_id, "at", seq, try_cast(new_value as date) from field_told
where attribute = 'close_date' and try_cast(new_value as date) is not null and opportunity_id not in (select opportunity_id from first_told)
union all
select b.opportunity_id, d.created_at, '', b.close_date.v
from state_before b
join deal d using (opportunity_id)
where b.close_date.v is not null and d.created_at < b."at" and b.opportunity_id not in (select opportunity_id from first_told);

create or replace temp table next_step_told as
select opportunity_id, max("at") as "at" from field_told where attribute = 'next_step' group by opportunity_id;

drop table field_told;
