"""The objects that the simulated org has: the standard ones that a pipeline reads, with the customisations of its admin."""

from __future__ import annotations

from typing import Any

from connectors.simulator.salesforce.access import access_objects
from connectors.simulator.salesforce.catalogue import (
    Field,
    SObject,
    make_field,
    make_object,
    recorded_object,
    stamps,
    system_field,
)  # fmt: skip

CURRENCIES = ["EUR", "USD", "GBP", "CHF", "SEK", "PLN", "DKK", "NOK", "CZK", "JPY", "CAD", "AUD"]
FORECAST_CATEGORIES = ["Omitted", "Pipeline", "BestCase", "MostLikely", "Forecast", "Closed"]
# ForecastCategory is the enum of the platform, ForecastCategoryName the label that admins may rename: Forecast is shown as Commit.
FORECAST_CATEGORY_NAMES = {
    "Omitted": "Omitted",
    "Pipeline": "Pipeline",
    "BestCase": "Best Case",
    "MostLikely": "Most Likely",
    "Forecast": "Commit",
    "Closed": "Closed",
}
SHARING = [["None", "Private"], ["Read", "Read Only"], ["Edit", "Read/Write"]]  # org-wide defaults
LOSS_REASONS = ["Price", "Competitor", "No budget", "No decision", "Timing", "Missing feature", "Lost contact", "Other"]

FULL_NAME = "trim(concat_ws(' ', {t}.\"FirstName\", {t}.\"LastName\"))"


def currency_code() -> Field:
    """CurrencyIsoCode, which every business record of a multi-currency org has."""
    return make_field(
        "CurrencyIsoCode", "picklist", "Currency ISO Code", length=3, defaultedOnCreate=True, restrictedPicklist=True,
        picklistValues=CURRENCIES,
    )  # fmt: skip


def record_type() -> Field:
    return make_field(
        "RecordTypeId", "reference", "Record Type ID", referenceTo="RecordType", relationshipName="RecordType", defaultedOnCreate=True
    )


def plumbline_fields() -> list[Field]:
    """Plumbline's own six fields, as docs/configuration.md lists them."""
    statuses = ["OK", "Attention", "At risk", "Critical", "Snoozed"]
    return [
        make_field("Plumbline_Status__c", "picklist", picklistValues=statuses),
        make_field("Plumbline_Score__c", "double", precision=3, scale=0),
        make_field("Plumbline_Top_Issue__c", "string", length=255),
        make_field("Plumbline_Issues__c", "textarea", length=2000, extraTypeInfo="plaintextarea"),
        make_field("Plumbline_Flagged_Since__c", "date"),
        make_field("Plumbline_Snooze_Until__c", "date"),
    ]


def opportunity() -> SObject:
    o = recorded_object("Opportunity")
    days = "date_diff('day', {}, {{now}})"
    computed = {
        "ExpectedRevenue": '({t}."Amount" * {t}."Probability" / 100)::DECIMAL(18,2)',
        "FiscalQuarter": '(1 + ((month({t}."CloseDate") - {fiscal_month} + 12) % 12) // 3)::INTEGER',
        "FiscalYear": '(year({t}."CloseDate") + CASE WHEN {fiscal_month} > 1 AND month({t}."CloseDate") >= {fiscal_month} '
        "THEN 1 ELSE 0 END)::INTEGER",
        "HasOpenActivity": "(coalesce({t}._open_tasks, 0) > 0 OR coalesce({t}._last_event_end >= {now}, false))",
        "HasOverdueTask": "coalesce({t}._next_task_due < {today}, false)",
    }
    computed["Fiscal"] = f"({computed['FiscalYear']} || ' ' || {computed['FiscalQuarter']})"
    for name, sql in computed.items():
        o.fields[name].sql = sql
    o.fields["ForecastCategory"].definition["picklistValues"] = make_field(
        "f", "picklist", picklistValues=FORECAST_CATEGORIES
    ).definition["picklistValues"]
    o.fields["ForecastCategoryName"].definition["picklistValues"] = make_field(
        "f", "picklist", picklistValues=list(FORECAST_CATEGORY_NAMES.values())
    ).definition["picklistValues"]
    extra = [
        record_type(),
        currency_code(),
        system_field("PushCount", "int", "Push Count"),
        system_field("AgeInDays", "int", "Age In Days", sql=days.format('{t}."CreatedDate"') + "::INTEGER"),
        system_field(
            "LastStageChangeInDays", "int", "Days Since Last Stage Change",
            sql=days.format('coalesce({t}."LastStageChangeDate", {t}."CreatedDate")') + "::INTEGER",
        ),
        make_field("MainCompetitors__c", "string", "Main Competitor(s)", length=100),
        make_field("Loss_Reason__c", "picklist", restrictedPicklist=True, picklistValues=LOSS_REASONS),
        make_field("Win_Reason__c", "string", length=255),
        make_field("Region__c", "picklist", picklistValues=["DACH", "Nordics", "UKI", "France", "Benelux", "Iberia", "Italy", "CEE"]),
        make_field("Product_Line__c", "picklist", picklistValues=["Platform", "Analytics", "Services"]),
        make_field("Days_Open__c", "double", scale=0, formula="TODAY() - DATEVALUE(CreatedDate)"),
        make_field("Weighted_Amount__c", "currency", formula="Amount * Probability / 100"),
        make_field("Account_Industry__c", "string", length=1300, formula="TEXT(Account.Industry)"),
        *plumbline_fields(),
    ]  # fmt: skip
    for f in extra:
        o.add(f)
    return o


