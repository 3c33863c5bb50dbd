-- Every business day from the first deal to five years from now, with the periods that it lies in. Fiscal periods are those of core.fiscal_period (4-4-5 and the
-- like); days that none of them holds go by months: the fiscal year begins in the month that the configuration or the CRM says, and has the number of the
-- calendar year in which it ends.
--   day: business day
--   week_start: Monday of its week
--   month_start: first of its month
--   quarter_start: first day of its calendar quarter
--   fiscal_year: number of the fiscal year
--   fiscal_quarter: 1 to 4
--   fiscal_period: month of the fiscal year, or period, counted from 1
--   fiscal_period_start: first day of the fiscal period
--   fiscal_quarter_start: first day of the fiscal quarter
--   fiscal_year_start: first day of the fiscal year
create or replace view bi.calendar as
with business as (
    select coalesce(max_by(coalesce((derivation ->> '$.business.fiscal_year_start_month')::integer, fiscal_year_start_month), last_synced_at), 1) as first_month,
           coalesce((select min(created_at) from core.opportunity), max(last_synced_at))::date - 1 as first_day,
           max(last_synced_at)::date + 1826 as last_day
    from core.source
),
days as (
    select unnest(generate_series(date_trunc('year', first_day), last_day::timestamp, interval 1 day))::date as day, first_month from business
),
-- Moved back by the months before the fiscal year, a fiscal year is a calendar year.
shifted as (
    select day, first_month, date_trunc('month', day)::date - to_months(first_month - 1) as shifted from days
),
period as (
    select *, min(period_start) over (partition by fiscal_year, fiscal_quarter) as quarter_start, min(period_start) over (partition by fiscal_year) as year_start
    from core.fiscal_period
)
select s.day, date_trunc('week', s.day)::date as week_start, date_trunc('month', s.day)::date as month_start, date_trunc('quarter', s.day)::date as quarter_start,
       coalesce(p.fiscal_year, year(s.shifted) + if(s.first_month > 1, 1, 0))::integer as fiscal_year,
       coalesce(p.fiscal_quarter, quarter(s.shifted))::integer as fiscal_quarter,
       coalesce(p.fiscal_period, month(s.shifted))::integer as fiscal_period,
       coalesce(p.period_start, date_trunc('month', s.day)::date) as fiscal_period_start,
       coalesce(p.quarter_start, (date_trunc('quarter', s.shifted) + to_months(s.first_month - 1))::date) as fiscal_quarter_start,
       coalesce(p.year_start, (date_trunc('year', s.shifted) + to_months(s.first_month - 1))::date) as fiscal_year_start
from shifted s
left join period p on s.day between p.period_start and p.period_end;
