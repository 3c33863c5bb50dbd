-- new_owner: every user of the org.
create or replace temp table new_owner as
with users as (
    select id, is_deleted, unnest(json_transform(payload, '{"Name": "VARCHAR", "FirstName": "VARCHAR", "LastName": "VARCHAR",
        "Email": "VARCHAR", "IsActive": "VARCHAR", "UserType": "VARCHAR", "ManagerId": "VARCHAR", "UserRoleId": "VARCHAR"}'))
    from raw.salesforce_user
    where source = getvariable('source')
),
role as (
    select id, payload ->> '$.Name' as name from raw.salesforce_user_role where source = getvariable('source')
)
select getvariable('source') || ':' || u.id as owner_key, getvariable('source') as source, u.id as owner_id,
       coalesce(u.Name, nullif(trim(concat_ws(' ', FirstName, LastName)), '')) as name, Email as email,
       coalesce(IsActive = 'true', true) and not is_deleted as is_active,
       -- Partner users sell as well; automation, integration and guest users do not.
       coalesce(UserType, 'Standard') in ('Standard', 'PowerPartner')
           and not list_contains(getvariable('integration_ids'), left(u.id, 15)) as is_seller,
       ManagerId as manager_id, r.name as team
from users u
left join role r on r.id = u.UserRoleId;
