-- Values that a CRM delivers and that cannot be read as what they should be: the column is empty, the text stays in raw as it came. One row
-- per value, as of the last sync; it goes when the record says something else, or is deleted. core.unparsed counts them.
create table if not exists core.unparsed_value (
    source              varchar not null,       -- name of the source
    object              varchar not null,       -- the CRM's object; deals.history: a past value
    record_id           varchar not null,       -- the record's id in the CRM; of a past value, the deal's
    property            varchar not null,       -- the CRM's field
    column_name         varchar not null,       -- column that misses it: of core.opportunity, or evidence.NAME, or table.column of core
    expected            varchar not null,       -- what it should be: number, share (from 0 to 1), date, instant, boolean
    first_seen_at       timestamptz not null    -- --now of the run that first saw that it cannot be read
);
