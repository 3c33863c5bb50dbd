-- new_field_option: the options of every deal property, those too that the portal no longer shows: deals keep their values.
create or replace temp table new_field_option as
with property as (
    select payload ->> '$.name' as name, coalesce(payload -> '$.options', '[]') as options
    from raw.hubspot_property
    where source = getvariable('source')
),
entry as (
    select name, unnest(options::json[]) as entry from property where json_type(options) = 'ARRAY'
)
select getvariable('source') as source, 'deals' as object, name, entry ->> '$.value' as value, nullif(entry ->> '$.label', '') as label,
       try_cast(entry ->> '$.displayOrder' as integer) as position, coalesce(try_cast(entry ->> '$.hidden' as boolean), false) as is_hidden
from entry
where (entry ->> '$.value') <> ''
qualify row_number() over (partition by name, value order by is_hidden, position, label) = 1;
