-- What became of the plan's changes, per source. A record with one failed field is a failed record.
with per_record as (
    select source, opportunity_id, count(*) as fields, bool_or(status = 'failed') as failed,
        bool_and(status = 'written') as written
    from ops.writeback_change
    where plan_hash = $plan
    group by source, opportunity_id
)
select source, count(*) as records, sum(fields) as fields, count(*) filter (where written) as written,
    count(*) filter (where failed) as failed,
    count(*) filter (where not written and not failed) as planned
from per_record
group by source
order by source
