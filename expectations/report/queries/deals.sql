-- The open deals to look at first: amount times points lost. A deal without an amount weighs as the median one.
with weighed as (
    select *, coalesce(nullif(amount_home, 0), (select median(amount_home) from report_deal where amount_home > 0), 1) as weight
    from report_deal
    where is_flagged
)
select opportunity_key, source, url, name, account_name, owner_name, owner_active, pipeline, stage, stage_label, amount, currency,
    amount_home, close_date, close_date < $today as is_past_due, age_days, stage_days, score, issues, points
from weighed
order by greatest(weight, 0) * points desc, points desc, opportunity_key
limit $limit
