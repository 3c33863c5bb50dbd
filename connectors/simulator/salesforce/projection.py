"""The simulated company as a Salesforce org: set-based SQL from the company's tables to the org's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from connectors.simulator.salesforce import effects, seed
from connectors.simulator.salesforce.catalogue import picklist
from connectors.simulator.salesforce.ids import FIRST_NUMBER, sql_id
from connectors.simulator.salesforce.objects import FORECAST_CATEGORY_NAMES

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

TABLES = [
    "profile", "currency", "dated_rate", "team", "person", "pipeline", "stage", "account", "contact", "deal", "deal_change",
    "deal_contact", "activity",
]  # fmt: skip
# canonical forecast category -> the platform's
_CATEGORIES = {
    "omitted": "Omitted", "pipeline": "Pipeline", "best_case": "BestCase", "most_likely": "MostLikely", "commit": "Forecast",
    "closed": "Closed",
}  # fmt: skip
_PICKLISTS = {
    "Opportunity": {
        "Loss_Reason__c": "deal.loss_reason", "Region__c": "deal.region", "Product_Line__c": "deal.product_line",
        "LeadSource": "deal.lead_source", "Type": "deal.type",
    },
    "Account": {"Industry": "account.industry"},
    "OpportunityContactRole": {"Role": "deal_contact.role"},
}  # fmt: skip


def _id(prefix: str, number: str) -> str:
    return sql_id(prefix, f"{FIRST_NUMBER} + {number}")


def _utc(column: str) -> str:
    """An instant as the org keeps it. By way of the epoch: AT TIME ZONE looks a zone up per row."""
    return f"make_timestamp(epoch_us({column}::TIMESTAMPTZ) // 1000000 * 1000000)"


def _case(column: str, values: dict[str, str]) -> str:
    return f"CASE {column} {' '.join(f'''WHEN '{k}' THEN '{v}' ''' for k, v in values.items())} END"


def _stamped(created: str, by: str, modified: str | None = None, modified_by: str | None = None, *, deleted: str | None = "false") -> str:
    """Columns of the stamps; `modified` defaults to `created`."""
    modified = modified or created
    gone = f', {deleted} AS "IsDeleted"' if deleted else ""
    return (
        f'{created} AS "CreatedDate", {by} AS "CreatedById", {modified} AS "LastModifiedDate", {modified_by or by} AS "LastModifiedById", '
        f'{modified} AS "SystemModstamp"{gone}'
    )


def load_company(org: SalesforceOrg, company_con: duckdb.DuckDBPyConnection) -> None:
    """Replace the org's records by those of the company in the schema `company` of `company_con`.

    Ids follow the company's own numbers: the same company gives the same org. `simulator.company_key` tells which record is which.
    """
    with tempfile.TemporaryDirectory(prefix="plumbline-company-") as directory, org.lock:
        con = org.con
        con.execute("CREATE SCHEMA IF NOT EXISTS scratch.company")
        for table in TABLES:
            path = Path(directory) / f"{table}.parquet"
            company_con.execute(f"COPY company.{table} TO '{path}' (FORMAT parquet)")
            con.execute(f"CREATE OR REPLACE VIEW scratch.company.{table} AS FROM read_parquet('{path}')")
        con.execute("BEGIN")
        for o in org.tables():
            if o.name != "Profile":
                con.execute(f'DELETE FROM "{o.name}"')
        con.execute("DELETE FROM simulator.deletion")
        con.execute("DELETE FROM simulator.company_key")
        admin = con.execute(f"SELECT {_id('005', 'min(person_id)')} FROM scratch.company.person WHERE kind = 'admin'").fetchall()[0][0]
        for statement in _statements(f"'{admin}'", org):
            con.execute(statement)
        con.execute("COMMIT")
        for sobject, fields in _PICKLISTS.items():
            for field, source in fields.items():
                table, column = source.split(".")
                found = f"SELECT DISTINCT {column} FROM scratch.company.{table} WHERE {column} IS NOT NULL ORDER BY ALL"
                values = con.execute(found).fetchall()
                org.objects[sobject].fields[field].definition["picklistValues"] = picklist([v for (v,) in values])
                org.remember_field(sobject, field)
        con.execute("DROP SCHEMA scratch.company CASCADE")
        org.renumber()


def _statements(admin: str, org: SalesforceOrg) -> list[str]:
    """The projection, in order; later statements read what earlier ones wrote."""
    c = "scratch.company"
    profiles = {name: f"(SELECT \"Id\" FROM \"Profile\" WHERE \"Name\" LIKE '{name}%')" for name in ("System", "Standard", "Minimum")}
    now = f"TIMESTAMP '{org.now().replace(tzinfo=None)}'"
    set_up = f'(SELECT {_utc("org_created_at")} AS at FROM {c}.profile) o'
    corporate = f"(SELECT iso_code FROM {c}.currency WHERE is_home)"
    category_names = {category: FORECAST_CATEGORY_NAMES[name] for category, name in _CATEGORIES.items()}
    user = {column: _id("005", f"x.{column}") for column in ("person_id", "manager_id", "owner_id", "created_by")}

    organization = f"""
        INSERT INTO "Organization" BY NAME
        SELECT {_id("00D", "0")} AS "Id", name AS "Name", 'DE' AS "Country", 'de_DE_EURO' AS "DefaultLocaleSidKey",
               timezone AS "TimeZoneSidKey", 'en_US' AS "LanguageLocaleKey", fiscal_year_start_month AS "FiscalYearStartMonth",
               false AS "UsesStartDateAsFiscalYearName", 'DEU42' AS "InstanceName", false AS "IsSandbox",
               'Enterprise Edition' AS "OrganizationType", 'None' AS "DefaultAccountAccess", 'None' AS "DefaultOpportunityAccess",
               {_stamped(_utc("org_created_at"), admin, deleted=None)}
        FROM {c}.profile
    """
    currencies = f"""
        INSERT INTO "CurrencyType" BY NAME
        SELECT {_id("01L", "row_number() OVER (ORDER BY iso_code)")} AS "Id", iso_code AS "IsoCode", rate AS "ConversionRate",
               2 AS "DecimalPlaces", is_active AS "IsActive", is_home AS "IsCorporate", {_stamped("o.at", admin, deleted=None)}
        FROM {c}.currency, {set_up}
    """
    dated_rates = f"""
        INSERT INTO "DatedConversionRate" BY NAME
        SELECT {_id("04w", "row_number() OVER (ORDER BY start_date, iso_code)")} AS "Id", iso_code AS "IsoCode", rate AS "ConversionRate",
               start_date AS "StartDate", next_start_date AS "NextStartDate",
               {_stamped("greatest(start_date::TIMESTAMP, o.at)", admin, deleted=None)}
        FROM {c}.dated_rate, {set_up}
    """
    roles = f"""
        INSERT INTO "UserRole" BY NAME
        SELECT {_id("00E", "row_number() OVER (ORDER BY role_name)")} AS "Id", role_name AS "Name",
               replace(role_name, ' ', '_') AS "DeveloperName", {_stamped("o.at", admin, deleted=None)}
        FROM (SELECT DISTINCT role_name FROM {c}.person WHERE role_name IS NOT NULL), {set_up}
    """
    # The admin and the first integration keep their usernames in every org, so that credentials need not know the company.
    users = f"""
        INSERT INTO "User" BY NAME
        WITH first AS (SELECT kind, min(person_id) AS person_id FROM {c}.person GROUP BY kind)
        SELECT {user["person_id"]} AS "Id",
               CASE WHEN x.person_id = first.person_id AND x.kind = 'admin' THEN '{seed.ADMIN}'
                    WHEN x.person_id = first.person_id AND x.kind = 'integration' THEN '{seed.INTEGRATION}' ELSE x.email END AS "Username",
               x.first_name AS "FirstName", x.last_name AS "LastName", x.email AS "Email",
               lower(coalesce(x.first_name[1:1], '') || x.last_name[1:4]) AS "Alias", x.title AS "Title", x.team AS "Department",
               team.region AS "Division", x.is_active AS "IsActive", p.name AS "CompanyName", p.timezone AS "TimeZoneSidKey",
               'en_US' AS "LanguageLocaleKey", p.currency AS "CurrencyIsoCode", p.currency AS "DefaultCurrencyIsoCode",
               'Standard' AS "UserType", role."Id" AS "UserRoleId", {user["manager_id"]} AS "ManagerId",
               x.person_id::VARCHAR AS "EmployeeNumber",
               CASE x.kind WHEN 'admin' THEN {profiles["System"]} WHEN 'integration' THEN {profiles["Minimum"]}
                    ELSE {profiles["Standard"]} END AS "ProfileId",
               {_stamped(_utc("x.joined_at"), admin, _utc("coalesce(x.left_at, x.joined_at)"), deleted=None)}
        FROM {c}.person x CROSS JOIN {c}.profile p JOIN first ON first.kind = x.kind
        LEFT JOIN {c}.team team ON team.team = x.team LEFT JOIN "UserRole" role ON role."Name" = x.role_name
    """
    automated = f"""
        INSERT INTO "User" BY NAME
        SELECT {_id("005", f"(SELECT max(person_id) + 1 FROM {c}.person)")} AS "Id", '{seed.AUTOMATED}' AS "Username",
               'Automated Process' AS "LastName", '{seed.AUTOMATED}' AS "Email", 'autoproc' AS "Alias", true AS "IsActive",
               'AutomatedProcess' AS "UserType", p.timezone AS "TimeZoneSidKey", 'en_US' AS "LanguageLocaleKey",
               {profiles["Standard"]} AS "ProfileId", {_stamped("o.at", admin, deleted=None)}
        FROM {c}.profile p, {set_up}
    """
    profile_stamps = f'UPDATE "Profile" SET "CreatedById" = {admin}, "LastModifiedById" = {admin}'
    processes = f"""
        INSERT INTO "BusinessProcess" BY NAME
        SELECT {_id("019", "position")} AS "Id", label || ' Process' AS "Name", 'Opportunity' AS "TableEnumOrId", true AS "IsActive",
               (SELECT list(stage ORDER BY position) FROM {c}.stage x WHERE x.pipeline = pipeline.pipeline) AS _stages,
               {_stamped("o.at", admin, deleted=None)}
        FROM {c}.pipeline, {set_up}
    """
    record_types = f"""
        INSERT INTO "RecordType" BY NAME
        SELECT {_id("012", "position")} AS "Id", {_id("019", "position")} AS "BusinessProcessId",
               label AS "Name", regexp_replace(label, '[^A-Za-z0-9]+', '_', 'g') AS "DeveloperName",
               'Opportunity' AS "SobjectType", true AS "IsActive", {_stamped("o.at", admin, deleted=None)}
        FROM {c}.pipeline, {set_up}
    """
    category = _case("forecast_category", _CATEGORIES)
    stages = f"""
        INSERT INTO "OpportunityStage" BY NAME
        WITH shared AS (
            SELECT stage, any_value(label) AS label, max(probability) AS probability, any_value({category}) AS category,
                   bool_or(is_closed) AS is_closed, bool_or(is_won) AS is_won, bool_or(is_active) AS is_active, min(position) AS position
            FROM {c}.stage GROUP BY stage),
        ordered AS (SELECT *, row_number() OVER (ORDER BY is_closed, is_won DESC, probability, position, stage) AS place FROM shared)
        SELECT {_id("01J", "place")} AS "Id", label AS "MasterLabel", stage AS "ApiName", is_active AS "IsActive", place AS "SortOrder",
               is_closed AS "IsClosed", is_won AS "IsWon", category AS "ForecastCategory",
               {_case("category", FORECAST_CATEGORY_NAMES)} AS "ForecastCategoryName", probability AS "DefaultProbability",
               {_stamped("o.at", admin, deleted=None)}
        FROM ordered, {set_up}
    """
    accounts = f"""
        INSERT INTO "Account" BY NAME
        SELECT {_id("001", "x.account_id")} AS "Id", x.name AS "Name", x.industry AS "Industry", x.employees AS "NumberOfEmployees",
               x.website AS "Website", x.country AS "BillingCountry", x.city AS "BillingCity", {user["owner_id"]} AS "OwnerId",
               {corporate} AS "CurrencyIsoCode", {_stamped(_utc("x.created_at"), user["created_by"])}
        FROM {c}.account x
    """
    contacts = f"""
        INSERT INTO "Contact" BY NAME
        SELECT {_id("003", "x.contact_id")} AS "Id", {_id("001", "x.account_id")} AS "AccountId", x.first_name AS "FirstName",
               x.last_name AS "LastName", x.email AS "Email", x.title AS "Title", {_id("005", "a.owner_id")} AS "OwnerId",
               {corporate} AS "CurrencyIsoCode", false AS "IsEmailBounced", {_stamped(_utc("x.created_at"), _id("005", "a.owner_id"))}
        FROM {c}.contact x JOIN {c}.account a USING (account_id)
    """
    # OpportunityHistory: the deal as it stood after each instant at which something of it changed. A value may have been emptied,
    # so what is carried on is "a value was set here", wrapped in a list, not the value itself.
    wrapped = ", ".join(
        f"CASE WHEN bool_or(field = '{f}') THEN [arg_max(new, seq) FILTER (field = '{f}')] END AS {f}"
        for f in ("stage", "amount", "close_date", "probability", "forecast_category")
    )
    carried = ", ".join(
        f"last_value({f} IGNORE NULLS) OVER w AS {f}" for f in ("stage", "amount", "close_date", "probability", "forecast_category")
    )
    history = f"""
        CREATE OR REPLACE TEMP TABLE snapshots AS
        WITH instants AS (
            SELECT deal_id, "at", arg_max(person_id, seq) AS person_id, {wrapped}
            FROM {c}.deal_change GROUP BY deal_id, "at"),
        whole AS (
            SELECT deal_id, "at", person_id, {carried} FROM instants
            WINDOW w AS (PARTITION BY deal_id ORDER BY "at" ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)),
        plain AS (
            SELECT deal_id, {_utc('"at"')} AS "at", person_id, stage[1] AS stage, amount[1]::DECIMAL(18,2) AS amount,
                   close_date[1]::DATE AS close_date, probability[1]::DECIMAL(3,0) AS probability,
                   {_case("forecast_category[1]", _CATEGORIES)} AS category
            FROM whole),
        compared AS (
            SELECT *, lag(deal_id) OVER w IS NULL AS is_first, lag(stage) OVER w AS old_stage, lag(amount) OVER w AS old_amount,
                   lag(close_date) OVER w AS old_close_date, lag(probability) OVER w AS old_probability
            FROM plain WINDOW w AS (PARTITION BY deal_id ORDER BY "at"))
        SELECT *, row_number() OVER (ORDER BY "at", deal_id) AS number FROM compared
        WHERE is_first OR (stage, amount, close_date, probability) IS DISTINCT FROM (old_stage, old_amount, old_close_date, old_probability)
    """
    opportunities = f"""
        INSERT INTO "Opportunity" BY NAME
        WITH current AS (
            SELECT deal_id, arg_max(new, ("at", seq)) FILTER (field = 'owner') AS owner,
                   arg_max([new], ("at", seq)) FILTER (field = 'next_step') AS next_step,
                   arg_max(new, ("at", seq)) FILTER (field = 'forecast_category') AS forecast_category,
                   arg_max(person_id, ("at", seq)) AS person_id
            FROM {c}.deal_change GROUP BY deal_id),
        stood AS (
            SELECT deal_id, last(stage ORDER BY "at") AS stage, last(amount ORDER BY "at") AS amount,
                   last(close_date ORDER BY "at") AS close_date, last(probability ORDER BY "at") AS probability,
                   max("at") FILTER (NOT is_first AND stage IS DISTINCT FROM old_stage) AS stage_changed_at,
                   max(number) FILTER (NOT is_first AND amount IS DISTINCT FROM old_amount) AS amount_history,
                   max(number) FILTER (NOT is_first AND close_date IS DISTINCT FROM old_close_date) AS close_date_history,
                   count(*) FILTER (date_trunc('month', close_date) > date_trunc('month', old_close_date)) AS pushes
            FROM snapshots GROUP BY deal_id)
        SELECT {_id("006", "x.deal_id")} AS "Id", {_id("001", "x.account_id")} AS "AccountId", x.name AS "Name", x.type AS "Type",
               x.description AS "Description", x.lead_source AS "LeadSource", {_id("012", "pipeline.position")} AS "RecordTypeId",
               false AS "IsPrivate", false AS "HasOpportunityLineItem", x.currency AS "CurrencyIsoCode",
               x.loss_reason AS "Loss_Reason__c", x.win_reason AS "Win_Reason__c", x.competitor AS "MainCompetitors__c",
               x.region AS "Region__c", x.product_line AS "Product_Line__c",
               stood.stage AS "StageName", stood.amount AS "Amount", stood.close_date AS "CloseDate",
               stood.probability AS "Probability", {_id("005", "current.owner::INTEGER")} AS "OwnerId", current.next_step[1] AS "NextStep",
               {_case("current.forecast_category", _CATEGORIES)} AS "ForecastCategory",
               {_case("current.forecast_category", category_names)} AS "ForecastCategoryName",
               st."IsClosed" AS "IsClosed", st."IsWon" AS "IsWon", stood.stage_changed_at AS "LastStageChangeDate",
               stood.pushes AS "PushCount", {_id("008", "stood.amount_history")} AS "LastAmountChangedHistoryId",
               {_id("008", "stood.close_date_history")} AS "LastCloseDateChangedHistoryId",
               {_stamped(_utc("x.created_at"), user["created_by"], _utc("coalesce(x.deleted_at, x.last_modified_at)"),
                         _id("005", "coalesce(x.deleted_by, current.person_id)"), deleted="x.is_deleted")}
        FROM {c}.deal x JOIN stood USING (deal_id) JOIN current USING (deal_id)
        LEFT JOIN {c}.pipeline pipeline ON pipeline.pipeline = x.pipeline
        LEFT JOIN "OpportunityStage" st ON st."ApiName" = stood.stage
    """
    opportunity_history = f"""
        INSERT INTO "OpportunityHistory" BY NAME
        SELECT {_id("008", "h.number")} AS "Id", {_id("006", "h.deal_id")} AS "OpportunityId", {_id("005", "h.person_id")} AS "CreatedById",
               h."at" AS "CreatedDate", h.stage AS "StageName", h.amount AS "Amount",
               (h.amount * h.probability / 100)::DECIMAL(18,2) AS "ExpectedRevenue", h.close_date AS "CloseDate",
               h.probability AS "Probability", h.category AS "ForecastCategory", x.currency AS "CurrencyIsoCode",
               h.old_amount AS "PrevAmount", h.old_close_date AS "PrevCloseDate", h."at" AS "SystemModstamp", x.is_deleted AS "IsDeleted"
        FROM snapshots h JOIN {c}.deal x USING (deal_id) ORDER BY h.number
    """
    # field -> name in the history, data type, and how a value is written
    named = f"(SELECT trim(concat_ws(' ', first_name, last_name)) FROM {c}.person WHERE person_id = {{}}::INTEGER)"
    tracked: list[tuple[str, str, str, str]] = [
        ("stage", "StageName", "DynamicEnum", "{}"),
        ("amount", "Amount", "Currency", "{}"),
        ("close_date", "CloseDate", "DateOnly", "{}"),
        ("next_step", "NextStep", "Text", "{}"),
        ("probability", "Probability", "Percent", "{}"),
        ("forecast_category", "ForecastCategoryName", "DynamicEnum", _case("{}", category_names)),
        ("owner", "Owner", "EntityId", _id("005", "{}::INTEGER")),
        ("owner", "Owner", "Text", named),
    ]
    changes = " UNION ALL ".join(
        f"""SELECT deal_id, "at", seq, {place} AS place, person_id, '{name}' AS field, '{kind}' AS type,
                   {value.replace("{}", "ch.old")} AS old, {value.replace("{}", "ch.new")} AS new
            FROM {c}.deal_change ch JOIN {c}.deal d USING (deal_id) WHERE ch.field = '{field}' AND ch."at" > d.created_at"""
        for place, (field, name, kind, value) in enumerate(tracked)
    )
    field_history = f"""
        INSERT INTO "OpportunityFieldHistory" BY NAME
        WITH changes AS (
            SELECT deal_id, created_at AS "at", 0 AS seq, 0 AS place, created_by AS person_id, 'created' AS field, 'Text' AS type,
                   NULL AS old, NULL AS new
            FROM {c}.deal
            UNION ALL {changes})
        SELECT {_id("017", 'row_number() OVER (ORDER BY ch."at", ch.deal_id, ch.seq, ch.place)')} AS "Id", x.is_deleted AS "IsDeleted",
               {_id("006", "ch.deal_id")} AS "OpportunityId", {_id("005", "ch.person_id")} AS "CreatedById",
               {_utc('ch."at"')} AS "CreatedDate",
               ch.field AS "Field", ch.type AS "DataType", ch.old AS _old, ch.new AS _new
        FROM changes ch JOIN {c}.deal x USING (deal_id)
    """
    contact_roles = f"""
        INSERT INTO "OpportunityContactRole" BY NAME
        SELECT {_id("00K", "row_number() OVER (ORDER BY x.created_at, x.deal_id, x.contact_id)")} AS "Id",
               {_id("006", "x.deal_id")} AS "OpportunityId", {_id("003", "x.contact_id")} AS "ContactId", x.role AS "Role",
               x.is_primary AS "IsPrimary", {corporate} AS "CurrencyIsoCode",
               {_stamped(_utc("x.created_at"), _id("005", "d.created_by"), _utc("coalesce(d.deleted_at, x.created_at)"),
                         deleted="d.is_deleted")}
        FROM {c}.deal_contact x JOIN {c}.deal d USING (deal_id)
    """
    activity = f"""{_id("006", "x.deal_id")} AS "WhatId", {_id("003", "x.contact_id")} AS "WhoId", {user["owner_id"]} AS "OwnerId",
               x.subject AS "Subject", {_id("001", "d.account_id")} AS "AccountId", {corporate} AS "CurrencyIsoCode",
               false AS "IsReminderSet" """
    touched = _utc("greatest(x.created_at, coalesce(x.completed_at, x.created_at), coalesce(d.deleted_at, x.created_at))")
    # Activities done more than a year ago are archived: only queryAll still gives them.
    tasks = f"""
        INSERT INTO "Task" BY NAME
        SELECT {_id("00T", "x.activity_id")} AS "Id", {activity}, x.due_date AS "ActivityDate",
               CASE x.status WHEN 'completed' THEN 'Completed' ELSE 'Not Started' END AS "Status", 'Normal' AS "Priority",
               x.status = 'completed' AS "IsClosed", {_utc("x.completed_at")} AS "CompletedDateTime",
               CASE x.kind WHEN 'call' THEN 'Call' WHEN 'email' THEN 'Email' ELSE 'Task' END AS "TaskSubtype",
               coalesce(x.status = 'completed' AND {_utc("x.completed_at")} < {now} - INTERVAL 365 DAY, false) AS "IsArchived",
               {_stamped(_utc("x.created_at"), user["owner_id"], touched, deleted="d.is_deleted")}
        FROM {c}.activity x JOIN {c}.deal d USING (deal_id) WHERE x.kind <> 'meeting'
    """
    events = f"""
        INSERT INTO "Event" BY NAME
        SELECT {_id("00U", "x.activity_id")} AS "Id", {activity}, {_utc("x.start_at")} AS "StartDateTime",
               {_utc("x.start_at")} AS "ActivityDateTime", {_utc("x.end_at")} AS "EndDateTime", {_utc("x.end_at")}::DATE AS "EndDate",
               {_utc("x.start_at")}::DATE AS "ActivityDate", date_diff('minute', x.start_at, x.end_at)::INTEGER AS "DurationInMinutes",
               false AS "IsAllDayEvent", false AS "IsPrivate", false AS "IsChild", false AS "IsGroupEvent", false AS "IsRecurrence",
               'Busy' AS "ShowAs", 'Event' AS "EventSubtype",
               coalesce({_utc("x.end_at")} < {now} - INTERVAL 365 DAY, false) AS "IsArchived",
               {_stamped(_utc("x.created_at"), user["owner_id"], touched, deleted="d.is_deleted")}
        FROM {c}.activity x JOIN {c}.deal d USING (deal_id) WHERE x.kind = 'meeting'
    """
    # The last activity date moved SystemModstamp when the activity came, which nobody noted: its creation is the best guess.
    activity_flags = f"""
        UPDATE "Opportunity" SET "LastActivityDate" = r.last_activity, _open_tasks = r.open_tasks, _next_task_due = r.next_due,
               _last_event_end = r.last_end, "SystemModstamp" = greatest("SystemModstamp", done.at)
        FROM ({effects.activity_roll_up('SELECT "Id" FROM "Opportunity"')}) r
        LEFT JOIN (
            SELECT deal_id, max({_utc("coalesce(completed_at, created_at)")}) AS at FROM {c}.activity
            WHERE kind = 'meeting' OR status = 'completed' GROUP BY deal_id) done ON r.id = {_id("006", "done.deal_id")}
        WHERE "Opportunity"."Id" = r.id
    """
    taken_along = """
        UPDATE {table} SET _deleted_with = "{lookup}" WHERE "IsDeleted"
    """
    deletions = f"""
        INSERT INTO simulator.deletion
        SELECT 'Opportunity', {_id("006", "deal_id")}, {_utc("deleted_at")} FROM {c}.deal WHERE is_deleted
        UNION ALL
        SELECT 'OpportunityContactRole', r."Id", o."SystemModstamp"
        FROM "OpportunityContactRole" r JOIN "Opportunity" o ON o."Id" = r."OpportunityId"
        WHERE r."IsDeleted"
    """
    keys = " UNION ALL ".join(
        f"SELECT '{sobject}', {column}, {_id(prefix, column)} FROM {c}.{table}"
        for sobject, prefix, table, column in [
            ("User", "005", "person", "person_id"), ("Account", "001", "account", "account_id"),
            ("Contact", "003", "contact", "contact_id"), ("Opportunity", "006", "deal", "deal_id"),
        ]
    )  # fmt: skip
    return [
        organization, profile_stamps, currencies, dated_rates, roles, users, automated, processes, record_types, stages, accounts, contacts,
        history, opportunities, opportunity_history, field_history, contact_roles, tasks, events, activity_flags,
        *(
            taken_along.format(table=f'"{table}"', lookup=lookup)
            for table, lookup in [("OpportunityContactRole", "OpportunityId"), ("Task", "WhatId"), ("Event", "WhatId"),
                                  ("OpportunityHistory", "OpportunityId"), ("OpportunityFieldHistory", "OpportunityId")]
        ),
        deletions, f"INSERT INTO simulator.company_key {keys}", "DROP TABLE snapshots",
    ]  # fmt: skip
