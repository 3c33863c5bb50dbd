-- A merge may make a new record, which takes over the first day and the history of one of the two. That one's days are told by its heir then, or
-- they would count twice: of itself nothing but that it is gone is told, in `version_state`.
-- heir: deals that were merged away, and the new record that came to light with that and has their first day.
create or replace temp table heir as
with first_day as (
    select distinct created_at from new_opportunity where merged_into is not null
),
known as (
    select opportunity_key, merged_into, created_at, deleted_at from new_opportunity where created_at in (from first_day)
    union all
    select opportunity_key, merged_into, created_at, deleted_at
    from core.opportunity
    where source = getvariable('source') and created_at in (from first_day)
      and opportunity_key not in (select opportunity_key from new_opportunity)
),
pair as (
    select l.opportunity_key, l.created_at, l.deleted_at, s.opportunity_key as heir_key
    from first_day f
    join known l on l.created_at = f.created_at and l.merged_into is not null
    join known s on s.created_at = f.created_at and s.opportunity_key <> l.opportunity_key
    where s.opportunity_key = l.merged_into or s.merged_into is not null
),
came as (
    select opportunity_key as heir_key, min(seen_at) as "at" from raw.opportunity_seen where opportunity_key in (select heir_key from pair) group by 1
)
select p.opportunity_key, p.created_at, arg_min(p.heir_key, (c."at", p.heir_key)) as heir_key
from pair p
join came c using (heir_key)
where c."at" >= p.deleted_at
group by p.opportunity_key, p.created_at;

-- Deals that were made at one instant, as imports do, are told apart by their history, unless it is known already.
delete from version_state
where opportunity_key in (
    with state as (
        select opportunity_key, valid_from, valid_to, is_deleted, (crm_stage, pipeline, amount, close_date, owner_id) as said from version_state
        union all
        select opportunity_key, valid_from, valid_to, is_deleted, (crm_stage, pipeline, amount, close_date, owner_id)
        from core.opportunity_version
        where opportunity_key in (select opportunity_key from heir union select heir_key from heir)
          and opportunity_key not in (select opportunity_key from new_opportunity)
    ),
    told as (
        select h.opportunity_key, h.heir_key,
               exists (from core.opportunity_version v
                       where v.opportunity_key = h.opportunity_key and v.valid_from = h.created_at and v.is_deleted) as is_known,
               (select count(*) from state l join state s using (valid_from, said)
                where l.opportunity_key = h.opportunity_key and s.opportunity_key = h.heir_key) as alike
        from heir h
    )
    select arg_max(opportunity_key, (is_known, alike, opportunity_key)) from told group by heir_key
)
and valid_to is not null;

update version_state v set valid_from = h.created_at
from heir h
where v.opportunity_key = h.opportunity_key
  and not exists (from version_state o where o.opportunity_key = v.opportunity_key and o.valid_from = h.created_at);
