-- The newest plan that no other has replaced.
select plan_hash, run_id, created_at, status, records, changes, open_deals, left(note, 500) as note
from ops.writeback_plan
where created_at <= $now and status <> 'superseded'
order by created_at desc, run_id desc
limit 1
