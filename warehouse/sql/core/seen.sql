-- seen: what this sync and those before it saw of the touched deals, one row per state. new_seen: what this one saw that is new.
-- The record's stamp says since when at the latest the deal has been so. What moves no stamp, or has one that cannot be, counts from now on.
create or replace temp table seen_before as
select d.opportunity_id, s.*
from raw.opportunity_seen s
join deal d using (opportunity_key);

create or replace temp table new_seen as
with latest as (
    from seen_before qualify row_number() over (partition by opportunity_key order by "at" desc) = 1
)
select d.opportunity_key,
       case when d.crm_modified_at > coalesce(l."at", '-infinity'::timestamptz) and d.crm_modified_at <= getvariable('now') + interval 1 day
                then d.crm_modified_at
            else greatest(getvariable('now'), l."at") end as "at",
       getvariable('now') as seen_at, d.crm_stage, d.crm_stage_entered_at as stage_entered_at, d.pipeline, d.pipeline_id, d.amount, d.currency,
       d.close_date_told as close_date, d.owner_id, d.probability, d.forecast_category, d.next_step, d.is_deleted, d.deleted_at
from deal d
left join latest l using (opportunity_key)
where l.opportunity_key is null
   or (d.crm_stage, coalesce(d.pipeline_id, d.pipeline), d.amount, d.currency, d.close_date_told, d.owner_id, d.probability,
       d.forecast_category, d.next_step, d.is_deleted)
      is distinct from
      (l.crm_stage, coalesce(l.pipeline_id, l.pipeline), l.amount, l.currency, l.close_date, l.owner_id, l.probability, l.forecast_category,
       l.next_step, l.is_deleted);

-- The same instant twice, as by a clock that was set back: the later word counts.
delete from raw.opportunity_seen s using new_seen n where s.opportunity_key = n.opportunity_key and s."at" = n."at";
insert into raw.opportunity_seen by name from new_seen;

create or replace temp table seen as
with stated as (
    from seen_before b where not exists (from new_seen n where n.opportunity_key = b.opportunity_key and n."at" = b."at")
    union all by name
    select d.opportunity_id, n.* from new_seen n join deal d using (opportunity_key)
)
-- By the name that the pipeline has now, because stages are mapped by it, and on the day that it is in the business time zone of today.
select s.* replace (coalesce(p.pipeline, s.pipeline) as pipeline, day_of(s.close_date) as close_date), lag(s."at") over deals as previous_at,
       -- It was there then, so it went later, whatever instant the CRM names.
       max(if(s.is_deleted, NULL, s."at")) over (deals rows between unbounded preceding and 1 preceding) as last_live_at
from stated s
left join core.pipeline p on p.source = getvariable('source') and p.pipeline_id = s.pipeline_id
window deals as (partition by s.opportunity_id order by s."at");

drop table seen_before;
drop table new_seen;
