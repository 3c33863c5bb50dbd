-- The deals that were won by the end of a business day, as they were then, closed within a span of business days: won on the day of the last move to won, by
-- history, or on the close date where history has none. A deal that was opened again, or deleted, by that day is not among them; one that was since is.
--   opportunity_key: see core.opportunity
--   source: name of the source
--   pipeline: pipeline on that day
--   owner_id: the CRM's id of the owner on that day
--   amount_home: amount in the home currency on that day
--   won_date: business day on which it was won
create or replace macro bi.won_by(day, from_date, to_date) as table
with move as (
    select opportunity_key, max("at") as won_at from core.stage_event where kind = 'won' and "at" < bi.end_of_day(day) group by opportunity_key
),
won as (
    select opportunity_key, pipeline, owner_id, amount_home, coalesce((m.won_at at time zone bi.business_timezone())::date, v.close_date) as won_date
    from bi.opportunity_at_end_of(day) v
    left join move m using (opportunity_key)
    where v.is_won and v.is_closed and not v.is_deleted
)
select opportunity_key, split_part(opportunity_key, ':', 1) as source, pipeline, owner_id, amount_home, won_date
from won
where won_date between from_date::date and to_date::date;
