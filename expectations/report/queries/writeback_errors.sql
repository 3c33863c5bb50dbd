-- Why records of the plan failed, the most frequent reason first.
select source, coalesce(error_code, 'no code') as error_code, left(any_value(error), 300) as error,
    count(distinct opportunity_id) as records
from ops.writeback_change
where plan_hash = $plan and status = 'failed'
group by source, error_code
order by records desc, source, error_code
limit $limit
