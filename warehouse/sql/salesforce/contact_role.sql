-- new_contact_role: contacts of the touched opportunities. One row per deal and contact; the primary role stands for several.
create or replace temp table new_contact_role as
with roles as (
    select id, parent_id, unnest(json_transform(payload, '{"ContactId": "VARCHAR", "Role": "VARCHAR", "IsPrimary": "VARCHAR"}'))
    from raw.salesforce_opportunity_contact_role semi join touched on touched.id = parent_id
    where source = getvariable('source') and not is_deleted
)
select getvariable('source') || ':' || parent_id as opportunity_key, ContactId as contact_id,
       arg_min(Role, (IsPrimary is distinct from 'true', Role is null, id)) as role,
       coalesce(bool_or(IsPrimary = 'true'), false) as is_primary
from roles
where ContactId is not null
group by parent_id, ContactId;
