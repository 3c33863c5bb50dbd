-- stage_told, close_told, next_step_told: what the property histories say of the touched deals.
create or replace temp table told as
select parent_id as opportunity_id, modified_at as "at", payload ->> '$.property' as property, payload ->> '$.value' as value
from raw.hubspot_deal_history semi join touched on touched.id = parent_id
where source = getvariable('source') and modified_at is not null;

create or replace temp table stage_told as
select opportunity_id, "at", '' as seq, value as crm_stage from told where property = 'dealstage' and value <> '';

create or replace temp table close_told as
select opportunity_id, "at", '' as seq, day_of(value) as close_date
from told
where property = 'closedate' and instant_of(value) is not null;

create or replace temp table next_step_told as
with steps as (
    select opportunity_id, "at", value, lag(value) over (partition by opportunity_id order by "at") as previous
    from told
    where property = 'hs_next_step'
)
select opportunity_id, max("at") as "at" from steps where nullif(value, '') is distinct from nullif(previous, '') group by opportunity_id;
