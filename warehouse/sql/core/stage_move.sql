-- stage_move: each move between CRM stages of the touched deals, with what the stage's flags say.
-- What the CRM tells comes first; where it tells nothing, what earlier runs observed.
create or replace temp table stage_move as
with told as (
    select opportunity_id, "at", seq, crm_stage from stage_told
    union all
    select d.opportunity_id, e."at", '', e.to_crm_stage
    from core.stage_event e
    join deal d using (opportunity_key)
    where d.opportunity_id not in (select opportunity_id from stage_told)
),
last_told as (
    select opportunity_id, max("at") as "at", arg_max(crm_stage, ("at", seq)) as crm_stage from told group by opportunity_id
),
-- The record is the truth about today: a stage that no history row explains was entered, and we know only about when.
untold as (
    select d.opportunity_id,
           case when l."at" is null then coalesce(d.crm_stage_entered_at, d.created_at, d.crm_modified_at, getvariable('now'))
                when d.crm_stage_entered_at > l."at" then d.crm_stage_entered_at
                when d.crm_modified_at > l."at" then d.crm_modified_at
                else greatest(l."at", getvariable('now')) end as "at",
           '~' as seq, d.crm_stage
    from deal d
    left join last_told l using (opportunity_id)
    where d.crm_stage is not null and l.crm_stage is distinct from d.crm_stage
),
stages as (
    select *, lag(crm_stage) over (partition by opportunity_id order by "at", seq) as previous
    from (from told union all from untold)
)
select d.opportunity_key, d.opportunity_id, d.pipeline, s."at", s.seq, s.previous as from_crm_stage, s.crm_stage as to_crm_stage
from stages s
join deal d using (opportunity_id)
where s.previous is distinct from s.crm_stage;
