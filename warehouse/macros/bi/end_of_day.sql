-- The instant at which a business day ends, in the time zone in which days were counted at the last load: the day belongs to it, the instant
-- itself to the next day.
create or replace macro bi.end_of_day(day) as
    timezone((select coalesce(max_by(business_timezone, last_synced_at), 'UTC') from core.source), (day::date + 1)::timestamp);
