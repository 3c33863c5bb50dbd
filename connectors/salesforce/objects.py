"""What is read of a Salesforce org: one declaration per object.

The invariant of a cursor: every record with a cursor up to the watermark has been landed. It holds because a pull asks from
watermark - overlap on, and because the watermark never passes the server's clock at the start of the pull, nor the greatest
cursor seen. SystemModstamp is indexed and moves on every write, automated ones too; it does not move when a formula, a parent
or an exchange rate changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# How a deletion is seen. flag: IsDeleted, because queryAll returns the recycle bin. absence: read whole each time, what is
# missing is gone. never: rows stay for ever and are switched off by a flag of their own.
Deletions = Literal["flag", "absence", "never"]


@dataclass(frozen=True)
class SObject:
    """One object to land.

    of: the org's object that is read, where what is landed has a name of its own.
    fields: what to select, as far as the org has it and the user may read it; empty: every readable field.
    rotting: fields left out of "every readable field" unless the configuration maps them: they move by themselves and say nothing
    that other fields do not say.
    cursor: the stamp to read increments by, first choice first; empty: read whole each time.
    where: a filter the server should apply; left away when it is refused, the warehouse filters too.
    moves: a record may leave the filter, as a task that is given to an account: increments ask for what changed outside of it too,
    but for what was made since the last pull, which nobody has seen inside.
    expected: fields without which rules become unknowable: named in the manifest's notice when they are hidden.
    history: the objects that hold its past. bulk: whether Bulk API 2.0 serves it. required: without it there is no pull.
    lacking: why an org may well be without it, in words for the notice.
    """

    name: str
    fields: tuple[str, ...] = ()
    cursor: tuple[str, ...] = ()
    deletions: Deletions = "flag"
    where: str = ""
    moves: bool = False
    expected: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    bulk: bool = True
    required: bool = False
    lacking: str = "the user may not, or the org does not have it"
    key: str = "Id"
    of: str = ""
    rotting: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The org's name of what is read."""
        return self.of or self.name


MODSTAMP = ("SystemModstamp", "LastModifiedDate")

ORGANIZATION = SObject(
    "Organization",
    ("Id", "Name", "TimeZoneSidKey", "FiscalYearStartMonth", "UsesStartDateAsFiscalYearName", "OrganizationType", "IsSandbox"),
    deletions="never",
    bulk=False,
)

OPPORTUNITY = SObject(
    "Opportunity",
    cursor=MODSTAMP,
    expected=(
        "Name",
        "StageName",
        "Amount",
        "CloseDate",
        "Probability",
        "ForecastCategoryName",
        "IsClosed",
        "IsWon",
        "IsDeleted",
        "AccountId",
        "OwnerId",
        "NextStep",
        "CreatedDate",
    ),
    history=("OpportunityHistory", "OpportunityFieldHistory"),
    required=True,
    # Days since an instant that is read as well, and when this very user looked at the record.
    rotting=("AgeInDays", "LastActivityInDays", "LastStageChangeInDays", "LastReferencedDate", "LastViewedDate"),
)

# One row whenever stage, amount, close date, probability or forecast category changes; always on.
OPPORTUNITY_HISTORY = SObject(
    "OpportunityHistory",
    (
        "Id",
        "OpportunityId",
        "StageName",
        "Amount",
        "CloseDate",
        "Probability",
        "ForecastCategory",
        "ExpectedRevenue",
        "PrevAmount",
        "PrevCloseDate",
        "CurrencyIsoCode",
        "CreatedById",
        "CreatedDate",
        "SystemModstamp",
        "IsDeleted",
    ),
    cursor=("SystemModstamp", "CreatedDate"),
)

# Only fields whose history the admin tracks, only since then; it has no SystemModstamp. Values are what the field's type is.
OPPORTUNITY_FIELD_HISTORY = SObject(
    "OpportunityFieldHistory",
    ("Id", "OpportunityId", "Field", "DataType", "OldValue", "NewValue", "CreatedById", "CreatedDate", "IsDeleted"),
    cursor=("CreatedDate",),
)

OPPORTUNITY_CONTACT_ROLE = SObject(
    "OpportunityContactRole",
    (
        "Id",
        "OpportunityId",
        "ContactId",
        "Role",
        "IsPrimary",
        "CreatedDate",
        "CreatedById",
        "LastModifiedDate",
        "SystemModstamp",
        "IsDeleted",
    ),
    cursor=MODSTAMP,
)

# queryAll also returns the activities that Salesforce archived (older than a year). IsRecurrence marks the pattern of a series, whose
# occurrences are records of their own; IsChild the copy of a meeting in the calendar of an invited colleague.
_ACTIVITY = (
    "Id",
    "WhatId",
    "WhoId",
    "OwnerId",
    "Subject",
    "ActivityDate",
    "CreatedDate",
    "CreatedById",
    "LastModifiedById",
    "SystemModstamp",
    "IsDeleted",
    "IsArchived",
    "IsRecurrence",
)
TASK = SObject(
    "Task",
    (*_ACTIVITY, "Status", "Priority", "IsClosed", "CompletedDateTime", "TaskSubtype", "CallType"),
    cursor=MODSTAMP,
    where="What.Type = 'Opportunity'",
    moves=True,
)
EVENT = SObject(
    "Event",
    (*_ACTIVITY, "ActivityDateTime", "StartDateTime", "EndDateTime", "DurationInMinutes", "IsAllDayEvent", "IsChild", "EventSubtype"),
    cursor=MODSTAMP,
    where="What.Type = 'Opportunity'",
    moves=True,
)

