-- Values that cannot be read, counted per field and column, as of the last sync of each source. The values themselves stand in raw.
--   source: name of the source
--   object: the CRM's object; deals.history: past values
--   property: the CRM's field
--   label: what people read for it, where the CRM says so
--   column_name: column that misses them: of core.opportunity, or evidence.NAME for a field of the configuration, or table.column of core
--   expected: what they should be: number, share (from 0 to 1), date, instant, boolean
--   records: records that hold such a value now
--   example: id of one of them in its CRM, the first seen
--   first_seen_at: run that saw the oldest of those that are still there
--   last_seen_at: last run of the source
create or replace view core.unparsed as
select v.source, v.object, v.property, any_value(f.label) as label, v.column_name, v.expected, count(*) as records,
       first(v.record_id order by v.first_seen_at, v.record_id) as example, min(v.first_seen_at) as first_seen_at,
       any_value(s.last_synced_at) as last_seen_at
from core.unparsed_value v
left join core.source s on s.source = v.source
left join core.field f on f.source = v.source and f.object = replace(v.object, '.history', '') and f.name = v.property
group by v.source, v.object, v.property, v.column_name, v.expected;
