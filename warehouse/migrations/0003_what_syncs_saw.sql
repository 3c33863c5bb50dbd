-- What earlier syncs saw of deals stood in their versions alone. It is kept beside them now, so that versions can be built anew.
create table if not exists raw.opportunity_seen (
    opportunity_key varchar not null, "at" timestamptz not null, seen_at timestamptz not null, crm_stage varchar, stage_entered_at timestamptz,
    pipeline varchar, pipeline_id varchar, amount decimal(18, 2), currency varchar, close_date varchar, owner_id varchar,
    probability decimal(7, 6), forecast_category varchar, next_step varchar, is_deleted boolean not null, deleted_at timestamptz
);

insert into raw.opportunity_seen by name
select v.opportunity_key, v.valid_from as "at", v.valid_from as seen_at, v.crm_stage, v.pipeline,
       if(v.pipeline = o.pipeline, o.pipeline_id, NULL) as pipeline_id, v.amount, v.currency, v.close_date::varchar as close_date, v.owner_id,
       v.probability, v.forecast_category, v.next_step, v.is_deleted, if(v.is_deleted and o.is_deleted, o.deleted_at, NULL) as deleted_at
from core.opportunity_version v
join core.opportunity o using (opportunity_key)
where v.origin = 'observed';
