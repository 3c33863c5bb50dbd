-- Each time the file for BI tools was replaced. In the published file the newest row tells how old it is.
create table if not exists ops.publication (
    as_of               timestamptz not null,   -- --now of the run
    published_at        timestamptz not null    -- wall clock
);
