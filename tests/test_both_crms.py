"""A Salesforce org and a HubSpot portal in one warehouse: what is the same in both CRMs reads the same, whichever a deal came from."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from company import NIGHT_2, WORKDAY, _environment, company, configuration, run_flow

from flows import stages
from flows.sync import sync

CALL = WORKDAY + timedelta(hours=2)
NIGHT_4 = datetime(2026, 3, 12, 23, 30, tzinfo=UTC)
# What one CRM has, the other has under its own name, or not at all.
OF_THE_CRM = {
    "source", "crm", "opportunity_key", "opportunity_id", "url", "account_id", "owner_id", "owner_name", "owner_email", "team", "pipeline",
    "crm_stage", "crm_stage_label", "type", "probability", "weighted_home", "as_of", "stage_changed_by",
}  # fmt: skip
TABLES = (
    "core.opportunity", "core.opportunity_version", "core.stage_event", "core.account", "core.owner", "core.contact_role", "core.activity",
    "core.stage_map", "bi.opportunity",
)  # fmt: skip
STAGES = {
    "open": ("Qualification", "qualifiedtobuy"), "won": ("Closed Won", "closedwon"), "lost": ("Closed Lost", "closedlost"),
    "bare": ("Qualification", "qualifiedtobuy"),
}  # fmt: skip


class Twins:
    """One company's deals, each kept in both CRMs by people who write down the same."""

    def __init__(self, sim) -> None:
        self.org, self.portal, self.clock = sim.salesforce, sim.hubspot, sim.clock
        self.seller = self.org.rows('select "Id" from "User" where "IsActive" and "UserType" = \'Standard\' order by "Id" desc limit 1')[0][0]
        self.owner = self.portal.rows("select max(id) from owner where archived_at is null and type = 'PERSON'")[0][0]
        self.account = self.org.create("Account", {"Name": "Acme Pumps", "Industry": "Utilities", "NumberOfEmployees": 250})
        self.firm = self.portal.create("companies", {"name": "Acme Pumps", "numberofemployees": "250"})
        people = [self.org.create("Contact", {"LastName": name, "AccountId": self.account}) for name in ("Kim", "Ruiz")]
        buyers = [self.portal.create("contacts", {"email": f"{name}@acme.test"}) for name in ("kim", "ruiz")]
        # Midnight of the 1st of April in Berlin, where the company is, is still the 31st of March in UTC.
        self.keys = {
            "open": self.deal(
                "open", {"Amount": 1234.5, "CloseDate": "2026-04-01", "NextStep": "Send the quote", "Description": "Two pumps"},
                {"amount": "1234.50", "closedate": "2026-03-31T22:00:00Z", "hs_next_step": "Send the quote", "description": "Two pumps"},
            ),
            "won": self.deal("won", {"Amount": 99, "CloseDate": "2026-03-10"}, {"amount": "99", "closedate": "2026-03-10T09:00:00Z"}),
            "lost": self.deal("lost", {"Amount": 0, "CloseDate": "2026-03-10"}, {"amount": "0", "closedate": "2026-03-10T09:00:00Z"}),
            "bare": self.deal("bare", {"CloseDate": "2026-05-31"}, {"closedate": "2026-05-31T10:00:00Z"}),
        }  # fmt: skip
        ours, theirs = self.keys["open"]
        for number, (person, buyer) in enumerate(zip(people, buyers, strict=True)):
            role = {"OpportunityId": ours, "ContactId": person, "Role": "Evaluator", "IsPrimary": number == 0}
            self.org.create("OpportunityContactRole", role)
            self.portal.associate("deals", theirs, "contacts", buyer)
        self.clock.set(WORKDAY + timedelta(hours=1))
        for kind in ("won", "lost"):
            ours, theirs = self.keys[kind]
            self.org.update("Opportunity", ours, {"StageName": STAGES[kind][0], **({"Loss_Reason__c": "Price"} if kind == "lost" else {})})
            reason = {"closed_lost_reason": "Price"} if kind == "lost" else {}
            self.portal.update("deals", theirs, {"dealstage": STAGES[kind][1], "closedate": "2026-03-10T09:00:00Z", **reason})
        ours, theirs = self.keys["open"]
        self.org.update("Opportunity", ours, {"ForecastCategoryName": "Commit", "CloseDate": "2026-04-20"})
        self.portal.update("deals", theirs, {"hs_manual_forecast_category": "COMMIT", "closedate": "2026-04-20T07:00:00Z"})
        self.clock.set(CALL)
        self.org.create("Task", {"WhatId": ours, "Subject": "Call", "Status": "Completed", "ActivityDate": "2026-03-10", "OwnerId": self.seller})
        self.portal.log_activity(theirs, "call", CALL)
        self.org.create("Task", {"WhatId": ours, "Subject": "Quote", "ActivityDate": "2026-03-11", "OwnerId": self.seller})
        self.portal.log_activity(theirs, "task", datetime(2026, 3, 11, 9, tzinfo=UTC), is_open=True)
        # Others work on: what comes to pass on these deals afterwards must be known without their being read again.
        self.clock.set(CALL + timedelta(hours=6))
        self.portal.create("deals", {"dealname": "Later", "dealstage": "qualifiedtobuy"})

    def deal(self, kind, ours, theirs):
        name = f"Acme Pumps - {kind}"
        fields = {"Name": name, "AccountId": self.account, "OwnerId": self.seller, "StageName": "Qualification", "CurrencyIsoCode": "EUR"}
        values = {"dealname": name, "dealstage": "qualifiedtobuy", "hubspot_owner_id": str(self.owner), "deal_currency_code": "EUR"}
        return (
            self.org.create("Opportunity", {**fields, **ours}, by=self.seller),
            self.portal.create("deals", {**values, **theirs}, [("companies", self.firm)]),
        )


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    directory = tmp_path_factory.mktemp("both")
    with company(salesforce_deals=80, hubspot_deals=80) as sim, _environment(sim):
        file = configuration(directory, sim)
        sim.clock.freeze()
        sim.clock.set(WORKDAY)
        twins = Twins(sim)
        told = {}
        for now in (NIGHT_2, NIGHT_4):
            sim.clock.set(now)
            assert run_flow(file, sync, now).errors == {}
            run_flow(file, stages.refresh, now)
            with duckdb.connect(str(directory / "plumbline.duckdb"), read_only=True) as con:
                told[now] = {kind: [_row(con, source, key) for source, key in zip(("sales", "inbound"), keys, strict=True)]
                             for kind, keys in twins.keys.items()}  # fmt: skip
        with duckdb.connect(str(directory / "plumbline.duckdb"), read_only=True) as con:
            con.execute("set timezone = 'UTC'")
            yield con, told, twins


