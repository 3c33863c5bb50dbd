-- new_account: the companies in `delta`, and those that one of them has swallowed.
create or replace temp table new_account as
with companies as (
    select id, is_deleted, unnest(json_transform(payload, '{"name": "VARCHAR", "industry": "VARCHAR", "numberofemployees": "VARCHAR",
        "hs_merged_object_ids": "VARCHAR"}'))
    from raw.hubspot_company
    where source = getvariable('source')
),
merged as (
    select unnest(string_split(hs_merged_object_ids, ';')) as loser, id as survivor from companies where hs_merged_object_ids is not null
),
survivor as (
    select loser, arg_max(survivor, try_cast(survivor as bigint)) as survivor from merged where loser <> survivor group by loser
)
select getvariable('source') || ':' || c.id as account_key, getvariable('source') as source, c.id as account_id,
       nullif(c.name, '') as name, nullif(c.industry, '') as industry,
       try_cast(c.numberofemployees as integer) as employees, c.is_deleted or m.survivor is not null as is_deleted,
       getvariable('source') || ':' || m.survivor as merged_into
from companies c
left join survivor m on m.loser = c.id
where c.id in (select id from delta) or m.survivor in (select id from delta);
