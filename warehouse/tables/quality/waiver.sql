-- Agreed exceptions: who, why, until when.
create table if not exists quality.waiver (
    waiver_id           varchar not null,       -- short id
    scope               varchar not null,       -- deal, account, owner, pipeline
    scope_key           varchar not null,       -- opportunity_key, source:id, source:pipeline
    rule_id             varchar not null,       -- a rule, or *
    reason              varchar not null,       -- in words
    author              varchar,                -- who asked for it
    valid_from          timestamptz not null,   -- start
    valid_until         timestamptz not null,   -- end, at most 90 days later
    ended_at            timestamptz             -- ended early
);
