-- Episodes that go on are replaced whole: a bulk delete and insert is many times faster than updating their texts in place.
delete from quality.finding
where finding_id in (select finding_id from plumbline_check.kept);

update quality.finding
set state = 'resolved', resolved_at = $now, resolution = ended.resolution
from plumbline_check.ended
where finding.finding_id = ended.finding_id and finding.state <> 'resolved';

-- One statement for both, not two: DuckDB 1.5 loses the rows of a large parallel insert that follows an insert of no rows into the
-- same table in the same transaction.
insert into quality.finding by name
select * from plumbline_check.kept
union all by name
select
    finding_id, opportunity_key, rule_id, severity, if(waived, 'waived', 'open') as state, message, evidence, owner_id,
    $now as first_seen_at, $now as last_seen_at, 1 as runs_seen, null as resolved_at, null as resolution
from plumbline_check.opened;
