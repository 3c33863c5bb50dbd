-- The deals as they were when a business day ended: the columns of core.opportunity_version, as bi.opportunity_as_of gives them for an instant. What
-- happened at midnight belongs to the next day.
create or replace macro bi.opportunity_at_end_of(day) as table
from core.opportunity_version
where valid_from < bi.end_of_day(day) and (valid_to >= bi.end_of_day(day) or valid_to is null);
