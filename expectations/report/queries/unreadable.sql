-- Fields and objects that a CRM does not show us and rules need: since when, which rules, and the open deals of that source.
with needed as (
    select u.source, u.object, u.field, any_value(u.label) as label, min(u.since) as since, list(distinct u.column_name) as columns
    from core.unreadable u
    where u.since <= $now
    group by u.source, u.object, u.field
),
concerned as (
    select n.source, n.object, n.field, r.rule_id, r.title, q.applicable, q.applicable - coalesce(q.evaluable, 0) as unknown
    from needed n
    join quality.rule r on r.state <> 'off' and list_has_any(r.reads, n.columns)
    left join quality.result q on q.run_id = $run and q.source = n.source and q.rule_id = r.rule_id
),
rules as (
    select source, object, field,
        list({'rule_id': rule_id, 'title': title, 'unknown': unknown, 'applicable': applicable} order by unknown desc nulls last, rule_id) as rules
    from concerned
    group by source, object, field
)
select n.source, n.object, n.field, n.label, n.since, rules.rules,
    (select count(*) from report_deal d where d.source = n.source) as deals, count(*) over () as gaps
from needed n
join rules on rules.source = n.source and rules.object = n.object and rules.field is not distinct from n.field
order by n.since desc, n.source, n.object, n.field
limit $limit
