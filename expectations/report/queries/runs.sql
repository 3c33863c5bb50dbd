-- The checks that the page compares: the present one, the one before it, and the one nearest to a week before it (4 to 10 days).
with known as (
    select run_id, as_of, business_date, rule_set_version, rules, errored, opened, kept, resolved,
        row_number() over (order by as_of desc, run_id desc) as age
    from quality.run
    where as_of <= $now
),
present as (
    select * from known where age = 1
),
week as (
    select known.*
    from known, present
    where date_diff('day', known.business_date, present.business_date) between 4 and 10
    order by abs(date_diff('day', known.business_date, present.business_date) - 7), known.age
    limit 1
),
compared as (
    select 'present' as which, * from present
    union all select 'previous', * from known where age = 2
    union all select 'week', * from week
)
select compared.*, s.score, s.deals, s.open_amount_home as open_amount, s.at_risk_amount_home as at_risk_amount,
    s.open_amount_home - coalesce(s.at_risk_amount_home, 0) as trusted_amount, s.evaluable_share
from compared
left join quality.score s on s.run_id = compared.run_id and s.scope = 'all'
order by compared.age
