-- rate_of_deal: the rate into the home currency in force on the close date, the source's own before another source's. HubSpot converts an
-- open deal by the latest rate, whenever it is to close, and leaves a closed one at the rate of its closing.
create or replace temp table rate_of_deal as
with due as (
    select opportunity_key, currency,
           if(getvariable('crm') = 'hubspot' and is_closed is false, getvariable('business_date'), coalesce(close_date, getvariable('business_date'))) as day
    from deal
    where currency <> getvariable('home_currency')
)
select d.opportunity_key, r.rate
from due d
join core.exchange_rate r on r.currency = d.currency and d.day >= r.valid_from and (r.valid_to is null or d.day < r.valid_to)
qualify row_number() over (partition by d.opportunity_key order by r.source <> getvariable('source'), r.source, r.valid_from desc) = 1;

-- new_opportunity: core.opportunity as it should be for the touched deals.
create or replace temp table new_opportunity as
with mapped as (
    select pipeline, crm_stage, label, stage, is_closed, is_won, probability as default_probability
    from core.stage_map
    where source = getvariable('source')
),
flagged as (
    select d.*, m.label, m.stage as mapped_stage, m.default_probability, coalesce(d.is_closed, m.is_closed, false) as closed,
           coalesce(d.is_closed, m.is_closed, false) and coalesce(d.is_won, m.is_won, false) as won
    from deal d
    left join mapped m using (pipeline, crm_stage)
),
staged as (
    -- The CRM's flags always win: an open deal is never in a closed stage, whatever the map says.
    select *, case when won then 'closed_won' when closed then 'closed_lost' when mapped_stage in ('closed_won', 'closed_lost') then 'unmapped'
                   else coalesce(mapped_stage, 'unmapped') end as canonical
    from flagged
),
converted as (
    -- What has no room in the column is no amount that anybody can have meant, and must not stop a night.
    select s.*,
           s.amount_home_told is not null and (s.closed or r.rate is null) as is_told,
           case when s.currency = getvariable('home_currency') then s.amount
                when is_told and s.amount is not null then s.amount_home_told
                else try((s.amount::decimal(18, 2) * r.rate)::decimal(18, 2)) end as home,
           case when s.currency = getvariable('home_currency') then 1
                when is_told and s.amount <> 0 then try_cast(s.amount_home_told::double / s.amount::double as decimal(24, 15))
                else r.rate end::decimal(24, 15) as rate
    from staged s
    left join rate_of_deal r using (opportunity_key)
),
content as (
    select *, to_json(map(getvariable('evidence_names'), payload ->> getvariable('evidence_paths'))) as evidence,
           json_merge_patch(payload, getvariable('custom_patch')::json) as custom,
           json_merge_patch(payload, getvariable('hash_patch')::json) as hashed,
           nullif(payload ->> getvariable('lost_reason_path'), '') as lost_reason_mapped
    from converted
)
select c.opportunity_key, getvariable('source') as source, getvariable('crm') as crm, c.opportunity_id,
       replace(getvariable('record_url'), '{id}', c.opportunity_id) as url, c.name,
       c.account_id, a.name as account_name, c.owner_id, o.name as owner_name, o.is_active and o.is_seller as owner_active,
       c.pipeline, c.pipeline_id, c.type, c.crm_stage, coalesce(c.label, c.crm_stage) as crm_stage_label,
       c.canonical as stage,
       case c.canonical when 'prequalified' then 0 when 'qualified' then 1 when 'discovery' then 2 when 'proposal' then 3 when 'negotiation' then 4
                        when 'closed_won' then 5 when 'closed_lost' then 5 end as stage_rank,
       c.closed as is_closed, c.won as is_won, c.is_deleted, c.deleted_at, c.merged_into,
       c.amount, c.currency, c.home as amount_home, c.rate as fx_rate, c.probability, c.forecast_category, c.created_at, c.close_date,
       if(c.closed, coalesce(f.closed_at, c.crm_stage_entered_at), NULL) as closed_at,
       coalesce(c.crm_stage_entered_at, f.stage_entered_at, c.created_at) as stage_entered_at,
       c.default_probability as stage_default_probability, c.description, c.next_step,
       -- The CRM's history where it has one and it is not behind; else the change as a sync saw it; never guessed for what was there before.
       case when old.opportunity_key is null or old.next_step is not distinct from c.next_step
                then greatest(f.next_step_told_at, old.next_step_changed_at)
            when f.next_step_told_at > coalesce(old.next_step_changed_at, '-infinity'::timestamptz) then f.next_step_told_at
            else c.crm_modified_at end as next_step_changed_at,
       -- Salesforce's own LastActivityDate is a day, moves with meetings to come and with our own tasks: only where tasks cannot be read.
       if(getvariable('crm') = 'salesforce' and getvariable('activity_capability') = 'full', t.last_at,
          greatest(t.last_at, c.last_activity_told)) as last_activity_at,
       coalesce(c.next_activity_told, t.next_at) as next_activity_at,
       least(t.recheck_at, c.told_recheck_at) as recheck_at,
       getvariable('activity_capability') as activity_capability,
       c.contact_count, c.has_line_items, f.close_date_pushes, coalesce(c.lost_reason_mapped, c.lost_reason_told) as lost_reason,
       c.evidence, c.crm_modified_at, getvariable('now') as synced_at, c.custom,
       md5(to_json({
           'name': c.name, 'account_id': c.account_id, 'owner_id': c.owner_id, 'pipeline': coalesce(c.pipeline_id, c.pipeline),
           'type': c.type, 'crm_stage': c.crm_stage, 'is_closed': c.is_closed, 'is_won': c.is_won, 'is_deleted': c.is_deleted,
           'merged_into': c.merged_into, 'amount': c.amount, 'currency': c.currency, 'probability': c.probability,
           'forecast_category': c.forecast_category, 'created_at': c.created_at, 'close_date': c.close_date, 'description': c.description,
           'next_step': c.next_step, 'contact_count': c.contact_count, 'has_line_items': c.has_line_items, 'custom': c.hashed
       })::varchar) as row_hash
from content c
left join core.account a on a.account_key = getvariable('source') || ':' || c.account_id
left join core.owner o on o.owner_key = getvariable('source') || ':' || c.owner_id
left join fact f on f.opportunity_key = c.opportunity_key
left join activity_fact t on t.opportunity_key = c.opportunity_key
left join core.opportunity old on old.opportunity_key = c.opportunity_key;

-- A row that says the same as before keeps the instant at which it last said something new.
update new_opportunity n set synced_at = old.synced_at
from core.opportunity old
where old.opportunity_key = n.opportunity_key and old.row_hash = n.row_hash;
