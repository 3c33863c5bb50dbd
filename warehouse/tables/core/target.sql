-- What is to be won, or made, in a period: from the CSV that the configuration names ([metrics] targets), or written here by hand where it names none.
create table if not exists core.target (
    measure             varchar not null,       -- won: to be booked in the period; created: to first reach qualified in it
    period_start        date not null,          -- first business day
    period_end          date not null,          -- last business day
    source              varchar,                -- name of the source; NULL: all of them together
    pipeline            varchar,                -- pipeline or record type; NULL: all of them together
    owner               varchar,                -- the CRM's id of an owner, or the e-mail address by which an owner is known; NULL: all of them together
    amount_home         decimal(18, 2) not null -- in the home currency
);
