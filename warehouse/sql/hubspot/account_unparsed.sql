-- new_unparsed: the companies in `delta` whose number of employees says something and cannot be read ("51-200").
create or replace temp table new_unparsed as
with companies as (
    select id, payload ->> '$.numberofemployees' as employees
    from raw.hubspot_company semi join delta using (id)
    where source = getvariable('source') and not is_deleted
)
select getvariable('source') as source, 'companies' as object, c.id as record_id, 'numberofemployees' as property,
       'account.employees' as column_name, 'number' as expected, coalesce(old.first_seen_at, getvariable('now')) as first_seen_at
from companies c
left join core.unparsed_value old
  on old.source = getvariable('source') and old.object = 'companies' and old.record_id = c.id and old.property = 'numberofemployees'
where trim(c.employees) <> '' and try_cast(c.employees as integer) is null;
