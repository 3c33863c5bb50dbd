-- What people read for values of deals that a CRM stores by value. A row for each deal with such a value; several values are joined by "; ".
--   opportunity_key: see core.opportunity
--   type: label of its type; NULL where the CRM has none for it
--   lost_reason: label of why it was lost; NULL where the CRM has none for it
create or replace view core.opportunity_label as
with label as (
    select source, name, map(list(value), list(coalesce(label, value))) as told from core.field_option where object = 'deals' group by source, name
),
-- The reason may stand in the field that the configuration maps, or in the CRM's own.
field as (
    select s.source, t.told as types, m.told as mapped, r.told as reasons
    from core.source s
    left join label t on t.source = s.source and t.name = 'dealtype'
    left join label m on m.source = s.source and m.name = (s.derivation ->> '$.fields.lost_reason')
    left join label r on r.source = s.source and r.name = 'closed_lost_reason'
    where coalesce(t.source, m.source, r.source) is not null
),
type as (
    select source, value, array_to_string([coalesce(map_extract(types, trim(v))[1], trim(v)) for v in string_split(value, ';')], '; ') as words
    from (select distinct source, type as value from core.opportunity where type is not null)
    join field using (source)
    where [v for v in string_split(value, ';') if map_extract(types, trim(v))[1] is not null] <> []
),
reason as (
    select source, value, array_to_string([coalesce(map_extract(mapped, trim(v))[1], map_extract(reasons, trim(v))[1], trim(v)) for v in string_split(value, ';')], '; ') as words
    from (select distinct source, lost_reason as value from core.opportunity where lost_reason is not null)
    join field using (source)
    where [v for v in string_split(value, ';') if coalesce(map_extract(mapped, trim(v))[1], map_extract(reasons, trim(v))[1]) is not null] <> []
)
select o.opportunity_key, t.words as type, r.words as lost_reason
from core.opportunity o
left join type t on t.source = o.source and t.value = o.type
left join reason r on r.source = o.source and r.value = o.lost_reason
where coalesce(t.words, r.words) is not null;
