-- changer: whom HubSpot means by the id of a user, which its histories give: the owner that this user is, where there is one. An owner who left
-- has the id under another name. Of several, the one who still works here.
create or replace temp table changer as
select coalesce(payload ->> '$.userId', payload ->> '$.userIdIncludingInactive') as user_id, id as owner_id
from raw.hubspot_owner
where source = getvariable('source') and coalesce(payload ->> '$.userId', payload ->> '$.userIdIncludingInactive') is not null
qualify row_number() over (partition by user_id order by is_deleted, id desc) = 1;
