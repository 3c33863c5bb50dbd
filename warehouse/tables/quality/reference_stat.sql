-- Thresholds taken from the org's own closed deals, frozen per run, with the rung of the fallback ladder that gave them.
create table if not exists quality.reference_stat (
    as_of               timestamptz not null,   -- --now of the check that froze it
    source              varchar not null,       -- name of the source
    pipeline            varchar not null,       -- see core.opportunity
    stage               varchar not null,       -- canonical stage, '*' for whole-cycle numbers
    metric              varchar not null,       -- dwell_p90, cycle_p95, won_amount_median, won_amount_p75
    value               decimal(18, 2) not null, -- days or home currency
    n                   bigint not null,        -- won deals behind it
    rung                varchar not null        -- pipeline, source, three_medians (cycle only), default
);
