-- deal_survivor: deals that were merged into another one. The survivor names those it has swallowed; none of them ever comes back.
create or replace temp table deal_survivor as
with named as (
    select unnest(string_split(payload ->> '$.hs_merged_object_ids', ';')) as loser, id as survivor
    from raw.hubspot_deal semi join (select distinct id from touched_deal) t using (id)
    where source = getvariable('source') and not is_deleted and (payload ->> '$.hs_merged_object_ids') is not null
),
remembered as (
    select opportunity_id as loser, split_part(merged_into, ':', 2) as survivor, deleted_at
    from core.opportunity
    where source = getvariable('source') and merged_into is not null
),
known as (
    select trim(loser) as loser, survivor, NULL::timestamptz as deleted_at from named where trim(loser) not in ('', survivor)
    union all
    from remembered
    where loser in (select id from touched_deal) or loser in (select trim(loser) from named)
)
select loser as id, arg_max(survivor, try_cast(survivor as bigint)) as survivor_id,
       coalesce(min(deleted_at), getvariable('now')) as merged_at
from known
group by loser;
