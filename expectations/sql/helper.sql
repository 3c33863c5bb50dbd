-- Days from Monday to Friday up to and including a day, counted from a Monday long ago: the difference of two is business days.
create or replace macro plumbline_check.weekdays(day) as
    5 * ((day - date '1900-01-01') // 7) + least((day - date '1900-01-01') % 7 + 1, 5);

-- Whether a field mapped as evidence says yes: filled in, and not with a no.
create or replace macro plumbline_check.says_yes(value) as
    coalesce(trim(lower(value)) not in ('', 'false', 'no', 'n', '0', 'none', 'n/a', '-'), false);