# A merge marks the losers deleted and names the survivor in MasterRecordId.
ACCOUNT = SObject(
    "Account",
    (
        "Id",
        "Name",
        "Industry",
        "NumberOfEmployees",
        "AnnualRevenue",
        "Type",
        "BillingCountry",
        "Website",
        "OwnerId",
        "ParentId",
        "MasterRecordId",
        "CurrencyIsoCode",
        "CreatedDate",
        "SystemModstamp",
        "IsDeleted",
    ),
    cursor=MODSTAMP,
)

# Users are never deleted. Whole, because roles, managers and the active flag decide about open deals each night.
USER = SObject(
    "User",
    (
        "Id",
        "Name",
        "FirstName",
        "LastName",
        "Email",
        "Username",
        "Title",
        "Department",
        "IsActive",
        "UserType",
        "ManagerId",
        "UserRoleId",
        "ProfileId",
        "DefaultCurrencyIsoCode",
        "CreatedDate",
        "SystemModstamp",
    ),
    deletions="never",
)
USER_ROLE = SObject("UserRole", ("Id", "Name", "DeveloperName", "ParentRoleId"), deletions="absence", bulk=False)

RECORD_TYPE = SObject(
    "RecordType",
    ("Id", "Name", "DeveloperName", "SobjectType", "IsActive", "BusinessProcessId", "SystemModstamp"),
    deletions="absence",
    where="SobjectType = 'Opportunity'",
    bulk=False,
)

# The sales processes: each record type has one, and it says which of the org's stages deals of that type go through.
BUSINESS_PROCESS = SObject(
    "BusinessProcess",
    ("Id", "Name", "IsActive", "TableEnumOrId", "SystemModstamp"),
    deletions="absence",
    where="TableEnumOrId = 'Opportunity'",
    bulk=False,
)

OPPORTUNITY_STAGE = SObject(
    "OpportunityStage",
    (
        "Id",
        "MasterLabel",
        "ApiName",
        "IsActive",
        "IsClosed",
        "IsWon",
        "SortOrder",
        "DefaultProbability",
        "ForecastCategory",
        "ForecastCategoryName",
        "CreatedDate",
        "SystemModstamp",
    ),
    deletions="absence",
    bulk=False,
)

# Both exist in multi-currency orgs only, the second one with dated rates (Advanced Currency Management).
CURRENCY_TYPE = SObject(
    "CurrencyType",
    ("Id", "IsoCode", "ConversionRate", "DecimalPlaces", "IsActive", "IsCorporate", "SystemModstamp"),
    deletions="absence",
    bulk=False,
    lacking="the org has one currency, or hides its rates from the user",
)
DATED_CONVERSION_RATE = SObject(
    "DatedConversionRate",
    ("Id", "IsoCode", "StartDate", "NextStartDate", "ConversionRate", "SystemModstamp"),
    deletions="absence",
    bulk=False,
    lacking="the org has no dated exchange rates, or hides them from the user",
)

# In the order they are read: deals before what is around them, so that whatever a landed deal points to was there to be read.
OBJECTS = (
    ORGANIZATION,
    OPPORTUNITY,
    OPPORTUNITY_HISTORY,
    OPPORTUNITY_FIELD_HISTORY,
    OPPORTUNITY_CONTACT_ROLE,
    TASK,
    EVENT,
    ACCOUNT,
    USER,
    USER_ROLE,
    RECORD_TYPE,
    BUSINESS_PROCESS,
    OPPORTUNITY_STAGE,
    CURRENCY_TYPE,
    DATED_CONVERSION_RATE,
)

# Fields of a deal that move while its stamp stays: with its account (a merge), its contacts, its activities, its products and with
# the org's own scoring. Formulas and roll-ups move without a stamp too: describes mark them as calculated.
UNSTAMPED = (
    "AccountId",
    "ContactId",
    "HasOpenActivity",
    "HasOpportunityLineItem",
    "HasOverdueTask",
    "IqScore",
    "IsPriorityRecord",
    "LastActivityDate",
)
# Partial records: some fields of many deals, whose stamps say nothing of them.
OPPORTUNITY_FIELDS = SObject("Opportunity.fields", of=OPPORTUNITY.name, deletions="never", lacking="the org refuses it")

# getDeleted's lists of ids, landed as `X.deleted`: a second signal, and the only one for what has left the recycle bin between two
# pulls. Their logs, as the recycle bin, reach back 15 days (SOAP API Developer Guide, getDeleted()).
LOGGED = (OPPORTUNITY, OPPORTUNITY_CONTACT_ROLE, TASK, EVENT, ACCOUNT)
# What a listing of all that is there says of a deal, beside its id: enough to see whether we hold the same.
LISTED = ("SystemModstamp", "StageName", "RecordTypeId", "Amount", "CurrencyIsoCode", "IsClosed")

# The stages of each record type's sales process, which no query tells; read when one of these objects has changed.
STAGES_OF_TYPES = "RecordType.stages"
PROCESS_OBJECTS = (RECORD_TYPE, BUSINESS_PROCESS, OPPORTUNITY_STAGE)
