-- What a run fetched and what that changed, per object.
create table if not exists ops.sync_object (
    run_id              varchar not null,       -- see ops.sync_run
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object
    mode                varchar not null,       -- full or incremental
    fetched             bigint not null,        -- records received
    inserted            bigint not null,        -- new here
    changed             bigint not null,        -- business columns differ
    unchanged           bigint not null,        -- the same, stamp too: the overlap
    echoed              bigint not null,        -- the same, but the stamp moved: our own writes and other noise
    deleted             bigint not null,        -- went
    bytes               bigint not null,        -- landed
    calls               bigint not null,        -- API calls
    notice              varchar                 -- what was not available, in words
);