def account() -> SObject:
    a = recorded_object("Account", without=["RecordTypeId", "PhotoUrl"])
    a.add(currency_code())
    return a


def contact() -> SObject:
    c = recorded_object("Contact", without=["PhotoUrl", "Jigsaw", "JigsawContactId", "CleanStatus"])
    c.fields["Name"].sql = FULL_NAME
    c.add(currency_code())
    return c


def event() -> SObject:
    e = recorded_object("Event")
    e.fields["WhatId"].definition["referenceTo"] = ["Account", "Opportunity"]
    e.fields["WhoId"].definition["referenceTo"] = ["Contact"]
    e.fields["OwnerId"].definition["referenceTo"] = ["User"]
    for name in ("WhatId", "WhoId"):
        e.fields[name].definition |= {"namePointing": True, "polymorphicForeignKey": True}
    e.add(currency_code())
    return e


def task() -> SObject:
    writable: dict[str, Any] = {"createable": True, "updateable": True}
    polymorphic = {"namePointing": True, "polymorphicForeignKey": True}
    fields = [
        *stamps(),
        make_field("WhoId", "reference", "Name ID", referenceTo="Contact", relationshipName="Who", **polymorphic),
        make_field("WhatId", "reference", "Related To ID", referenceTo=["Account", "Opportunity"], relationshipName="What"),
        make_field("Subject", "combobox", "Subject", picklistValues=["Call", "Email", "Send Letter", "Send Quote", "Other"]),
        make_field("ActivityDate", "date", "Due Date Only"),
        make_field(
            "Status", "picklist", "Status", nillable=False, defaultedOnCreate=True, defaultValue="Not Started", default="Not Started",
            picklistValues=["Not Started", "In Progress", "Completed", "Waiting on someone else", "Deferred"],
        ),
        make_field(
            "Priority", "picklist", "Priority", nillable=False, defaultedOnCreate=True, defaultValue="Normal", default="Normal",
            picklistValues=["High", "Normal", "Low"],
        ),
        system_field("IsHighPriority", "boolean", "High Priority", sql="coalesce({t}.\"Priority\" = 'High', false)"),
        make_field(
            "OwnerId", "reference", "Assigned To ID", referenceTo="User", relationshipName="Owner", nillable=False, defaultedOnCreate=True
        ),
        make_field("Description", "textarea", "Description", length=32000),
        system_field("AccountId", "reference", "Account ID", referenceTo="Account", relationshipName="Account"),
        system_field("IsClosed", "boolean", "Closed"),
        system_field("IsArchived", "boolean", "Archived"),
        make_field("CallDurationInSeconds", "int", "Call Duration"),
        make_field("CallType", "picklist", "Call Type", picklistValues=["Internal", "Inbound", "Outbound"]),
        make_field("CallDisposition", "string", "Call Result", length=255),
        make_field("TaskSubtype", "picklist", "Task Subtype", updateable=False, picklistValues=["Task", "Email", "Call", "ListEmail"]),
        make_field("CompletedDateTime", "datetime", "Completed Date", **writable),
        make_field("ReminderDateTime", "datetime", "Reminder Date/Time"),
        make_field("IsReminderSet", "boolean", "Reminder Set"),
        currency_code(),
    ]  # fmt: skip
    flags = ("createable", "deletable", "layoutable", "mruEnabled", "searchLayoutable", "searchable", "triggerable", "undeletable")
    return make_object("Task", "00T", fields, can=[*flags, "updateable"])


