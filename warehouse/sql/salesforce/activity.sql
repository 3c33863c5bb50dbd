-- new_activity: tasks and events of the touched opportunities. The pattern of a series is none (its occurrences are), nor is the copy of a meeting
-- in the calendar of an invited colleague.
create or replace temp table new_activity as
with task as (
    select id, parent_id, landed_at, unnest(json_transform(payload, '{"Subject": "VARCHAR", "Status": "VARCHAR", "IsClosed": "VARCHAR",
        "ActivityDate": "VARCHAR", "CompletedDateTime": "VARCHAR", "CreatedDate": "VARCHAR", "OwnerId": "VARCHAR", "CreatedById": "VARCHAR",
        "IsRecurrence": "VARCHAR"}'))
    from raw.salesforce_task semi join touched on touched.id = parent_id
    where source = getvariable('source') and not is_deleted
),
task_typed as (
    select *, coalesce(try_cast(IsClosed as boolean), Status = 'Completed', false) as done, try_cast(ActivityDate as date) as due,
           timezone(getvariable('timezone'), try_cast(ActivityDate as date)::timestamp) as due_at
    from task
    where IsRecurrence is distinct from 'true'
),
event as (
    select id, parent_id, unnest(json_transform(payload, '{"Subject": "VARCHAR", "ActivityDate": "VARCHAR", "StartDateTime": "VARCHAR",
        "EndDateTime": "VARCHAR", "IsAllDayEvent": "VARCHAR", "OwnerId": "VARCHAR", "CreatedById": "VARCHAR", "IsRecurrence": "VARCHAR",
        "IsChild": "VARCHAR"}'))
    from raw.salesforce_event semi join touched on touched.id = parent_id
    where source = getvariable('source') and not is_deleted
),
event_typed as (
    -- An all-day event has a day and no zone; its StartDateTime is midnight UTC and means nothing.
    select *, if(IsAllDayEvent = 'true', NULL, try_cast(StartDateTime as timestamptz)) as starts,
           if(IsAllDayEvent = 'true', NULL, coalesce(try_cast(EndDateTime as timestamptz), try_cast(StartDateTime as timestamptz))) as ends,
           coalesce(try_cast(ActivityDate as date), try_cast(left(StartDateTime, 10) as date)) as day
    from event
    where IsRecurrence is distinct from 'true' and IsChild is distinct from 'true'
)
select getvariable('source') || ':' || id as activity_key, getvariable('source') || ':' || parent_id as opportunity_key, 'task' as kind,
       -- A finished task whose due day is still to come and that has no completion stamp was finished by the time it was read.
       if(done, coalesce(try_cast(CompletedDateTime as timestamptz), least(due_at, landed_at), try_cast(CreatedDate as timestamptz)), due_at) as "at",
       NULL::timestamptz as starts_at, due as due_date, done as is_done, Subject as subject, OwnerId as owner_id,
       coalesce(list_contains(getvariable('integration_ids'), left(CreatedById, 15)), false) as is_ours
from task_typed
union all by name
select getvariable('source') || ':' || id as activity_key, getvariable('source') || ':' || parent_id as opportunity_key, 'event' as kind,
       coalesce(ends, timezone(getvariable('timezone'), (day + 1)::timestamp)) as "at",
       coalesce(starts, timezone(getvariable('timezone'), day::timestamp)) as starts_at,
       coalesce((starts at time zone getvariable('timezone'))::date, day) as due_date,
       coalesce(coalesce(ends, timezone(getvariable('timezone'), (day + 1)::timestamp)) <= getvariable('now'), false) as is_done,
       Subject as subject, OwnerId as owner_id,
       coalesce(list_contains(getvariable('integration_ids'), left(CreatedById, 15)), false) as is_ours
from event_typed;
