-- Findings before the present check, what opened and went in it, and what stands after it. Adds up by construction of the episodes.
with errored as (
    select distinct rule_id from quality.result where run_id = $run and error is not null
),
episode as (
    select f.*, f.rule_id not in (from errored) as is_judged, case when coalesce(r.state, 'off') = 'alert' then 'alert' else 'observe' end as kind
    from quality.finding f
    left join quality.rule r on r.rule_id = f.rule_id
    where f.first_seen_at <= $run_at and (f.resolved_at is null or f.resolved_at >= $run_at)
)
select kind,
    count(*) filter (where first_seen_at < $run_at) as before,
    count(*) filter (where first_seen_at = $run_at) as opened,
    count(*) filter (where resolved_at = $run_at and resolution = 'fixed') as fixed,
    count(*) filter (where resolved_at = $run_at and resolution = 'closed') as closed,
    count(*) filter (where resolved_at = $run_at and resolution = 'deleted') as deleted,
    count(*) filter (where resolved_at = $run_at and resolution = 'not_applicable') as not_applicable,
    count(*) filter (where resolved_at = $run_at and resolution = 'unknown') as unknown,
    count(*) filter (where resolved_at = $run_at
        and coalesce(resolution, '') not in ('fixed', 'closed', 'deleted', 'not_applicable', 'unknown')) as other,
    count(*) filter (where resolved_at is null or resolved_at > $run_at) as standing,
    count(*) filter (where (resolved_at is null or resolved_at > $run_at) and state = 'waived') as waived,
    count(*) filter (where (resolved_at is null or resolved_at > $run_at) and is_judged) as judged
from episode
group by kind
order by kind
