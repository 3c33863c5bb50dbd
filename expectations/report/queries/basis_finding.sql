-- Findings that stand at $now (open or waived), with what their rule says of itself. The tables of the page are all made from these.
create or replace temp table report_finding as
select f.finding_id, f.opportunity_key, f.rule_id, coalesce(r.title, f.rule_id) as title, coalesce(r.grp, f.rule_id) as grp,
    r.fix, coalesce(r.state, 'off') as rule_state, f.severity, f.state = 'waived' as is_waived, f.message, f.first_seen_at,
    f.state <> 'waived' and r.state = 'alert' as counts,
    case f.severity when 'critical' then 4 when 'high' then 3 when 'medium' then 2 when 'low' then 1 else 0 end as severity_rank,
    case f.severity when 'critical' then 30 when 'high' then 15 when 'medium' then 8 when 'low' then 3 else 0 end as points,
    date_diff('day', (f.first_seen_at at time zone $zone)::date, $today::date) as days_open
from quality.finding f
left join quality.rule r on r.rule_id = f.rule_id
where f.first_seen_at <= $now and (f.resolved_at is null or f.resolved_at > $now)
