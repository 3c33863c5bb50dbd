-- stage_dropped: stages of the map that a pipeline does not have, now that the CRM tells which it has, and in which no deal of it is.
create or replace temp table stage_dropped as
select m.pipeline, m.crm_stage
from core.stage_map m
where m.source = getvariable('source') and m.origin <> 'confirmed' and m.pipeline in (select pipeline from process_told)
  and not exists (from stage_definition d where d.pipeline = m.pipeline and d.crm_stage = m.crm_stage)
  and not exists (from stage_seen s where s.pipeline = m.pipeline and s.crm_stage = m.crm_stage and s.on_deals);
