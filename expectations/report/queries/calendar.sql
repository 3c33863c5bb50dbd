-- When the open deals are said to close. Past-due deals stand apart, never inside a month.
with placed as (
    select *, case
        when close_date is null then 'none'
        when close_date < $today::date - 90 then 'past_91'
        when close_date < $today::date - 30 then 'past_31'
        when close_date < $today::date then 'past_1'
        when close_date < date_trunc('month', $today::date) + interval 6 month then strftime(close_date, '%Y-%m')
        else 'later' end as bucket
    from report_deal
)
select bucket, count(*) as deals, sum(amount_home) as amount,
    coalesce(sum(amount_home) filter (where is_at_risk), 0) as at_risk_amount,
    coalesce(sum(amount_home) filter (where not is_counted), 0) as uncounted_amount,
    count(*) filter (where not is_counted) as uncounted_deals,
    count(*) filter (where is_at_risk) as at_risk_deals, min(close_date) as first_date
from placed
group by bucket
order by case bucket when 'past_91' then 1 when 'past_31' then 2 when 'past_1' then 3 when 'later' then 5 when 'none' then 6
    else 4 end, bucket
