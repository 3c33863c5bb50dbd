-- 100 less the points of the gravest failure in each group of correlated rules: one cause is not paid for twice. Only alert rules
-- count, only deals that are open and in work (prequalified to negotiation) or whose stage is not mapped yet.
delete from quality.score where run_id = $run_id or scope = 'opportunity';

create or replace temp table deal_score as
with worst as (   -- findings, not tonight's verdicts: those of a rule that could not be run tonight still stand
    select finding.opportunity_key, rule.grp, max(severity.points) as points, bool_or(finding.severity in ('critical', 'high')) as grave,
           bool_or(finding.severity = 'critical') as critical
    from quality.finding
    join plumbline_check.rule on rule.rule_id = finding.rule_id and rule.state = 'alert'
    join plumbline_check.severity on severity.severity = finding.severity
    where finding.state = 'open'
    group by finding.opportunity_key, rule.grp
),
deducted as (
    select opportunity_key, sum(points) as points, bool_or(grave) as grave, bool_or(critical) as critical
    from worst group by opportunity_key
)
select
    subject.opportunity_key, subject.source, subject.owner_id, subject.pipeline, subject.stage_rank, subject.amount_home,
    greatest(0, 100 - coalesce(deducted.points, 0))::double as score,
    coalesce(deducted.grave, false) as grave,
    coalesce(deducted.critical, false) as critical,
    judged.applicable_points, judged.evaluable_points
from plumbline_check.subject
join plumbline_check.judged using (opportunity_key)
left join deducted using (opportunity_key)
where subject.is_open and (subject.stage_rank between 0 and 4 or subject.stage = 'unmapped');

insert into quality.score by name
select
    $run_id as run_id, $now as as_of, 'opportunity' as scope, opportunity_key as scope_key, score,
    case when critical or score < 60 then 'at_risk' when grave or score < 90 then 'needs_attention' else 'clean' end as status,
    1 as deals, amount_home as open_amount_home, if(grave, amount_home, 0) as at_risk_amount_home,
    evaluable_points / nullif(applicable_points, 0) as evaluable_share, $version as rule_set_version
from deal_score;

-- Scores over many deals, always from the deals and never from averages: those from qualified to negotiation, weighted by amount. A
-- deal without an amount weighs as much as the median deal, and no deal more than the largest twentieth.
insert into quality.score by name
with worked as (
    select * from deal_score where stage_rank between 1 and 4
),
typical as (
    select
        coalesce(quantile_cont(amount_home, 0.5) filter (where amount_home > 0), 1) as median,
        coalesce(quantile_cont(amount_home, 0.95) filter (where amount_home > 0), 1) as p95
    from worked
),
weighted as (
    select worked.*, least(greatest(coalesce(amount_home, 0), typical.median), typical.p95)::double as weight
    from worked cross join typical
),
scoped as (
    select 'owner' as scope, source || ':' || coalesce(owner_id, '') as scope_key, * from weighted
    union all
    select 'pipeline', source || ':' || coalesce(pipeline, ''), * from weighted
    union all
    select 'source', source, * from weighted
    union all
    select 'all', 'all', * from weighted
),
summed as (
    select
        scope, scope_key,
        sum(weight * score) / sum(weight) as score,
        count(*) as deals,
        sum(amount_home) as open_amount_home,
        coalesce(sum(amount_home) filter (where grave), 0) as at_risk_amount_home,
        sum(evaluable_points) / nullif(sum(applicable_points), 0) as evaluable_share
    from scoped
    group by scope, scope_key
),
final as (
    select
        * replace (
            case when scope in ('owner', 'pipeline')    -- few deals say little: ten deals of the average are added
                then (deals * score + 10 * (select score from summed where scope = 'all')) / (deals + 10)
                else score
            end as score)
    from summed
)
select $run_id as run_id, $now as as_of, *, null as status, $version as rule_set_version from final;
