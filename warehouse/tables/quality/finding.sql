-- One row per episode: a deal failing a rule from the first run that saw it until it was resolved.
create table if not exists quality.finding (
    finding_id          varchar not null,       -- hash of deal, rule and first_seen_at
    opportunity_key     varchar not null,       -- see core.opportunity
    rule_id             varchar not null,       -- see quality.rule
    severity            varchar not null,       -- as judged on this deal
    state               varchar not null,       -- open, waived, resolved
    message             varchar not null,       -- the sentence with the deal's own numbers
    evidence            json,                   -- the numbers behind it
    owner_id            varchar,                -- owner when last seen
    first_seen_at       timestamptz not null,   -- --now of the run that opened it
    last_seen_at        timestamptz not null,   -- --now of the last run that saw it
    runs_seen           integer not null,       -- checks in a row that saw it
    resolved_at         timestamptz,            -- --now of the run that no longer saw it
    resolution          varchar                 -- fixed, closed, deleted, not_applicable, unknown (can no longer be judged), rule_changed
);
