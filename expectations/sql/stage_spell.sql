-- One row per uninterrupted stay of a deal in a canonical stage, for open deals and for deals won in the last 24 months.
-- Moves between CRM stages of one canonical stage do not end a stay, and time on hold is taken out of it (the clock pauses).
create or replace table plumbline_check.stage_spell as
with deal as (
    select opportunity_key
    from core.opportunity
    where not is_deleted
      and (not is_closed
           or (is_won and coalesce((closed_at at time zone $timezone)::date, close_date) >= $business_date - interval 24 months))
),
stay as (   -- one interval per event, up to the next one; NULL: it stands there now
    select
        opportunity_key,
        to_stage as stage,
        "at",
        ("at" at time zone $timezone)::date as day_in,
        (lead("at") over (partition by opportunity_key order by "at") at time zone $timezone)::date as day_out
    from core.stage_event
    semi join deal using (opportunity_key)
    where "at" <= $now
),
working as (
    select *, lag(stage) over (partition by opportunity_key order by "at") is distinct from stage as starts
    from stay
    where stage <> 'on_hold'
),
numbered as (
    select *, sum(starts::int) over (partition by opportunity_key order by "at" rows unbounded preceding) as spell_no
    from working
)
select
    opportunity_key,
    spell_no,
    any_value(stage) as stage,
    bool_or(day_out is null) as is_current,
    sum(coalesce(day_out, $business_date) - day_in)::int as days
from numbered
group by opportunity_key, spell_no;
