-- Of stage_dropped, what no deal was ever in: the map lists it no longer.
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
