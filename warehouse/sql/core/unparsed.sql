-- new_unparsed: what could not be read of the touched deals, fields of the configuration among it, each with the run that first saw it.
create or replace temp table new_unparsed as
with mapped as (
    select opportunity_id as id, unnest(getvariable('typed_names')) as name, unnest(getvariable('typed_fields')) as property,
           unnest(getvariable('typed_kinds')) as expected, unnest(payload ->> getvariable('typed_paths')) as value
    from deal
),
found as (
    select object, record_id, property, column_name, expected from unparsed
    union all
    select getvariable('deal_object'), id, property, 'evidence.' || name, expected
    from mapped
    where trim(value) <> ''
      and case expected when 'number' then number_of(value) is null
                        when 'boolean' then truth_of(value) is null
                        when 'date' then date_of(value) is null
                        else instant_of(value) is null end
)
select getvariable('source') as source, f.*, coalesce(old.first_seen_at, getvariable('now')) as first_seen_at
from found f
join deal d on d.opportunity_id = f.record_id
left join core.unparsed_value old
  on old.source = getvariable('source') and old.object = f.object and old.record_id = f.record_id and old.property = f.property
 and old.column_name = f.column_name
where not d.is_deleted;
