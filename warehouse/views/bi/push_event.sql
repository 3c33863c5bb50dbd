-- Each push of a close date: its net move within a business day, while the deal was open, to a later day by a week or more or into a later month. Closing
-- a deal overwrites its close date and is no push. Salesforce's PushCount counts moves into a later calendar month only; see bi.opportunity for the
-- count of each deal.
--   opportunity_key: see bi.opportunity
--   source: name of the source
--   pipeline: pipeline on that day
--   owner_id: owner on that day
--   pushed_date: business day
--   old_close_date: before
--   new_close_date: after
--   days: by how many days
create or replace view bi.push_event as
with change as (
    select v.opportunity_key, v.valid_from, o.source, v.pipeline, v.owner_id, v.is_closed, v.close_date,
           (v.valid_from at time zone coalesce(s.business_timezone, 'UTC'))::date as day,
           lag(v.close_date) over deal as old_date, lag(v.is_closed) over deal as was_closed
    from core.opportunity_version v
    join core.opportunity o using (opportunity_key)
    join core.source s on s.source = o.source
    where not o.is_deleted
    window deal as (partition by v.opportunity_key order by v.valid_from)
),
net as (
    select opportunity_key, day, any_value(source) as source, arg_max(pipeline, valid_from) as pipeline, arg_max(owner_id, valid_from) as owner_id,
           arg_min(old_date, valid_from) as old_date, arg_max(close_date, valid_from) as new_date
    from change
    where old_date is distinct from close_date and not is_closed and not was_closed
    group by opportunity_key, day
)
select opportunity_key, source, pipeline, owner_id, day as pushed_date, old_date as old_close_date, new_date as new_close_date, new_date - old_date as days
from net
where new_date > old_date and (new_date - old_date >= 7 or date_trunc('month', new_date) > date_trunc('month', old_date));
