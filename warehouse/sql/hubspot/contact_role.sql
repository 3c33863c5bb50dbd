-- new_contact_role: contacts associated with the touched deals. The labels of the association are the role, several joined by '; '.
create or replace temp table new_contact_role as
with associations as (
    select id, payload ->> '$.contacts' as contacts,
           from_json(coalesce(payload -> '$.labels', '[]'), '[{"id": "VARCHAR", "role": "VARCHAR"}]') as labels
    from raw.hubspot_deal_association semi join touched using (id)
    where source = getvariable('source') and not is_deleted
),
contacts as (
    select id, labels, unnest(string_split(nullif(contacts, ''), ';')) as contact_id from associations
)
select getvariable('source') || ':' || id as opportunity_key, contact_id,
       [l.role for l in labels if l.id = contact_id][1] as role, NULL::boolean as is_primary
from contacts;
