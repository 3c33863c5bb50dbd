-- Users who changed deals before they were known as owners.
update core.stage_event e set changed_by = c.owner_id
from changer c, core.opportunity o
where e.changed_by = 'userId:' || c.user_id and o.opportunity_key = e.opportunity_key and o.source = getvariable('source');

update core.opportunity_version v set changed_by = c.owner_id
from changer c, core.opportunity o
where v.changed_by = 'userId:' || c.user_id and o.opportunity_key = v.opportunity_key and o.source = getvariable('source');
