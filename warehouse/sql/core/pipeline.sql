-- pipeline_renamed: the pipelines that have another name than before. is_shared: others keep the old name; is_clean: the new name was nobody's.
create or replace temp table pipeline_renamed as
with named as (
    select o.pipeline as was, coalesce(d.pipeline, o.pipeline) as name
    from core.pipeline o
    left join pipeline_definition d on d.pipeline_id = o.pipeline_id
    where o.source = getvariable('source')
),
kept as (
    select name from named where was = name
)
select distinct was, name, was in (from kept) as is_shared, not (was in (from kept)) and not (name in (from kept)) as is_clean
from named
where was <> name;

-- new_pipeline: core.pipeline as the CRM defines it.
create or replace temp table new_pipeline as
select getvariable('source') as source, d.pipeline, d.pipeline_id, d.label, d.sales_process, d.is_active,
       list_sort(list_distinct([n for n in list_append(coalesce(o.former_names, []), o.pipeline) if n <> d.pipeline])) as former_names
from pipeline_definition d
left join core.pipeline o on o.source = getvariable('source') and o.pipeline_id = d.pipeline_id;