def opportunity_history() -> SObject:
    copied = {"nillable": True}
    return make_object(
        "OpportunityHistory", "008",
        [
            system_field("Id", "id", "Opportunity History ID", nillable=False, defaultedOnCreate=True),
            system_field(
                "OpportunityId", "reference", "Opportunity ID", referenceTo="Opportunity", relationshipName="Opportunity", nillable=False
            ),
            system_field("CreatedById", "reference", "Created By ID", referenceTo="User", relationshipName="CreatedBy", nillable=False),
            system_field("CreatedDate", "datetime", "Created Date", nillable=False),
            system_field("StageName", "picklist", "Stage Name", nillable=False),
            system_field("Amount", "currency", "Amount", **copied),
            system_field("ExpectedRevenue", "currency", "Expected Revenue", **copied),
            system_field("CloseDate", "date", "Close Date", **copied),
            system_field("Probability", "percent", "Probability", **copied),
            system_field("ForecastCategory", "picklist", "To ForecastCategory", picklistValues=FORECAST_CATEGORIES),
            system_field("CurrencyIsoCode", "picklist", "Currency ISO Code", length=3, picklistValues=CURRENCIES),
            system_field("PrevAmount", "currency", "Prev Amount", **copied),
            system_field("PrevCloseDate", "date", "Prev Close Date", **copied),
            system_field("SystemModstamp", "datetime", "System Modstamp", nillable=False),
            system_field("IsDeleted", "boolean", "Deleted"),
        ],
        label="Opportunity History", plural="Opportunity History",
    )  # fmt: skip


def _history_value(column: str) -> str:
    """A value of any type as JSON: kept as plain text, and told by the row's DataType how to show it."""
    return (
        f"CASE WHEN {{t}}.\"DataType\" IN ('Currency', 'Double', 'Percent') THEN java_double({{t}}.{column}::DECIMAL(18,2)) "
        f"WHEN {{t}}.\"DataType\" = 'Boolean' THEN {{t}}.{column} ELSE to_json({{t}}.{column})::VARCHAR END"
    )


def opportunity_field_history() -> SObject:
    data_types = [
        "Boolean", "Currency", "DateOnly", "DateTime", "Double", "DynamicEnum", "Email", "EntityId", "MultiEnum", "MultiLineText", "Percent",
        "Phone", "StringPlusClob", "Text", "Url",
    ]  # fmt: skip
    return make_object(
        "OpportunityFieldHistory", "017",
        [
            system_field("Id", "id", "Field History ID", nillable=False, defaultedOnCreate=True),
            system_field("IsDeleted", "boolean", "Deleted"),
            system_field(
                "OpportunityId", "reference", "Opportunity ID", referenceTo="Opportunity", relationshipName="Opportunity", nillable=False
            ),
            system_field("CreatedById", "reference", "Created By ID", referenceTo="User", relationshipName="CreatedBy", nillable=False),
            system_field("CreatedDate", "datetime", "Created Date", nillable=False),
            system_field("Field", "picklist", "Changed Field", nillable=False),
            system_field("DataType", "picklist", "Datatype", picklistValues=data_types),
            system_field("OldValue", "anyType", "Old Value", sql=_history_value("_old")),
            system_field("NewValue", "anyType", "New Value", sql=_history_value("_new")),
        ],
        label="Opportunity Field History", plural="Opportunity Field History",
    )  # fmt: skip


