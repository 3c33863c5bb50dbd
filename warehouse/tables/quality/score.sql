-- Hygiene scores of a run. Scores of single deals are kept for the newest run only, all others for every run.
create table if not exists quality.score (
    run_id              varchar not null,       -- run of the check
    as_of               timestamptz not null,   -- --now of that run
    scope               varchar not null,       -- opportunity, owner, pipeline, source, all
    scope_key           varchar not null,       -- opportunity_key, source:owner_id, source:pipeline, source, 'all'
    score               decimal(5, 1),          -- 0 to 100; of owners and pipelines with few deals drawn towards the score of all
    status              varchar,                -- of an opportunity: clean, needs_attention, at_risk
    deals               bigint not null,        -- open deals in scope
    open_amount_home    decimal(18, 2),         -- their amount
    at_risk_amount_home decimal(18, 2),         -- amount of those with an open critical or high alert finding
    evaluable_share     decimal(5, 4),          -- judged part of what applies, 0 to 1
    rule_set_version    varchar not null        -- see quality.rule
);
