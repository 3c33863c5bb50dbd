-- new_crm_flag: what Plumbline's own fields hold in the CRM, for the touched deals in which they hold anything.
create or replace temp table new_crm_flag as
select opportunity_key, nullif(flag_status, '') as status, try_cast(flag_score as integer) as score,
       nullif(flag_top_issue, '') as top_issue, nullif(flag_issues, '') as issues, try_cast(left(flag_flagged_since, 10) as date) as flagged_since,
       try_cast(left(flag_snooze_until, 10) as date) as snooze_until
from deal
where coalesce(nullif(flag_status, ''), nullif(flag_score, ''), nullif(flag_top_issue, ''), nullif(flag_issues, ''), nullif(flag_flagged_since, ''),
               nullif(flag_snooze_until, '')) is not null;
