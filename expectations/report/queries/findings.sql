-- Every finding that stands, the weightiest first; the page holds the first of them.
select f.severity, f.rule_id, f.title, f.rule_state, f.is_waived, left(f.message, 300) as message, f.days_open, f.severity_rank,
    f.opportunity_key, o.url, o.name, coalesce(o.owner_name, o.owner_id) as owner_name, o.source, o.amount_home, o.is_closed,
    count(*) over () as findings
from report_finding f
left join core.opportunity o on o.opportunity_key = f.opportunity_key
order by f.rule_state = 'alert' desc, f.is_waived, f.severity_rank desc, o.amount_home desc nulls last, f.opportunity_key,
    f.rule_id
limit $limit
