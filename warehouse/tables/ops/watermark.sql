-- How far each object has been read: every record with a stamp up to here has been landed (docs/sync.md says why).
create table if not exists ops.watermark (
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object
    watermark           timestamptz not null,   -- by the CRM's clock
    run_id              varchar not null        -- run that committed it
);
