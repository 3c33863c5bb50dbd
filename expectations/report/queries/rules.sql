-- What each rule said in the present check, over all sources; the severest first.
with said as (
    select rule_id, sum(applicable) as applicable, sum(evaluable) as evaluable, sum(failed) as failed, sum(waived) as waived,
        sum(failed_amount_home) as failed_amount,
        any_value(error) as error,  -- of the whole rule, the same for each source
        string_agg(source || ': ' || unknown_reason, '; ' order by source)
            filter (where unknown_reason is not null and coalesce(evaluable, 0) < applicable) as unknown_reason
    from quality.result
    where run_id = $run
    group by rule_id
),
moved as (
    select rule_id, count(*) filter (where first_seen_at = $run_at) as opened,
        count(*) filter (where resolved_at = $run_at and resolution = 'fixed') as fixed
    from quality.finding
    group by rule_id
),
lasting as (
    select rule_id, median(days_open) as days_open from report_finding group by rule_id
)
select r.rule_id, r.title, r.mistake, r.severity, r.state, r.audience, r.description, r.fix, said.applicable, said.evaluable,
    said.evaluable / nullif(said.applicable, 0) as evaluable_share, said.failed, said.waived, said.failed_amount, said.error,
    said.unknown_reason, coalesce(moved.opened, 0) as opened, coalesce(moved.fixed, 0) as fixed, lasting.days_open,
    said.applicable > 0 and coalesce(said.evaluable, 0) < 0.5 * said.applicable as cannot_judge,
    said.evaluable >= 0.5 * said.applicable and said.applicable >= 5 and said.failed > 0.6 * said.applicable as is_process_gap,
    case r.severity when 'critical' then 4 when 'high' then 3 when 'medium' then 2 when 'low' then 1 else 0 end as severity_rank
from quality.rule r
left join said on said.rule_id = r.rule_id
left join moved on moved.rule_id = r.rule_id
left join lasting on lasting.rule_id = r.rule_id
where r.state <> 'off'
order by r.state = 'alert' desc, severity_rank desc, said.failed_amount desc nulls last, said.failed desc nulls last, r.rule_id
