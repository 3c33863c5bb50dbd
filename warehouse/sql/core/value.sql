-- Values that came as text, as what they are: exactly, or NULL where they cannot be read. What is NULL here though the text says something
-- is noted by new_unparsed; no value is guessed, none stops a load.

-- number_text: a number as people of any country write it, as a number of SQL, where that is certain. "1,234" is not: a thousand or a little more?
create or replace temp macro number_text(value) as
    case when not contains(value, ',') and not contains(value, '.') then NULL
         when regexp_full_match(value, '[+-]?([0-9]{1,3}(\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(\.[0-9]{3}){2,}|[0-9]+,([0-9]{1,2}|[0-9]{4,}))')
             then replace(replace(value, '.', ''), ',', '.')
         when regexp_full_match(value, '[+-]?([0-9]{1,3}(,[0-9]{3})+\.[0-9]*|[0-9]{1,3}(,[0-9]{3}){2,})') then replace(value, ',', '') end;

-- money_of: an amount to the cent. Never by way of a double: 1234.5600000000001 is 1234.56, and 9007199254740993.01 stays what it is.
create or replace temp macro money_of(value) as
    coalesce(try_cast(value as decimal(18, 2)), try_cast(number_text(trim(value)) as decimal(18, 2)));

-- share_of: a probability from 0 to 1. Delivered as the text of a 32-bit float: 0.4 arrives as 0.4000000059604644775390625.
create or replace temp macro share_of(value) as
    if(try_cast(value as decimal(18, 6)) between 0 and 1, try_cast(value as decimal(18, 6)), NULL)::decimal(7, 6);

-- truth_of: "true", "TRUE", "false"; an empty text is no answer.
create or replace temp macro truth_of(value) as try_cast(trim(value) as boolean);

-- number_of: any number that a field of the org may hold.
create or replace temp macro number_of(value) as
    coalesce(try_cast(value as decimal(38, 10)), try_cast(number_text(trim(value)) as decimal(38, 10)));

-- is_instant_text: a year of four digits stands in front, so that what is read is a day of which calendars, Python's too, know something.
-- HubSpot writes the year 20226 as +020226, and DuckDB would read "infinity".
create or replace temp macro is_instant_text(value) as value[5] in ('-', '/') and value >= '0001-01-02' and value < '9999-12-31';

-- instant_of: ISO 8601, or milliseconds since 1970. A shorter number is milliseconds only where it is a midnight: else it may be anything.
create or replace temp macro instant_of(value) as
    case when is_instant_text(value) then try_cast(value as timestamptz)
         when regexp_full_match(value, '-?[0-9]{1,15}')
             then if((length(value) >= 12 or value::bigint % 86400000 = 0) and value::bigint between -62135510400000 and 253402214399999,
                     try(epoch_ms(value::bigint)) at time zone 'UTC', NULL) end;

-- date_of: a day that has no zone: 2026-12-31, or the midnight in UTC by which HubSpot writes one.
create or replace temp macro date_of(value) as
    if(is_instant_text(value), try_cast(left(value, 10) as date), (instant_of(value) at time zone 'UTC')::date);

-- unread: whether the text says something and nothing was read.
create or replace temp macro unread(value, parsed) as trim(value) <> '' and parsed is null;
