-- Every finding with its rule and its deal in plain columns: open, waived and resolved ones.
--   finding_id: one per episode
--   opportunity_key: see bi.opportunity
--   source: name of the source
--   opportunity_name: name of the deal
--   url: address in the CRM
--   account_name: name of the account
--   owner_id: the CRM's id of the owner when last seen
--   owner_name: name of the deal's owner
--   pipeline: record type or pipeline
--   stage: canonical stage
--   amount_home: amount in the home currency
--   rule_id: stable name of the rule
--   rule_title: what the rule says, in a sentence
--   mistake: the habit it catches
--   severity: critical, high, medium, low or info
--   rule_state: alert, observe or off
--   audience: rep or admin: who is to act
--   state: open, waived or resolved
--   message: the sentence with the deal's own numbers
--   evidence: the numbers behind it
--   fix: what clears it
--   first_seen_at: instant of the run that opened it
--   last_seen_at: instant of the last run that saw it
--   resolved_at: instant of the run that no longer saw it
--   resolution: fixed, closed, deleted, rule_changed, not_applicable or unknown
--   days_open: from first seen to resolved, or to last seen
create or replace view bi.finding as
select f.finding_id, f.opportunity_key, o.source, o.name as opportunity_name, o.url, o.account_name, f.owner_id, o.owner_name, o.pipeline, o.stage,
       o.amount_home, f.rule_id, r.title as rule_title, r.mistake, f.severity, r.state as rule_state, r.audience, f.state, f.message, f.evidence, r.fix,
       f.first_seen_at, f.last_seen_at, f.resolved_at, f.resolution,
       date_diff('day', f.first_seen_at, coalesce(f.resolved_at, f.last_seen_at)) as days_open
from quality.finding f
left join quality.rule r using (rule_id)
left join core.opportunity o using (opportunity_key);
