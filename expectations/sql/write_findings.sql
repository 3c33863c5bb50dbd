-- Run again at the same instant, nothing counts twice.
update quality.finding
set
    state = if(kept.waived, 'waived', 'open'),
    severity = kept.severity,
    message = kept.message,
    evidence = kept.evidence,
    owner_id = kept.owner_id,
    runs_seen = finding.runs_seen + if(finding.last_seen_at < $now, 1, 0),
    last_seen_at = greatest(finding.last_seen_at, $now)
from plumbline_check.kept
where finding.finding_id = kept.finding_id and finding.state <> 'resolved';

update quality.finding
set state = 'resolved', resolved_at = $now, resolution = ended.resolution
from plumbline_check.ended
where finding.finding_id = ended.finding_id and finding.state <> 'resolved';

insert into quality.finding by name
select
    finding_id, opportunity_key, rule_id, severity, if(waived, 'waived', 'open') as state, message, evidence, owner_id,
    $now as first_seen_at, $now as last_seen_at, 1 as runs_seen, null as resolved_at, null as resolution
from plumbline_check.opened;
