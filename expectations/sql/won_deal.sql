-- The reference population: what statistics of "deals we won" are made of. Won in the last 24 months; no renewals, which run at
-- their own pace, and nothing that was won within a day of its creation, which was entered after the fact.
create or replace table plumbline_check.won_deal as
with dated as (
    select
        opportunity_key, source, pipeline, concat_ws(' ', d.type, label.type) as type, account_id, description, amount_home,
        (created_at at time zone $timezone)::date as created_day,
        coalesce((closed_at at time zone $timezone)::date, close_date) as closed_day
    from core.opportunity as d
    left join core.opportunity_label as label using (opportunity_key)
    where is_won and not is_deleted
)
select * exclude (type, created_day, closed_day), closed_day - created_day as cycle_days
from dated
where closed_day between ($business_date - interval 24 months)::date and $business_date
  and closed_day - created_day > 1
  and not regexp_matches(lower(concat_ws(' ', type, pipeline)), $renewal);
