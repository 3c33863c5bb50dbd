-- What the CRM acknowledged, onto the plan and onto core.crm_flag. Variables: plan_hash, source, run_id, now. Temp table: result.
create or replace temp table answered as
select c.opportunity_key, c.field, c.new_value, r.ok, r.code, r.message
from ops.writeback_change c
join result r on r.id = c.opportunity_id
where c.plan_hash = getvariable('plan_hash') and c.source = getvariable('source') and c.status = 'planned';

update ops.writeback_change c
set status = if(a.ok, 'written', 'failed'), run_id = getvariable('run_id'), sent_at = getvariable('now'), error_code = if(a.ok, NULL, a.code),
    error = if(a.ok, NULL, left(a.message, 500))
from answered a
where c.plan_hash = getvariable('plan_hash') and c.opportunity_key = a.opportunity_key and c.field = a.field;

create or replace temp table written_flag as
with written as (
    select opportunity_key,
           max(new_value) filter (field = 'status') as status, bool_or(field = 'status') as has_status,
           max(new_value) filter (field = 'score') as score, bool_or(field = 'score') as has_score,
           max(new_value) filter (field = 'top_issue') as top_issue, bool_or(field = 'top_issue') as has_top_issue,
           max(new_value) filter (field = 'issues') as issues, bool_or(field = 'issues') as has_issues,
           max(new_value) filter (field = 'flagged_since') as flagged_since, bool_or(field = 'flagged_since') as has_flagged_since
    from answered
    where ok
    group by opportunity_key
)
select w.opportunity_key, if(w.has_status, w.status, f.status) as status, if(w.has_score, w.score::integer, f.score) as score,
       if(w.has_top_issue, w.top_issue, f.top_issue) as top_issue, if(w.has_issues, w.issues, f.issues) as issues,
       if(w.has_flagged_since, w.flagged_since::date, f.flagged_since) as flagged_since, f.snooze_until
from written w
left join core.crm_flag f using (opportunity_key);

delete from core.crm_flag f using written_flag w where f.opportunity_key = w.opportunity_key;

insert into core.crm_flag by name
from written_flag
where coalesce(status, score::varchar, top_issue, issues, flagged_since::varchar, snooze_until::varchar) is not null;