def _row(con, source, key):
    cursor = con.execute("select * from bi.opportunity where opportunity_key = ?", [f"{source}:{key}"])
    return dict(zip([column[0] for column in cursor.description], cursor.fetchone(), strict=True))


@pytest.mark.parametrize("kind", STAGES)
def test_a_deal_kept_in_both_crms_reads_the_same(warehouse, kind):
    _, told, _ = warehouse
    for now in (NIGHT_2, NIGHT_4):
        ours, theirs = told[now][kind]
        differing = {name: (ours[name], theirs[name]) for name in ours if name not in OF_THE_CRM and ours[name] != theirs[name]}
        if kind != "open":  # Salesforce gives every stage a forecast category, HubSpot leaves it to people
            assert theirs["forecast_category"] is None or "forecast_category" not in differing
            differing.pop("forecast_category", None)
        assert differing == {}, now


def test_what_stands_there_is_what_was_written(warehouse):
    _, told, _ = warehouse
    for row in told[NIGHT_2]["open"]:
        assert (str(row["close_date"]), row["close_date_pushes"], row["forecast_category"]) == ("2026-04-20", 1, "commit")
        assert (str(row["amount"]), str(row["amount_home"]), row["currency"]) == ("1234.50", "1234.50", "EUR")
        assert (str(row["last_activity_date"]), str(row["next_activity_date"])) == ("2026-03-10", "2026-03-11")
        assert (row["contact_count"], row["stage"], row["account_name"], row["owner_active"]) == (2, "qualified", "Acme Pumps", True)
    for row in told[NIGHT_4]["open"]:
        assert row["next_activity_date"] is None  # overdue by then: nothing to come, though no stamp has moved
    for row in told[NIGHT_2]["lost"]:
        assert (str(row["amount"]), row["status"], row["lost_reason"], str(row["closed_date"])) == ("0.00", "lost", "Price", "2026-03-10")
    for row in told[NIGHT_2]["bare"]:
        assert (row["amount"], row["next_step"], row["contact_count"], row["last_activity_date"]) == (None, None, 0, None)


