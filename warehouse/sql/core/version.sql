-- core.opportunity_version: close the versions of deals that are no longer so, open new ones.
create or replace temp table version_change as
select n.*, v.valid_from as since
from new_opportunity n
left join core.opportunity_version v on v.opportunity_key = n.opportunity_key and v.valid_to is null
where v.opportunity_key is null
   or (n.crm_stage, n.pipeline, n.amount, n.currency, n.close_date, n.owner_id, n.probability, n.forecast_category, n.next_step, n.is_closed,
       n.is_won, n.is_deleted)
      is distinct from
      (v.crm_stage, v.pipeline, v.amount, v.currency, v.close_date, v.owner_id, v.probability, v.forecast_category, v.next_step, v.is_closed,
       v.is_won, v.is_deleted);

-- A version that began at this very instant, or later by a clock that was set back, is replaced instead of closed: no version is empty.
delete from core.opportunity_version v using version_change c
where v.opportunity_key = c.opportunity_key and v.valid_to is null and v.valid_from >= getvariable('now');

update core.opportunity_version v set valid_to = getvariable('now')
from version_change c
where v.opportunity_key = c.opportunity_key and v.valid_to is null;

insert into core.opportunity_version by name
select opportunity_key,
       -- Nothing was seen before the first sync; only a record that nobody has touched since it was made has been so all the time.
       case when since is not null then greatest(since, getvariable('now'))
            when not is_deleted and crm_modified_at <= created_at + interval 1 minute and created_at < getvariable('now') then created_at
            else getvariable('now') end as valid_from,
       NULL::timestamptz as valid_to, 'observed' as origin, stage, crm_stage, pipeline, amount, currency, amount_home, close_date, owner_id,
       probability, forecast_category, next_step, is_closed, is_won, is_deleted
from version_change;

-- Restated, not changed: rates and the stage map.
update core.opportunity_version v set amount_home = n.amount_home, stage = n.stage
from new_opportunity n
where v.opportunity_key = n.opportunity_key and v.valid_to is null
  and (v.amount_home is distinct from n.amount_home or v.stage is distinct from n.stage);
