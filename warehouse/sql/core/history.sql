-- fact: what the history of the touched deals adds up to.
create or replace temp table fact as
with stage_fact as (
    select opportunity_key, max("at") as stage_entered_at, max("at") filter (to_closed and not from_closed) as closed_at
    from new_stage_event
    group by opportunity_key
),
close_change as (
    select opportunity_id, "at", seq, close_date, lag(close_date) over (partition by opportunity_id order by "at", seq) as old_date
    from close_told
),
spell as (
    select opportunity_key, to_closed, "at" as since, lead("at") over (partition by opportunity_key order by "at", seq) as until
    from new_stage_event
),
closed_spell as (
    select d.opportunity_id, s.since, s.until from spell s join deal d using (opportunity_key) where s.to_closed
),
-- Closing a deal overwrites its close date, in HubSpot within the same second: that is no push, and neither is any change while closed.
open_change as (
    select c.opportunity_id, c."at", c.seq, c.old_date, c.close_date, (c."at" at time zone getvariable('timezone'))::date as day
    from close_change c
    where c.old_date is not null and c.old_date <> c.close_date
      and not exists (
          from closed_spell s
          where s.opportunity_id = c.opportunity_id and c."at" + interval 1 second >= s.since and (s.until is null or c."at" <= s.until)
      )
),
-- Net per day: a date that went back and forth within a day has not moved.
day_change as (
    select opportunity_id, day, arg_min(old_date, ("at", seq)) as old_date, arg_max(close_date, ("at", seq)) as new_date
    from open_change
    group by opportunity_id, day
),
push as (
    select opportunity_id, count(*) as pushes
    from day_change
    where new_date > old_date and (new_date - old_date >= 7 or date_trunc('month', new_date) > date_trunc('month', old_date))
    group by opportunity_id
),
with_history as (
    select distinct opportunity_id from close_told
)
select d.opportunity_key, s.stage_entered_at, s.closed_at, if(h.opportunity_id is null, NULL, coalesce(p.pushes, 0))::integer as close_date_pushes,
       n."at" as next_step_told_at
from deal d
left join stage_fact s using (opportunity_key)
left join with_history h using (opportunity_id)
left join push p using (opportunity_id)
left join next_step_told n using (opportunity_id);

-- activity_fact: the last thing that people did and the next thing they plan, and when time alone will change either.
create or replace temp table activity_fact as
with theirs as (
    from new_activity where not is_ours
)
select opportunity_key,
       max("at") filter (is_done and "at" <= getvariable('now')) as last_at,
       -- A meeting of today counts until the day is over.
       min(coalesce(starts_at, "at")) filter (due_date >= getvariable('business_date') and (kind = 'event' or not is_done)) as next_at,
       least(min("at") filter (kind = 'event' and "at" > getvariable('now')),
             timezone(getvariable('timezone'),
                      (min(due_date) filter (due_date >= getvariable('business_date') and (kind = 'event' or not is_done)) + 1)::timestamp))
           as recheck_at
from theirs
group by opportunity_key;
