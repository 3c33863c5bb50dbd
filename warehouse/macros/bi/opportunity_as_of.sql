-- The deals as they were at an instant: the columns of core.opportunity_version, one row for every deal that existed then, deleted ones
-- marked. A day stands for its first moment in the session's time zone; bi.end_of_day(day) is the business day's last one. Stages are those
-- of today's stage map, amounts in the home currency those of the rates of the close date. What the CRM keeps no history of is as a sync first
-- saw it.
create or replace macro bi.opportunity_as_of(instant) as table
from core.opportunity_version
where valid_from <= instant::timestamptz and (valid_to > instant::timestamptz or valid_to is null);
