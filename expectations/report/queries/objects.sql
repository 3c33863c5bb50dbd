-- Each object in the last run that brought it, beside what an incremental run of the last fortnight usually fetches.
with known as (
    select o.*, r.as_of
    from ops.sync_object o
    join (select distinct run_id, as_of from ops.sync_run where as_of <= $now) r on r.run_id = o.run_id
),
latest as (
    select *
    from known
    qualify row_number() over (partition by source, object order by as_of desc, run_id desc) = 1
),
usual as (
    select k.source, k.object, median(k.fetched)::bigint as usual, count(*) as runs
    from known k
    join latest l on l.source = k.source and l.object = k.object
    where k.mode = 'incremental' and k.as_of < l.as_of and k.as_of > l.as_of - interval 14 day
    group by all
)
select l.source, l.object, l.mode, l.fetched, l.inserted, l.changed, l.unchanged, l.echoed, l.deleted, l.calls, l.bytes,
    left(l.notice, 300) as notice,
    l.as_of, w.watermark, case when usual.runs >= 3 then usual.usual end as usual
from latest l
left join ops.watermark w on w.source = l.source and w.object = l.object
left join usual on usual.source = l.source and usual.object = l.object
order by l.source, l.fetched desc, l.object
