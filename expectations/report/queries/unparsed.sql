-- Fields with values that say something and cannot be read as what they should be: how many records, and one of them to look at.
select u.source, u.object, u.property, any_value(u.label) as label, u.expected, list(distinct u.column_name order by u.column_name) as columns,
    max(u.records) as records, arg_max(u.example, u.records) as example, any_value(o.url) as url, min(u.first_seen_at) as since,
    sum(max(u.records)) over () as all_values, count(*) over () as fields
from core.unparsed u
left join core.opportunity o
    on o.source = u.source and o.opportunity_id = u.example and split_part(u.object, '.', 1) in ('deals', 'Opportunity')
where u.first_seen_at <= $now
group by u.source, u.object, u.property, u.expected
order by records desc, u.source, u.object, u.property, u.expected
limit $limit