def organization() -> SObject:
    stamp = stamps(deletable=False)
    return make_object(
        "Organization", "00D",
        [
            *stamp,
            system_field("Name", "string", "Name", length=80, nillable=False, nameField=True),
            system_field("City", "string", "City", length=40),
            system_field("Country", "string", "Country", length=80),
            system_field("DefaultLocaleSidKey", "picklist", "Locale", nillable=False),
            system_field("TimeZoneSidKey", "picklist", "Time Zone", nillable=False),
            system_field("LanguageLocaleKey", "picklist", "Language", nillable=False),
            system_field("FiscalYearStartMonth", "int", "Fiscal Year Starts In"),
            system_field("UsesStartDateAsFiscalYearName", "boolean", "Fiscal Year Name by Start"),
            system_field("NamespacePrefix", "string", "Namespace Prefix", length=15),
            system_field("InstanceName", "string", "Instance Name", length=5),
            system_field("IsSandbox", "boolean", "Is Sandbox"),
            system_field("OrganizationType", "picklist", "Edition"),
            system_field("TrialExpirationDate", "datetime", "Trial Expiration Date"),
            system_field("DefaultAccountAccess", "picklist", "Default Account Access", picklistValues=SHARING),
            system_field("DefaultOpportunityAccess", "picklist", "Default Opportunity Access", picklistValues=SHARING),
        ],
        plural="Organizations",
    )  # fmt: skip


def user() -> SObject:
    text = {"length": 80}
    fields = [
        *stamps(deletable=False),
        make_field("Username", "string", "Username", nillable=False, idLookup=True, **text),
        make_field("LastName", "string", "Last Name", nillable=False, **text),
        make_field("FirstName", "string", "First Name", length=40),
        system_field("Name", "string", "Full Name", length=121, nameField=True, nillable=False, sql=FULL_NAME),
        make_field("CompanyName", "string", "Company Name", **text),
        make_field("Division", "string", "Division", **text),
        make_field("Department", "string", "Department", **text),
        make_field("Title", "string", "Title", **text),
        make_field("Email", "email", "Email", length=128, nillable=False),
        make_field("Alias", "string", "Alias", length=8, nillable=False),
        make_field("IsActive", "boolean", "Active"),
        make_field("TimeZoneSidKey", "picklist", "Time Zone", nillable=False),
        make_field("UserRoleId", "reference", "Role ID", referenceTo="UserRole", relationshipName="UserRole"),
        make_field("ProfileId", "reference", "Profile ID", referenceTo="Profile", relationshipName="Profile", nillable=False),
        system_field("UserType", "picklist", "User Type", picklistValues=["Standard", "AutomatedProcess", "CloudIntegrationUser"]),
        make_field("LanguageLocaleKey", "picklist", "Language", nillable=False),
        make_field("EmployeeNumber", "string", "Employee Number", length=20),
        make_field("ManagerId", "reference", "Manager ID", referenceTo="User", relationshipName="Manager"),
        system_field("LastLoginDate", "datetime", "Last Login"),
        make_field("CurrencyIsoCode", "picklist", "User Currency", length=3, picklistValues=CURRENCIES),
        make_field("DefaultCurrencyIsoCode", "picklist", "Currency ISO Code", length=3, picklistValues=CURRENCIES),
    ]
    flags = ("createable", "layoutable", "mruEnabled", "searchable", "triggerable", "updateable")
    return make_object("User", "005", fields, can=flags)


def _setup_object(name: str, prefix: str, fields: list[Field], **head: Any) -> SObject:
    """An object of the org's set-up: read-only to the API and without a recycle bin."""
    return make_object(name, prefix, [*stamps(deletable=False), *fields], **head)


