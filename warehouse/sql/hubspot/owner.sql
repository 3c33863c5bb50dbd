-- new_owner: every owner of the portal, archived ones too.
create or replace temp table new_owner as
with owners as (
    select id, is_deleted, payload ->> '$.email' as email, payload ->> '$.firstName' as first_name, payload ->> '$.lastName' as last_name,
           coalesce(payload ->> '$.type', 'PERSON') as type, payload ->> '$.userId' as user_id,
           coalesce(payload -> '$.teams', '[]')::json[] as teams
    from raw.hubspot_owner
    where source = getvariable('source')
)
select getvariable('source') || ':' || id as owner_key, getvariable('source') as source, id as owner_id,
       coalesce(nullif(trim(concat_ws(' ', first_name, last_name)), ''), email) as name, email, not is_deleted as is_active,
       type = 'PERSON' and not list_contains(getvariable('integration_ids'), coalesce(user_id, '')) as is_seller,
       NULL::varchar as manager_id,
       coalesce([t ->> '$.name' for t in teams if (t ->> '$.primary') = 'true'][1], teams[1] ->> '$.name') as team
from owners;
