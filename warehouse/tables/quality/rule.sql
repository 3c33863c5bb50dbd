-- The rules in force, as of the last check.
create table if not exists quality.rule (
    rule_id             varchar not null,       -- stable name of the rule
    title               varchar not null,       -- one sentence
    mistake             varchar not null,       -- the habit it catches
    severity            varchar not null,       -- critical, high, medium, low, info
    state               varchar not null,       -- alert, observe, off
    audience            varchar not null,       -- rep or admin: who is to act
    grp                 varchar not null,       -- group of correlated rules, for the score
    description         varchar,                -- when it applies and when it fails, in words
    fix                 varchar,                -- what clears it
    version             varchar not null,       -- of the rule set
    definition          varchar not null,       -- hash of what decides this rule's verdict, thresholds included
    reads               varchar[]               -- what it needs to read: columns of core.opportunity, evidence.NAME for mapped fields
);
