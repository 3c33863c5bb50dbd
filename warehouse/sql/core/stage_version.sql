-- core.stage_version: close the versions of stages of which the CRM says something else now, open new ones.
create or replace temp table stage_now as
select pipeline, crm_stage, label, position, probability, forecast_category, is_closed, is_won, is_active, created_at
from stage_definition
union all by name
-- What the CRM does not define any more is retired, with what was last known of it.
select v.pipeline, v.crm_stage, v.label, v.position, v.probability, v.forecast_category, v.is_closed, v.is_won, false as is_active
from core.stage_version v
where v.source = getvariable('source') and v.valid_to is null
  and not exists (from stage_definition d where d.pipeline = v.pipeline and d.crm_stage = v.crm_stage);

create or replace temp table stage_change as
select n.*, v.valid_from as since
from stage_now n
left join core.stage_version v
  on v.source = getvariable('source') and v.pipeline = n.pipeline and v.crm_stage = n.crm_stage and v.valid_to is null
where v.crm_stage is null
   or (n.label, n.position, n.probability, n.forecast_category, n.is_closed, n.is_won, n.is_active)
      is distinct from (v.label, v.position, v.probability, v.forecast_category, v.is_closed, v.is_won, v.is_active);

-- A version that began at this very instant, or later by a clock that was set back, is replaced instead of closed: no version is empty.
delete from core.stage_version v using stage_change c
where v.source = getvariable('source') and v.pipeline = c.pipeline and v.crm_stage = c.crm_stage and v.valid_to is null
  and v.valid_from >= getvariable('now');

update core.stage_version v set valid_to = getvariable('now')
from stage_change c
where v.source = getvariable('source') and v.pipeline = c.pipeline and v.crm_stage = c.crm_stage and v.valid_to is null;

insert into core.stage_version by name
select getvariable('source') as source, pipeline, crm_stage, label,
       if(since is null, least(created_at, getvariable('now')), greatest(since, getvariable('now'))) as valid_from,
       NULL::timestamptz as valid_to, position, probability, forecast_category, is_closed, is_won, is_active
from stage_change;
