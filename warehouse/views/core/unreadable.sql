-- What each source keeps from us, by its last sync: columns of core.opportunity of which nothing that could tell them can be read. Rules
-- that need such a column cannot judge the source's deals (quality.rule.reads). A row per column and per field or object that is missing.
--   source: name of the source
--   column_name: column of core.opportunity; evidence.NAME for a field mapped in [sources.X.fields]
--   object: the CRM's object
--   field: its field: not in the org, removed, hidden, or new and not yet read of every record; NULL where the object could not be read
--   label: what people read for the field, where it was ever seen
--   since: run from which on it could not be read; the first sync where it never could
create or replace view core.unreadable as
with told as (
    select source, crm, first_synced_at, (derivation -> '$.readable')::varchar[] as readable, derivation -> '$.fields' as mapped
    from core.source
    where derivation is not null
),
mapped_field as (
    select source, crm, json_extract_string(mapped, '$."' || evidence || '"') as field, evidence
    from (select source, crm, mapped, unnest(json_keys(mapped)) as evidence from told)
),
part as (
    select t.source, l.column_name, l.object, l.field
    from told t
    join core.lineage l on l.crm = t.crm
    union all
    select source, if(evidence = 'lost_reason', evidence, 'evidence.' || evidence), if(crm = 'salesforce', 'Opportunity', 'deals'), field
    from mapped_field
),
described as (  -- objects whose fields the CRM has listed: only there a field that is not listed means something
    select distinct source, object from core.field where type is not null
),
judged as (
    select p.*, f.first_seen_at,
           case when p.field is null then not list_contains(t.readable, p.object)
                else d.object is not null and (f.name is null or coalesce(f.is_partial, false)) end as missing
    from part p
    join told t on t.source = p.source
    left join described d on d.source = p.source and d.object = p.object
    left join core.field f on f.source = p.source and f.object = p.object and f.name = p.field
),
hidden as (
    select * from judged qualify bool_and(missing) over (partition by source, column_name)
),
asked as (  -- objects by run, and whether they came with an explanation in the place of records
    select o.source, o.object, r.as_of,
           o.fetched = 0 and coalesce(starts_with(o.notice, 'not read') or t.crm = 'hubspot' and o.notice is not null, false) as refused
    from ops.sync_object o
    join ops.sync_run r on r.run_id = o.run_id and r.source = o.source
    join told t on t.source = o.source
),
refused_since as (
    select a.source, a.object, min(a.as_of) as since
    from asked a
    left join (select source, object, max(as_of) as good_at from asked where not refused group by all) g
        on g.source = a.source and g.object = a.object
    where g.good_at is null or a.as_of > g.good_at
    group by a.source, a.object
)
select h.source, h.column_name, h.object, h.field, l.label,
       coalesce(if(h.field is null, r.since, coalesce(l.lost_at, h.first_seen_at)), t.first_synced_at) as since
from hidden h
join told t on t.source = h.source
left join core.field_lost l on l.source = h.source and l.object = h.object and l.name = h.field
left join refused_since r on r.source = h.source and r.object = h.object and h.field is null;
