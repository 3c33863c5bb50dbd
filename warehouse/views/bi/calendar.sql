-- Every business day from the first deal to five years from now, with the periods that it lies in. A fiscal year begins in the month that the
-- configuration or the CRM says, and has the number of the calendar year in which it ends.
--   day: business day
--   week_start: Monday of its week
--   month_start: first of its month
--   quarter_start: first day of its calendar quarter
--   fiscal_year: number of the fiscal year
--   fiscal_quarter: 1 to 4
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
)
select day, date_trunc('week', day)::date as week_start, date_trunc('month', day)::date as month_start, date_trunc('quarter', day)::date as quarter_start,
       (year(shifted) + if(first_month > 1, 1, 0))::integer as fiscal_year, quarter(shifted)::integer as fiscal_quarter,
       (date_trunc('quarter', shifted) + to_months(first_month - 1))::date as fiscal_quarter_start,
       (date_trunc('year', shifted) + to_months(first_month - 1))::date as fiscal_year_start
from shifted;
