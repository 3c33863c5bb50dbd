-- Versions this warehouse has gone through.
create table if not exists ops.schema_migration (
    version             integer not null,       -- number of the migration
    name                varchar not null,       -- what it did
    applied_at          timestamptz not null    -- when
);
