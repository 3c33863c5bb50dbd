-- Fills `subject` (subject_table.sql says what each column means).
insert into plumbline_check.subject by name
with dated as (
    select
        *,
        $business_date as business_date,
        not is_closed as is_open,
        (created_at at time zone $timezone)::date as created_day,
        (stage_entered_at at time zone $timezone)::date as stage_entered_day,
        case when is_closed then coalesce((closed_at at time zone $timezone)::date, close_date) end as closed_day,
        (last_activity_at at time zone $timezone)::date as last_activity_day,
        (next_activity_at at time zone $timezone)::date as booked_day
    from core.opportunity
    where not is_deleted
),
judged as (
    select * from dated where is_open or closed_day >= $business_date - 90
),
renamed as (
    select
        judged.* exclude (next_step, description, lost_reason),
        nullif(trim(next_step), '') as next_step,
        nullif(trim(description), '') as description,
        nullif(trim(coalesce(label.lost_reason, judged.lost_reason)), '') as lost_reason,   -- in words: a CRM may store an id
        case when booked_day >= $business_date then booked_day end as next_activity_day,
        regexp_matches(lower(concat_ws(' ', judged.type, label.type, pipeline)), $renewal) as is_renewal,
        $business_date - close_date as days_past_close_date
    from judged
    left join core.opportunity_label as label using (opportunity_key)
),
current_spell as (
    select opportunity_key, any_value(stage) as stage, sum(days)::int as days
    from plumbline_check.stage_spell where is_current group by opportunity_key
),
source_fact as (    -- what each source keeps at all: a part of a rule that nobody fills in is not asked for
    select
        source,
        coalesce(bool_or(nullif(trim(lost_reason), '') is not null or json_exists(evidence, '$.lost_reason')), false) as has_lost_reason,
        coalesce(bool_or(json_exists(evidence, '$.need')), false) as has_need,
        coalesce(bool_or(json_exists(evidence, '$.fit')), false) as has_fit
    from core.opportunity
    group by source
),
won_fact as (
    select
        won_deal.source,
        avg((nullif(trim(description), '') is not null)::int) >= 0.5 as description_in_use,
        avg((account.industry is not null or account.employees is not null)::int) >= 0.1 as account_facts_in_use
    from plumbline_check.won_deal
    left join core.account on account.source = won_deal.source and account.account_id = won_deal.account_id
    group by won_deal.source
),
field_fact as (
    select
        source,
        bool_or(lower(object) in ('opportunity', 'deal', 'deals')) as fields_known,
        bool_or(lower(object) in ('opportunity', 'deal', 'deals') and lower(name) in ('nextstep', 'hs_next_step')) as has_next_step
    from core.field
    group by source
),
stage_fact as (
    select
        source, pipeline, crm_stage, any_value(stage) as mapped_stage,
        any_value(is_active) as is_active, any_value(is_closed) as is_closed, any_value(is_won) as is_won
    from core.stage_map
    group by source, pipeline, crm_stage
),
source_with_stages as (
    select distinct source, true as stages_known from core.stage_map
),
limits as (
    select
        source, pipeline,
        any_value(value) filter (where metric = 'cycle_p95') as cycle_limit,
        any_value(n) filter (where metric = 'cycle_p95') as cycle_n,
        any_value(rung) filter (where metric = 'cycle_p95') as cycle_rung,
        any_value(value) filter (where metric = 'won_amount_median') as won_amount_median,
        any_value(value) filter (where metric = 'won_amount_p75') as won_amount_p75
    from plumbline_check.reference_stat
    where stage = '*'
    group by source, pipeline
),
waiver as (
    select scope, scope_key, list(distinct rule_id) as rules
    from quality.waiver
    where valid_from <= $now and valid_until > $now and (ended_at is null or ended_at > $now)
    group by scope, scope_key
),
kept_from_us as (
    select unreadable.source, list(distinct made_of.column_name order by made_of.column_name) as columns
    from core.unreadable
    join plumbline_check.made_of on made_of.made_of = unreadable.column_name
    group by unreadable.source
),
final as (
    select
        d.opportunity_key, d.source, d.crm, d.opportunity_id, d.business_date, d.name, d.type, d.is_renewal, d.pipeline,
        d.crm_stage, d.crm_stage_label, d.stage, d.stage_rank, d.is_open, d.is_closed, d.is_won,
        d.created_day, $business_date - d.created_day as age_days,
        d.stage_entered_day, $business_date - coalesce(d.stage_entered_day, d.created_day) as days_since_stage_change,
        case
            when spell.stage = d.stage then spell.days
            else $business_date - coalesce(d.stage_entered_day, d.created_day)
        end as days_in_stage,
        d.close_date, d.days_past_close_date,
        plumbline_check.weekdays($business_date) - plumbline_check.weekdays(d.close_date) as business_days_past_close_date,
        d.closed_day, d.close_date_pushes, d.amount, d.currency, d.amount_home, d.probability, d.stage_default_probability,
        d.forecast_category, d.next_step,
        coalesce(field_fact.has_next_step or not field_fact.fields_known, true) as next_step_synced,
        d.activity_capability, d.last_activity_day,
        $business_date - coalesce(d.last_activity_day, d.created_day) as days_quiet,
        d.next_activity_day, d.contact_count,
        d.account_id, d.account_name,
        case when d.account_id is not null then account.account_key is not null and not account.is_deleted end as account_known,
        case
            when account.account_key is not null and not account.is_deleted
                then account.industry is not null or account.employees is not null
        end as account_described,
        d.owner_id, d.owner_name, d.owner_active, owner.is_seller as owner_is_seller,
        d.description, d.lost_reason, d.crm = 'hubspot' or source_fact.has_lost_reason as lost_reason_mapped,
        case when source_fact.has_need then plumbline_check.says_yes(d.evidence ->> '$.need') end as need_evidence,
        case when source_fact.has_fit then plumbline_check.says_yes(d.evidence ->> '$.fit') end as fit_evidence,
        coalesce(won_fact.description_in_use, false) as description_in_use,
        coalesce(won_fact.account_facts_in_use, false) as account_facts_in_use,
        case when source_with_stages.stages_known then stage_fact.source is not null end as stage_in_pipeline,
        stage_fact.is_active as stage_active, stage_fact.mapped_stage,
        stage_fact.is_closed as mapped_closed, stage_fact.is_won as mapped_won,
        dwell.value as dwell_limit, dwell.n as dwell_n, dwell.rung as dwell_rung,
        limits.cycle_limit, limits.cycle_n, limits.cycle_rung, limits.won_amount_median, limits.won_amount_p75,
        -- A snooze is for 30 days at most; one set further ahead does not count until it is near enough.
        coalesce(flag.snooze_until between $business_date and $business_date + 30, false) as is_snoozed,
        list_concat(
            list_concat(coalesce(of_deal.rules, []::varchar[]), coalesce(of_account.rules, []::varchar[])),
            list_concat(coalesce(of_owner.rules, []::varchar[]), coalesce(of_pipeline.rules, []::varchar[]))
        ) as waived_rules,
        coalesce(kept_from_us.columns, []::varchar[]) as unreadable
    from renamed as d
    join source_fact on source_fact.source = d.source
    left join won_fact on won_fact.source = d.source
    left join field_fact on field_fact.source = d.source
    left join kept_from_us on kept_from_us.source = d.source
    left join source_with_stages on source_with_stages.source = d.source
    left join current_spell as spell on spell.opportunity_key = d.opportunity_key
    left join stage_fact on stage_fact.source = d.source and stage_fact.pipeline = d.pipeline and stage_fact.crm_stage = d.crm_stage
    left join core.account on account.source = d.source and account.account_id = d.account_id
    left join core.owner on owner.source = d.source and owner.owner_id = d.owner_id
    left join core.crm_flag as flag on flag.opportunity_key = d.opportunity_key
    left join limits on limits.source = d.source and limits.pipeline = coalesce(d.pipeline, '')
    left join plumbline_check.reference_stat as dwell
        on dwell.source = d.source and dwell.pipeline = coalesce(d.pipeline, '') and dwell.metric = 'dwell_p90' and dwell.stage = d.stage
    left join waiver as of_deal on of_deal.scope = 'deal' and of_deal.scope_key = d.opportunity_key
    left join waiver as of_account on of_account.scope = 'account' and of_account.scope_key = d.source || ':' || d.account_id
    left join waiver as of_owner on of_owner.scope = 'owner' and of_owner.scope_key = d.source || ':' || d.owner_id
    left join waiver as of_pipeline on of_pipeline.scope = 'pipeline' and of_pipeline.scope_key = d.source || ':' || d.pipeline
)
select * from final;
