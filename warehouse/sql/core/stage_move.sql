-- stage_move: each move between CRM stages of the touched deals. What the CRM's history tells comes first; a stage that no row of it
-- explains was entered when the record says, else when a sync saw it.
create or replace temp table stage_stated as
with told as (
    select opportunity_id, min("at") as first_at, max("at") as last_at from stage_told group by opportunity_id
),
entered as (
    select s.opportunity_id, s."at", s.crm_stage, s.previous_at is null and coalesce(t.first_at > s."at", true) as is_first,
           -- History and record may name instants that are a moment apart.
           if(s.stage_entered_at <= s."at" and coalesce(s.stage_entered_at > s.previous_at, true)
                  and coalesce(t.last_at < s.stage_entered_at - interval 1 minute, true),
              s.stage_entered_at, NULL) as entered_at
    from seen s
    left join told t using (opportunity_id)
    where s.crm_stage is not null
)
select opportunity_id, "at", 1 as rank, seq, crm_stage, changed_by, changed_through from stage_told
union all by name
select opportunity_id, "at", 2 as rank, '' as seq, crm_stage from entered
union all by name
select e.opportunity_id, coalesce(e.entered_at, d.created_at) as "at", 2 as rank, '' as seq, e.crm_stage
from entered e
join deal d using (opportunity_id)
where e.entered_at is not null or (e.is_first and d.created_at is not null);

create or replace temp table stage_move as
with last_stated as (
    select opportunity_id, max("at") as "at", arg_max(crm_stage, ("at", rank, seq)) as crm_stage from stage_stated group by opportunity_id
),
stages as (
    select *, lag(crm_stage) over (partition by opportunity_id order by "at", rank, seq) as previous
    from (
        from stage_stated
        union all by name
        -- The record is the truth about today, also where history is ahead of it.
        select d.opportunity_id, l."at", 3 as rank, '' as seq, d.crm_stage
        from deal d
        join last_stated l using (opportunity_id)
        where d.crm_stage is not null and l.crm_stage is distinct from d.crm_stage
    )
)
select d.opportunity_key, d.opportunity_id, d.pipeline, s."at", s.rank::varchar || s.seq as seq, s.previous as from_crm_stage,
       s.crm_stage as to_crm_stage, s.changed_by, s.changed_through
from stages s
join deal d using (opportunity_id)
where s.previous is distinct from s.crm_stage;
