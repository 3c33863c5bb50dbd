-- What is wrong with the deals listed, the worst first.
select f.opportunity_key, f.rule_id, f.title, f.severity, left(f.message, 400) as message, f.fix, f.days_open
from report_finding f
where f.counts and f.opportunity_key in (select unnest($keys))
order by f.opportunity_key, f.severity_rank desc, f.points desc, f.days_open desc, f.rule_id
