-- version_state: what the touched deals were, from when to when: the CRM's history (state_told, state_before), what syncs saw (seen) and,
-- last, the deal as it is (new_opportunity). Each says some attributes at an instant; what is not said stays as it was.
create or replace temp table version_state as
with first_seen as (
    select opportunity_id, min("at") as "at" from seen group by opportunity_id
),
first_stage as (
    select opportunity_id, min("at") as "at" from stage_told group by opportunity_id
),
statement as (
    select opportunity_id, "at", rank, seq, true as is_told, crm_stage, pipeline, amount, currency, close_date, owner_id, probability,
           forecast_category, next_step, NULL::struct(v boolean) as is_deleted
    from state_told
    union all by name
    -- Before anything was said: what history says had been there before, as long as no sync saw it earlier.
    select b.* exclude ("at", seq, changed_by, changed_through, is_first), '-infinity'::timestamptz as "at", '' as seq, true as is_told
    from state_before b
    join first_seen s using (opportunity_id)
    where b."at" <= s."at"
    union all by name
    -- Else what was seen first, but for a stage that the deal is known to have entered later.
    select s.opportunity_id, '-infinity'::timestamptz as "at", -2 as rank, '' as seq, false as is_told,
           {'v': if(s.stage_entered_at > d.created_at and coalesce(t."at" > s."at", true), NULL, s.crm_stage)} as crm_stage,
           {'v': s.pipeline} as pipeline, {'v': s.amount} as amount, {'v': s.currency} as currency,
           {'v': s.close_date} as close_date, {'v': s.owner_id} as owner_id, {'v': s.probability} as probability,
           {'v': s.forecast_category} as forecast_category, {'v': s.next_step} as next_step, {'v': false} as is_deleted
    from seen s
    join new_opportunity d using (opportunity_id)
    left join first_stage t using (opportunity_id)
    where s.previous_at is null
    union all by name
    select opportunity_id, "at", 3 as rank, '' as seq, false as is_told, {'v': crm_stage} as crm_stage, {'v': pipeline} as pipeline,
           {'v': amount} as amount, {'v': currency} as currency, {'v': close_date} as close_date, {'v': owner_id} as owner_id,
           {'v': probability} as probability, {'v': forecast_category} as forecast_category, {'v': next_step} as next_step,
           if(is_deleted, NULL, {'v': false}) as is_deleted
    from seen
    union all by name
    select opportunity_id, "at", rank, seq, false as is_told, {'v': crm_stage} as crm_stage
    from stage_stated
    where rank = 2
    union all by name
    select opportunity_id, greatest(coalesce(deleted_at, "at"), last_live_at) as "at", 4 as rank, '' as seq, false as is_told,
           {'v': true} as is_deleted
    from seen
    where is_deleted
),
carried as (
    select opportunity_id, "at", max(if(is_told, "at", NULL)) over said = "at" as is_told,
           last_value(crm_stage ignore nulls) over said as crm_stage, last_value(pipeline ignore nulls) over said as pipeline,
           last_value(amount ignore nulls) over said as amount, last_value(currency ignore nulls) over said as currency,
           last_value(close_date ignore nulls) over said as close_date, last_value(owner_id ignore nulls) over said as owner_id,
           last_value(probability ignore nulls) over said as probability,
           last_value(forecast_category ignore nulls) over said as forecast_category,
           last_value(next_step ignore nulls) over said as next_step, last_value(is_deleted ignore nulls) over said as is_deleted,
           lead("at") over said as next_at
    from statement
    window said as (partition by opportunity_id order by "at", rank, seq)
    qualify next_at is distinct from "at"
),
-- What was said last is what is, unless history is ahead of the record; then the record counts.
whole as (
    select n.opportunity_key, c.opportunity_id, c."at", if(c."at" = '-infinity'::timestamptz, n.created_at, c."at") as valid_from, coalesce(c.is_told, false) as is_told,
           case when next_at is null
                then {'crm_stage': n.crm_stage, 'pipeline': n.pipeline, 'amount': n.amount, 'currency': n.currency, 'close_date': n.close_date,
                      'owner_id': n.owner_id, 'probability': n.probability, 'forecast_category': n.forecast_category, 'next_step': n.next_step,
                      'is_deleted': n.is_deleted}
                else {'crm_stage': c.crm_stage.v, 'pipeline': c.pipeline.v, 'amount': c.amount.v, 'currency': c.currency.v,
                      'close_date': c.close_date.v, 'owner_id': c.owner_id.v, 'probability': c.probability.v,
                      'forecast_category': c.forecast_category.v, 'next_step': c.next_step.v, 'is_deleted': c.is_deleted.v} end as state
    from carried c
    join new_opportunity n using (opportunity_id)
    where c."at" > '-infinity'::timestamptz or n.created_at < c.next_at
),
-- Who changed it: of several changes at one instant, that of the stage, else the last one.
changer_then as (
    select opportunity_id, "at", arg_max({'changed_by': changed_by, 'changed_through': changed_through}, (crm_stage is not null, rank, seq)) as who
    from (
        select opportunity_id, "at", rank, seq, crm_stage, changed_by, changed_through from state_told
        union all
        select opportunity_id, '-infinity'::timestamptz, rank, seq, crm_stage, changed_by, changed_through from state_before where is_first
    )
    group by opportunity_id, "at"
),
changed as (
    select * from whole
    window deals as (partition by opportunity_key order by valid_from)
    qualify state is distinct from lag(state) over deals or lag(valid_from) over deals is null
)
select opportunity_key, valid_from, lead(valid_from) over (partition by opportunity_key order by valid_from) as valid_to,
       if(is_told, 'crm_history', 'observed') as origin, unnest(state), who.changed_by, who.changed_through
from changed
left join changer_then using (opportunity_id, "at");

create or replace temp table present as
select opportunity_key, pipeline, crm_stage, stage, is_closed, is_won, currency, amount_home, fx_rate from new_opportunity;
