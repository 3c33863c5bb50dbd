-- The last check of each business day: amounts trusted and at risk, the score, findings opened and resolved over the day's checks.
with known as (
    select r.run_id, r.as_of, r.business_date, r.rule_set_version, r.opened, r.resolved, s.score,
        s.open_amount_home as open_amount,
        coalesce(s.at_risk_amount_home, 0) as at_risk_amount
    from quality.run r
    left join quality.score s on s.run_id = r.run_id and s.scope = 'all'
    where r.as_of <= $now
),
daily as (
    select business_date, sum(opened) as opened, sum(resolved) as resolved, arg_max(score, (as_of, run_id)) as score,
        arg_max(open_amount, (as_of, run_id)) as open_amount, arg_max(at_risk_amount, (as_of, run_id)) as at_risk_amount,
        arg_max(rule_set_version, (as_of, run_id)) as rule_set_version, count(*) as checks
    from known
    group by business_date
)
select *, open_amount - at_risk_amount as trusted_amount,
    rule_set_version <> lag(rule_set_version) over (order by business_date) as is_break
from daily
qualify row_number() over (order by business_date desc) <= 120
order by business_date
