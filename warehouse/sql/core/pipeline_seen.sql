-- new_pipeline: as the CRM defines them, and those that deals are in though it does not.
insert into new_pipeline by name
select getvariable('source') as source, any_value(pipeline) as pipeline, pipeline_id, if(pipeline_id is null, true, NULL) as is_active,
       []::varchar[] as former_names
from core.opportunity
where source = getvariable('source') and pipeline is not null
  and not exists (from new_pipeline n where n.pipeline_id is not distinct from core.opportunity.pipeline_id)
group by pipeline_id;
