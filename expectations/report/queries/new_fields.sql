-- Fields that a CRM has gained in the last week, after its first sync.
with started as (
    select source, min(first_seen_at) as first_at from core.field group by source
)
select f.source, f.object, f.name, f.label, f.type, f.first_seen_at, count(*) over () as fields
from core.field f
join started s on s.source = f.source
where f.first_seen_at > s.first_at and f.first_seen_at > $now::timestamptz - interval 7 day and f.first_seen_at <= $now
order by f.first_seen_at desc, f.source, f.object, f.name
limit $limit
