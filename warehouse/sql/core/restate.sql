-- Deals and moves of a source by the stage map in force. The CRM's flags win, as in opportunity.sql.
create or replace temp table restated as
with staged as (
    select o.opportunity_key, coalesce(m.label, o.crm_stage) as label, m.probability,
           case when o.is_won then 'closed_won' when o.is_closed then 'closed_lost' when m.stage in ('closed_won', 'closed_lost') then 'unmapped'
                else coalesce(m.stage, 'unmapped') end as stage,
           if(o.is_closed or m.stage not in ('closed_won', 'closed_lost'), m.stage_rank, NULL) as mapped_rank, o.is_closed
    from core.opportunity o
    left join core.stage_map m on m.source = o.source and m.pipeline = o.pipeline and m.crm_stage = o.crm_stage
    where o.source = getvariable('source')
)
select opportunity_key, label, probability, stage, if(is_closed, 5, mapped_rank) as stage_rank from staged;

update core.opportunity o
set stage = r.stage, stage_rank = r.stage_rank, crm_stage_label = r.label, stage_default_probability = r.probability
from restated r
where o.opportunity_key = r.opportunity_key
  and (o.stage, o.stage_rank, o.crm_stage_label, o.stage_default_probability) is distinct from (r.stage, r.stage_rank, r.label, r.probability);

create or replace temp table stage_move as
select e.opportunity_key, o.opportunity_id, o.pipeline, e."at", '' as seq, e.from_crm_stage, e.to_crm_stage,
       e.changed_by, e.changed_through
from core.stage_event e
join core.opportunity o using (opportunity_key)
where o.source = getvariable('source');

create or replace temp table version_state as
select v.* exclude (stage, is_closed, is_won, amount_home)
from core.opportunity_version v
join core.opportunity o using (opportunity_key)
where o.source = getvariable('source');

create or replace temp table present as
select opportunity_key, pipeline, crm_stage, stage, is_closed, is_won, currency, amount_home, fx_rate
from core.opportunity
where source = getvariable('source');