def test_the_past_of_both_is_told_alike(warehouse):
    con, _, twins = warehouse
    moves = """select "at", from_stage, to_stage, kind from core.stage_event where opportunity_key = ? order by "at" """
    states = """select stage, amount, currency, amount_home, close_date, next_step, is_closed, is_won, is_deleted
                from core.opportunity_version where opportunity_key = ? order by valid_from"""
    for kind, (ours, theirs) in twins.keys.items():
        told = [con.execute(moves, [key]).fetchall() for key in (f"sales:{ours}", f"inbound:{theirs}")]
        assert told[0] == told[1], kind
        told = [list(dict.fromkeys(con.execute(states, [key]).fetchall())) for key in (f"sales:{ours}", f"inbound:{theirs}")]
        assert told[0] == told[1], kind


UNITS = {
    "probability": "between 0 and 1", "stage_default_probability": "between 0 and 1", "currency": "similar to '[A-Z]{3}'",
    "forecast_category": "in ('omitted', 'pipeline', 'best_case', 'most_likely', 'commit', 'closed')",
    "stage": "in ('prequalified', 'qualified', 'discovery', 'proposal', 'negotiation', 'closed_won', 'closed_lost', 'on_hold', 'unmapped')",
    "kind": "in ('enter', 'advance', 'skip', 'regress', 'won', 'lost', 'reopen', 'move', 'task', 'event')",
    "created_at": "<= $now", "closed_at": "<= $now", "stage_entered_at": "<= $now", "last_activity_at": "<= $now",
    "next_step_changed_at": "<= $now", "age_days": ">= 0", "contact_count": ">= 0", "close_date_pushes": ">= 0", "fx_rate": "> 0",
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_units_are_the_same_and_nothing_is_an_empty_text(warehouse, table):
    con, _, _ = warehouse
    for name, kind, *_ in con.execute(f"describe {table}").fetchall():
        if name in UNITS:
            words = UNITS[name]
            given = {"now": NIGHT_4} if "$now" in words else {}
            wrong = con.execute(f'select count(*) from {table} where not ("{name}" {words})', given).fetchone()
            assert wrong == (0,), name
        if kind == "VARCHAR":
            assert con.execute(f"""select count(*) from {table} where trim("{name}") = ''""").fetchone() == (0,), name


def test_an_open_deal_has_no_closing_and_a_closed_one_has_in_both(warehouse):
    con, _, _ = warehouse
    wrong = "select count(*) from core.opportunity where (closed_at is not null) <> is_closed or (is_won and not is_closed)"
    assert con.execute(wrong).fetchone() == (0,)


def test_columns_that_one_crm_alone_fills_are_those_that_the_manual_names(warehouse):
    con, _, _ = warehouse
    alone, shared = set(), set()
    for table in TABLES:
        source = "source" if "source" in con.sql(f"from {table}").columns else "split_part(opportunity_key, ':', 1)"
        names = con.sql(f"from {table}").columns
        counts = ", ".join(f'count("{name}")' for name in names)
        filled = {row[0]: row[1:] for row in con.execute(f"select {source}, {counts} from {table} group by all").fetchall()}
        ours, theirs = (filled.get(name, (0,) * len(names)) for name in ("sales", "inbound"))
        if not any(theirs):
            alone.add(table)
            continue
        alone |= {f"{table}.{name}" for name, a, b in zip(names, ours, theirs, strict=True) if bool(a) != bool(b)}
        shared |= {f"{table}.{name}" for name, a, b in zip(names, ours, theirs, strict=True) if a and b}
    manual = (Path(__file__).parents[1] / "docs/hubspot.md").read_text(encoding="utf-8")
    section = manual.partition("## Columns that one CRM alone fills")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `([\w.]+)`", section, re.MULTILINE))
    assert alone <= named
    assert not named & shared
