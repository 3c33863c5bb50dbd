-- Deals in stages that close or reopen them: the stage was changed after the record.
insert into touched_deal
select o.opportunity_id
from core.opportunity o
join stage_flag s using (crm_stage)
where o.source = getvariable('source') and (s.is_closed, s.is_won) is distinct from (o.is_closed, o.is_won)
  and coalesce(s.modified_at > o.crm_modified_at, false);
