delete from quality.result where run_id = $run_id;

-- One row per source and rule that ran, with zeros too. An errored rule has neither counts nor success.
insert into quality.result by name
with sources as (
    select distinct source from core.opportunity
),
amounts as (
    select source, rule_id, sum(amount_home) as failed_amount_home
    from plumbline_check.flag where not waived group by source, rule_id
)
select
    $run_id as run_id,
    $now as as_of,
    sources.source,
    rule.rule_id,
    if(rule.errored, null, coalesce(tally.applicable, 0)) as applicable,
    if(rule.errored, null, coalesce(tally.applicable - tally.unknown, 0)) as evaluable,
    if(rule.errored, null, coalesce(tally.failed, 0)) as failed,
    if(rule.errored, null, coalesce(tally.waived, 0)) as waived,
    if(rule.errored, null, coalesce(amounts.failed_amount_home, 0)) as failed_amount_home,
    if(rule.errored, null, coalesce(tally.failed, 0) = 0) as success,
    rule.error,
    unknown.reason as unknown_reason
from sources
cross join plumbline_check.rule
left join plumbline_check.tally on tally.source = sources.source and tally.rule_id = rule.rule_id
left join amounts on amounts.source = sources.source and amounts.rule_id = rule.rule_id
left join plumbline_check.unknown on unknown.source = sources.source and unknown.rule_id = rule.rule_id;

delete from quality.reference_stat where as_of = $now;

insert into quality.reference_stat by name
select $now as as_of, * from plumbline_check.reference_stat;
