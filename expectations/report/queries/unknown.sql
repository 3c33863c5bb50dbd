-- Where a rule could not judge deals that it applies to, and why.
select q.rule_id, coalesce(r.title, q.rule_id) as title, q.source, q.applicable, coalesce(q.evaluable, 0) as evaluable,
    q.applicable - coalesce(q.evaluable, 0) as unknown, q.unknown_reason as reason
from quality.result q
left join quality.rule r on r.rule_id = q.rule_id
where q.run_id = $run and coalesce(r.state, 'alert') <> 'off' and coalesce(q.evaluable, 0) < q.applicable
order by unknown desc, q.rule_id, q.source
limit $limit
