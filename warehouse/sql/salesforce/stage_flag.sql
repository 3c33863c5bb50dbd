-- stage_flag: what the org's stages say of the deals in them, by API name and by label. An admin who makes a stage a closed one moves no deal's stamp.
create or replace temp table stage_flag as
with stage as (
    select modified_at, unnest(json_transform(payload, '{"ApiName": "VARCHAR", "MasterLabel": "VARCHAR", "IsActive": "VARCHAR",
        "IsClosed": "VARCHAR", "IsWon": "VARCHAR"}'))
    from raw.salesforce_opportunity_stage
    where source = getvariable('source') and not is_deleted
),
named as (
    select coalesce(ApiName, MasterLabel) as name, 1 as rank, * from stage
    union all
    select MasterLabel, 2, * from stage
)
select distinct on (name)
       name as crm_stage, try_cast(IsClosed as boolean) as is_closed, try_cast(IsWon as boolean) as is_won, modified_at
from named
where name is not null
order by name, rank, IsActive desc;
