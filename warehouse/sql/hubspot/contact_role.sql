-- new_contact_role: contacts associated with the touched deals.
create or replace temp table new_contact_role as
with contacts as (
    select id, unnest(string_split(nullif(payload ->> '$.contacts', ''), ';')) as contact_id
    from raw.hubspot_deal_association semi join touched using (id)
    where source = getvariable('source') and not is_deleted
)
select getvariable('source') || ':' || id as opportunity_key, contact_id, NULL::varchar as role, NULL::boolean as is_primary from contacts;