def small_objects() -> list[SObject]:
    name = system_field("Name", "string", "Name", length=255, nillable=False, nameField=True)
    return [
        _setup_object("Profile", "00e", [name, system_field("UserType", "picklist", "User Type")]),
        _setup_object(
            "UserRole", "00E",
            [
                name,
                system_field("ParentRoleId", "reference", "Parent Role ID", referenceTo="UserRole"),
                system_field("DeveloperName", "string", "Developer Name", length=80),
            ],
            label="Role",
        ),
        _setup_object(
            "RecordType", "012",
            [
                name,
                system_field("DeveloperName", "string", "Record Type Name", length=80, nillable=False),
                system_field("NamespacePrefix", "string", "Namespace Prefix", length=15),
                system_field("Description", "string", "Description", length=255),
                system_field("SobjectType", "picklist", "SObject Type Name", nillable=False),
                system_field(
                    "BusinessProcessId", "reference", "Business Process ID", referenceTo="BusinessProcess", relationshipName="BusinessProcess"
                ),
                system_field("IsActive", "boolean", "Active"),
            ],
            label="Record Type",
        ),
        _setup_object(
            "BusinessProcess", "019",
            [
                name,
                system_field("NamespacePrefix", "string", "Namespace Prefix", length=15),
                system_field("Description", "string", "Description", length=255),
                system_field("TableEnumOrId", "picklist", "Entity Enumeration Or ID", length=40, nillable=False),
                system_field("IsActive", "boolean", "Active"),
            ],
            label="Business Process", plural="Business Processes",
        ),
        _setup_object(
            "OpportunityStage", "01J",
            [
                system_field("MasterLabel", "string", "Master Label", length=255, nillable=False, nameField=True),
                system_field("ApiName", "string", "API Name", length=255),
                system_field("IsActive", "boolean", "Is Active"),
                system_field("SortOrder", "int", "Order"),
                system_field("IsClosed", "boolean", "Closed"),
                system_field("IsWon", "boolean", "Won"),
                system_field("ForecastCategory", "picklist", "ForecastCategory", picklistValues=FORECAST_CATEGORIES),
                system_field("ForecastCategoryName", "picklist", "ForecastCategoryName"),
                system_field("DefaultProbability", "percent", "Probability (%)"),
                system_field("Description", "string", "Description", length=255),
            ],
            label="Opportunity Stage",
        ),
        _setup_object(
            "CurrencyType", "01L",
            [
                system_field("IsoCode", "picklist", "Currency ISO Code", length=3, nillable=False, picklistValues=CURRENCIES),
                system_field("ConversionRate", "double", "Conversion Rate", scale=6),
                system_field("DecimalPlaces", "int", "Decimal Places"),
                system_field("IsActive", "boolean", "Active"),
                system_field("IsCorporate", "boolean", "Is Corporate Currency"),
            ],
            label="Currency Type",
        ),
        _setup_object(
            "DatedConversionRate", "04w",
            [
                system_field("IsoCode", "picklist", "Currency ISO Code", length=3, nillable=False, picklistValues=CURRENCIES),
                system_field("ConversionRate", "double", "Conversion Rate", scale=6),
                system_field("StartDate", "date", "Start Date"),
                system_field("NextStartDate", "date", "Next Start Date"),
            ],
            label="Dated Conversion Rate",
        ),
    ]  # fmt: skip


def plumbline_snapshot() -> SObject:
    fields = [
        *stamps(),
        system_field("Name", "string", "Plumbline Snapshot Name", length=80, nameField=True, autoNumber=True, nillable=False),
        make_field(
            "OwnerId", "reference", "Owner ID", referenceTo="User", relationshipName="Owner", nillable=False, defaultedOnCreate=True
        ),
        currency_code(),
        make_field("Key__c", "string", length=255, externalId=True, idLookup=True, unique=True, caseSensitive=False),
        make_field("Snapshot_Date__c", "date"),
        make_field("Opportunity__c", "reference", referenceTo="Opportunity", relationshipName="Opportunity__r"),
        make_field("Pipeline__c", "string", length=255),
        make_field("Stage__c", "string", length=80),
        make_field("Amount__c", "currency"),
        make_field("Deals__c", "double", precision=18, scale=0),
        make_field("Close_Date__c", "date"),
        make_field("Status__c", "string", length=40),
        make_field("Score__c", "double", precision=3, scale=0),
        make_field("Issues__c", "textarea", length=2000),
    ]
    flags = ("createable", "deletable", "layoutable", "searchable", "triggerable", "undeletable", "updateable")
    return make_object("Plumbline_Snapshot__c", "a0B", fields, label="Plumbline Snapshot", can=flags)


def standard_objects() -> dict[str, SObject]:
    """Every object of a fresh org by name, with the child relationships that lead between them."""
    built = [
        organization(), user(), *small_objects(), account(), contact(), opportunity(), opportunity_history(),
        opportunity_field_history(), recorded_object("OpportunityContactRole"), task(), event(), plumbline_snapshot(),
        *access_objects(),
    ]  # fmt: skip
    role = next(o for o in built if o.name == "OpportunityContactRole")
    role.add(currency_code())
    objects = {o.name: o for o in built}
    snapshots = {
        "cascadeDelete": False, "childSObject": "Plumbline_Snapshot__c", "deprecatedAndHidden": False, "field": "Opportunity__c",
        "junctionIdListNames": [], "junctionReferenceTo": [], "relationshipName": "Plumbline_Snapshots__r", "restrictedDelete": False,
    }  # fmt: skip
    objects["Opportunity"].children.append(snapshots)
    return objects
