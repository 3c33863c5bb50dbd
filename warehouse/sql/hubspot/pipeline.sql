-- pipeline_definition: the deal pipelines of the portal.
create or replace temp table pipeline_definition as
select coalesce(payload ->> '$.label', id) as pipeline, id as pipeline_id, payload ->> '$.label' as label, NULL::varchar as sales_process,
       not is_deleted as is_active
from raw.hubspot_pipeline
where source = getvariable('source');
