-- Waivers in force, those that end first on top.
select w.scope, w.scope_key, w.rule_id, w.reason, w.author, w.valid_until,
    date_diff('day', $today::date, (w.valid_until at time zone $zone)::date) as days_left, count(*) over () as waivers
from quality.waiver w
where w.valid_from <= $now and w.valid_until > $now and (w.ended_at is null or w.ended_at > $now)
order by w.valid_until, w.waiver_id
limit $limit
