-- The instant at which a business day ends, in the time zone in which days were counted at the last load: the day belongs to it, the instant
-- itself to the next day.
create or replace macro bi.end_of_day(day) as
    timezone(bi.business_timezone(), (day::date + 1)::timestamp);
