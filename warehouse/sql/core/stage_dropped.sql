-- Stages that a pipeline does not have, now that the CRM tells which it has, and that no deal of it was ever in: the map lists them no longer.
create or replace temp table stage_dropped as
select m.pipeline, m.crm_stage
from core.stage_map m
where m.source = getvariable('source') and m.origin <> 'confirmed' and m.pipeline in (select pipeline from process_told)
  and not exists (from stage_definition d where d.pipeline = m.pipeline and d.crm_stage = m.crm_stage)
  and not exists (from stage_seen s where s.pipeline = m.pipeline and s.crm_stage = m.crm_stage and s.on_deals);

delete from stage_dropped
where (pipeline, crm_stage) in (
    select o.pipeline, unnest([e.from_crm_stage, e.to_crm_stage])
    from core.stage_event e
    join core.opportunity o using (opportunity_key)
    where o.source = getvariable('source')
);

delete from stage_dropped
where (pipeline, crm_stage) in (
    select v.pipeline, v.crm_stage
    from core.opportunity_version v
    join core.opportunity o using (opportunity_key)
    where o.source = getvariable('source')
);

delete from core.stage_map m using stage_dropped d where m.source = getvariable('source') and m.pipeline = d.pipeline and m.crm_stage = d.crm_stage;
delete from stage_seen s using stage_dropped d where s.pipeline = d.pipeline and s.crm_stage = d.crm_stage;
