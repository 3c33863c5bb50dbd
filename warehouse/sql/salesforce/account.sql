-- new_account: the accounts in `delta`.
create or replace temp table new_account as
with accounts as (
    select id, is_deleted, unnest(json_transform(payload, '{"Name": "VARCHAR", "Industry": "VARCHAR", "NumberOfEmployees": "VARCHAR",
        "MasterRecordId": "VARCHAR"}'))
    from raw.salesforce_account semi join delta using (id)
    where source = getvariable('source')
)
select getvariable('source') || ':' || id as account_key, getvariable('source') as source, id as account_id, Name as name,
       Industry as industry, try_cast(NumberOfEmployees as integer) as employees,
       is_deleted or MasterRecordId is not null as is_deleted,
       getvariable('source') || ':' || MasterRecordId as merged_into
from accounts;
