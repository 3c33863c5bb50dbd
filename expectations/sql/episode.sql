-- What tonight's verdicts do to the findings: which episodes go on, which begin, which end and why. Nothing is written yet.
create or replace table plumbline_check.kept as
select
    finding.finding_id, finding.opportunity_key, finding.rule_id,
    flag.severity, if(flag.waived, 'waived', 'open') as state, flag.message, flag.evidence, flag.owner_id,
    finding.first_seen_at,
    greatest(finding.last_seen_at, $now) as last_seen_at,
    finding.runs_seen + if(finding.last_seen_at < $now, 1, 0) as runs_seen,   -- run again at the same instant, nothing counts twice
    null::timestamptz as resolved_at, null::varchar as resolution
from quality.finding
join plumbline_check.flag using (opportunity_key, rule_id)
where finding.state <> 'resolved';

create or replace table plumbline_check.opened as
select md5(concat_ws('|', opportunity_key, rule_id, $now::varchar)) as finding_id, flag.*
from plumbline_check.flag
anti join plumbline_check.kept using (opportunity_key, rule_id);

-- A rule that could not be run tonight says nothing: its findings neither begin nor end.
create or replace table plumbline_check.ended as
with gone as (
    select finding.finding_id, finding.opportunity_key, finding.rule_id, finding.first_seen_at
    from quality.finding
    anti join plumbline_check.flag using (opportunity_key, rule_id)
    where finding.state <> 'resolved'
      and finding.rule_id not in (select rule_id from plumbline_check.rule where errored)
),
verdict as (
    unpivot (select judged.* exclude (source, applicable_points, evaluable_points, failures)
             from plumbline_check.judged semi join gone using (opportunity_key))
    on columns(* exclude opportunity_key)
    into name rule_id value verdict
),
final as (
    select
        gone.finding_id,
        case
            when rule.rule_id is null then 'rule_changed'
            when o.opportunity_key is null or o.is_deleted then 'deleted'
            when verdict.verdict = 'unknown' then 'unknown'
            when verdict.verdict = 'pass' then if(rule.changed, 'rule_changed', 'fixed')
            when o.is_closed and coalesce((o.closed_at at time zone $timezone)::date, o.close_date)
                >= (gone.first_seen_at at time zone $timezone)::date then 'closed'
            else if(rule.changed, 'rule_changed', 'not_applicable')
        end as resolution
    from gone
    left join plumbline_check.rule on rule.rule_id = gone.rule_id
    left join core.opportunity as o on o.opportunity_key = gone.opportunity_key
    left join verdict on verdict.opportunity_key = gone.opportunity_key and verdict.rule_id = gone.rule_id
)
select * from final;
