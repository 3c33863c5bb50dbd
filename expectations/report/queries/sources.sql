-- Each source: its last run, its last good run, its API calls.
with known as (
    select * from ops.sync_run where source is not null and as_of <= $now
),
latest as (
    select *
    from known
    qualify row_number() over (partition by source order by as_of desc, started_at desc, run_id desc) = 1
),
good as (
    select source, max(as_of) as good_at from known where status = 'done' group by source
)
select l.source, l.run_id, l.as_of, l.status, left(l.error, 500) as error,
    date_diff('second', l.started_at, l.ended_at) as seconds, good.good_at,
    u.calls, u.daily_used, u.daily_limit, u.daily_used / nullif(u.daily_limit, 0) as used_share,
    (select count(*) from core.opportunity o where o.source = l.source and not o.is_deleted) as deals
from latest l
left join good on good.source = l.source
left join ops.api_usage u on u.run_id = l.run_id and u.source = l.source
order by l.source
