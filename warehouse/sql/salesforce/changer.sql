-- changer: by what a change came that a user made. Salesforce tells the user and nothing else: who imports, or starts a flow, is a person here.
create or replace temp table changer as
select id as user_id, case when payload ->> '$.UserType' = 'AutomatedProcess' then 'workflow'
                           when payload ->> '$.UserType' = 'CloudIntegrationUser' then 'integration'
                           when coalesce(payload ->> '$.UserType', 'Standard') <> 'Guest' then 'person' end as changed_through
from raw.salesforce_user
where source = getvariable('source');

create or replace temp macro through_user(user_id, changed_through) as
    case when not list_contains(getvariable('integration_ids'), left(user_id, 15)) then changed_through
         when list_contains(getvariable('own_ids'), left(user_id, 15)) then 'plumbline'
         when user_id is not null then 'integration' end;
