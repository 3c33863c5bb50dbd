-- Deals in stages that close or reopen them: the stage was changed after the record.
insert into touched_deal
select o.opportunity_id
from core.opportunity o
join stage_flag s using (crm_stage)
where o.source = getvariable('source') and (s.is_closed, s.is_won) is distinct from (o.is_closed, o.is_won)
  and coalesce(s.modified_at > o.crm_modified_at, false);

-- Deals that are or were in a stage that the map has with other flags: when they closed and what was a push follows from the flags of all
-- their stages. A deal may have been read with the new ones before the stage was.
insert into touched_deal
with moved as (
    select distinct s.crm_stage
    from core.stage_map m
    join stage_flag s using (crm_stage)
    where m.source = getvariable('source') and (m.is_closed, m.is_won) is distinct from (s.is_closed, s.is_won)
)
select distinct o.opportunity_id
from core.stage_event e
join core.opportunity o using (opportunity_key)
where o.source = getvariable('source') and (e.from_crm_stage in (from moved) or e.to_crm_stage in (from moved));
