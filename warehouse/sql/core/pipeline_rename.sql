-- A pipeline that the CRM renamed is the same pipeline: whatever calls it by its name calls it by the new one, and what was confirmed of its
-- stages stays.
create or replace temp table renamed_stage as
with placed as (
    select m.* replace (coalesce(r.name, m.pipeline) as pipeline), r.name is null as stayed
    from core.stage_map m
    left join pipeline_renamed r on r.was = m.pipeline
    where m.source = getvariable('source')
    union all by name
    select m.*, true as stayed
    from core.stage_map m
    where m.source = getvariable('source') and m.pipeline in (select was from pipeline_renamed where is_shared)
)
select * exclude (stayed)
from placed
qualify row_number() over (partition by pipeline, crm_stage order by origin = 'confirmed' desc, stayed desc, updated_at desc) = 1;

delete from core.stage_map where source = getvariable('source');
insert into core.stage_map by name from renamed_stage;

create or replace temp table renamed_version as
with placed as (
    select v.* replace (coalesce(r.name, v.pipeline) as pipeline), v.pipeline as was, r.name is null as stayed
    from core.stage_version v
    left join pipeline_renamed r on r.was = v.pipeline
    where v.source = getvariable('source')
    union all by name
    select v.*, v.pipeline as was, true as stayed
    from core.stage_version v
    where v.source = getvariable('source') and v.pipeline in (select was from pipeline_renamed where is_shared)
)
select * exclude (was, stayed)
from placed
-- One name, one past: that of the pipeline which had the name before.
qualify was = first_value(was) over (partition by pipeline, crm_stage order by stayed desc, was);

delete from core.stage_version where source = getvariable('source');
insert into core.stage_version by name from renamed_version;

create or replace temp table pipeline_clean as
select was, any_value(name) as name from pipeline_renamed group by was having count(*) = 1 and bool_and(is_clean);

update core.opportunity o set pipeline = d.pipeline
from pipeline_definition d
where o.source = getvariable('source') and o.pipeline_id = d.pipeline_id and o.pipeline <> d.pipeline;

update core.opportunity_version v set pipeline = r.name
from core.opportunity o, pipeline_clean r
where o.opportunity_key = v.opportunity_key and o.source = getvariable('source') and r.was = v.pipeline;

update bi.pipeline_snapshot s set pipeline = r.name from pipeline_clean r where s.source = getvariable('source') and s.pipeline = r.was;
update quality.reference_stat s set pipeline = r.name from pipeline_clean r where s.source = getvariable('source') and s.pipeline = r.was;
update quality.score s set scope_key = getvariable('source') || ':' || r.name
from pipeline_clean r where s.scope = 'pipeline' and s.scope_key = getvariable('source') || ':' || r.was;
update quality.waiver w set scope_key = getvariable('source') || ':' || r.name
from pipeline_clean r where w.scope = 'pipeline' and w.scope_key = getvariable('source') || ':' || r.was;
