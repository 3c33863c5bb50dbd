"""diagnose(): what this user may do in this org, and what a sync will therefore miss. A dozen calls at most, none of which writes.

Never a guess: what the org does not tell this user is said to be unknown. Sources: REST API Developer Guide ("List Available REST
Resources", "Describe Global", "Get Deleted"); Object Reference ("FieldDefinition", "ObjectPermissions", "PermissionSet", "Organization").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from connectors.diagnosis import Diagnosis, State, failure
from connectors.errors import CrmError, CrmQuotaError
from connectors.http import RetryPolicy
from connectors.salesforce.client import ORG, Client, Refused, soql_time
from connectors.salesforce.objects import (
    CURRENCY_TYPE,
    DATED_CONVERSION_RATE,
    OBJECTS,
    OPPORTUNITY,
    OPPORTUNITY_FIELD_HISTORY,
    OPPORTUNITY_HISTORY,
)
from connectors.salesforce.settings import SalesforceSettings
from connectors.salesforce.stamps import instant

Say = Callable[[str], None]
Record = dict[str, Any]

PATIENT = RetryPolicy(tries=3)  # somebody waits for the answer
LOW = 0.1  # of the day's calls left: from here on others may use them up before the night
NIGHT = 2 * len(OBJECTS) + 5  # calls of a night in which nothing changed
REACH = 14  # days that the log of deletions should reach back; Salesforce keeps 15
DEALS = OPPORTUNITY.name
FLOWS = {
    "client_credentials": "client credentials", "jwt": "JWT bearer", "refresh_token": "a refresh token", "session": "a fixed access token",
}  # fmt: skip

# Objects around the deal, and what is unknown without them. Which rules that concerns, the caller knows.
COSTS = {
    "Organization": "the org's name, time zone and fiscal year are unknown",
    OPPORTUNITY_HISTORY.name: "stages, amounts and close dates before the first sync are unknown",
    "OpportunityContactRole": "contacts on deals are unknown",
    "Task": "calls, e-mails and tasks do not count as activity",
    "Event": "meetings do not count as activity",
    "Account": "names, industries and sizes of accounts are unknown",
    "User": "names of owners, and whether they still work here, are unknown",
    "UserRole": "teams of owners are unknown",
    "RecordType": "all deals stand in one pipeline",
    "BusinessProcess": "which stages a pipeline has is known from deals only",
    "OpportunityStage": "order, probability and flags of stages are known from deals only",
    CURRENCY_TYPE.name: "amounts in other currencies cannot be converted",
}
# Fields that are of use beside those that an object's declaration expects, and what is lost with fields that no rule reads.
ALSO_EXPECTED = ("Description", "Type")
COSTS_OF_FIELDS = {
    "Type": "renewals are told by their record type only", "Probability": "weighted amounts are unknown",
    "ForecastCategoryName": "forecast categories are unknown",
}  # fmt: skip
# What only OpportunityFieldHistory tells: what is lost of the time before the first sync where a field is not tracked.
TOLD_BY_FIELD_HISTORY = {
    "NextStep": "when the next step was last changed", "OwnerId": "who owned a deal", "RecordTypeId": "in which pipeline a deal was",
}  # fmt: skip
# What OpportunityHistory tells as well, which is always on.
TOLD_TWICE = {"StageName": "the stage", "Amount": "the amount", "CloseDate": "the close date", "ForecastCategoryName": "the forecast category"}
SET_TRACKING = "Setup > Object Manager > Opportunity > Fields & Relationships > Set History Tracking (20 fields at most)"
# What write-back sets, and the snooze, which it reads.
WRITTEN = ("Plumbline_Status__c", "Plumbline_Score__c", "Plumbline_Top_Issue__c", "Plumbline_Issues__c", "Plumbline_Flagged_Since__c")
READ = "Plumbline_Snooze_Until__c"
VIEW_ALL = 'Give the user a permission set with "View All" on Opportunity.'
ASSIGNED = "(SELECT PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = '{user}')"


def diagnose(settings: SalesforceSettings, *, writes: bool, progress: Say | None = None, client: Client | None = None) -> list[Diagnosis]:
    """See connectors.salesforce.diagnose. client: one of the caller's making."""
    client = client or Client(settings, PATIENT)
    try:
        return _Look(settings, client, writes, progress or (lambda _: None)).all()
    finally:
        client.close()


class _Look:
    def __init__(self, settings: SalesforceSettings, client: Client, writes: bool, say: Say) -> None:
        self.settings, self.client, self.writes, self.say = settings, client, writes, say
        self.found: list[Diagnosis] = []
        self.user: str | None = None  # id
        self.organization: Record = {}
        self.objects: dict[str, Record] = {}  # the global describe, by name
        self.fields: dict[str, Record] = {}  # of Opportunity, by name
        self.updateable = False  # Opportunity, by this user

    def all(self) -> list[Diagnosis]:
        checks = (
            ("sign-in", self.sign_in), ("deals", self.deals), ("sharing", self.sharing), ("objects", self.around),
            ("fields", self.visible), ("history", self.history), ("deletions", self.deletions), ("Bulk API", self.bulk),
            ("write-back", self.write_back),
        )  # fmt: skip
        for area, check in checks:
            self.say(f"{self.settings.name}: looking at {area} …")
            try:
                if check() is False:
                    break
            except Refused as refused:
                self.found.append(failure(area, self.client.protocol(area, refused)))
                break
            except CrmQuotaError as error:
                if self.client.budget.daily_limit is None:  # else the budget's own line says it, with numbers
                    self.found.append(failure("API budget", error))
                break
            except CrmError as error:  # signed out or out of reach: nothing that comes after can be asked
                self.found.append(failure(area, error))
                break
        self.budget()
        return self.found

    def add(self, area: str, state: State, said: str, fix: str | None = None, **detail: Any) -> None:
        self.found.append(Diagnosis(area, state, said, fix, detail))

    def query(self, obj: str, soql: str) -> list[Record]:
        """Records of a short query, parents nested. Raises Refused."""
        answer = self.client.call(obj, f"query/?q={quote_plus(soql, safe=',()=')}")
        return list((answer or {}).get("records") or ())

    def asked(self, obj: str, soql: str) -> list[Record] | None:
        """The same, None where the org does not let this user ask."""
        try:
            return self.query(obj, soql)
        except Refused:
            return None

    # Who we are

    def sign_in(self) -> None:
        self.client.connect()
        try:
            resources = self.client.call(ORG, "") or {}
        except Refused:  # who we are stays unknown
            resources = {}
        identity = urlsplit(str(resources.get("identity") or "")).path  # …/id/ORG/USER
        match = re.search(r"/id/(00D\w{12,15})/(005\w{12,15})$", re.sub(r"\s", "", identity))
        org, self.user = (match[1], match[2]) if match else (None, None)
        people = self.asked("User", f"SELECT Username FROM User WHERE Id = '{self.user}'") if self.user else None
        username = people[0].get("Username") if people else None
        about = self.asked("Organization", "SELECT Id, Name, IsSandbox, DefaultOpportunityAccess FROM Organization")
        if about is None:  # a server that knows less of itself
            about = self.asked("Organization", "SELECT Id, Name, IsSandbox FROM Organization")
        self.organization = about[0] if about else {}
        name, org = self.organization.get("Name"), self.organization.get("Id") or org
        whom = f"as {username or self.user}" if self.user else "as a user whom the org does not name"
        kind = " (sandbox)" if self.organization.get("IsSandbox") else ""
        where = f"to {name or org}{kind}" if name or org else "to the org"
        said = f"{whom} {where} by {FLOWS[self.settings.auth]}, API {self.client.version}.0"
        facts: Record = {"username": username, "org_id": org, "auth": self.settings.auth, "api_version": f"{self.client.version}.0"}
        if self.client.tokens.rotates:
            self.add(
                "sign-in", "problem", f"{said}; the app rotates refresh tokens, so the one in the configuration is used up now",
                "Turn refresh token rotation off in the app's OAuth settings, authorize it again and put the new token in.", **facts,
            )  # fmt: skip
        elif self.settings.auth == "session":
            self.add(
                "sign-in", "warning", f"{said}, which is never renewed",
                'For unattended runs use auth = "client_credentials" or "jwt".', **facts,
            )  # fmt: skip
        else:
            self.add("sign-in", "ok", said, **facts)

    # What it may read

    def deals(self) -> bool:
        """Whether opportunities can be read: without them nothing else matters."""
        self.objects = self._readable()
        try:
            described = self.client.call(DEALS, f"sobjects/{DEALS}/describe") or {}
        except Refused as refused:
            if refused.code.startswith("HTTP_"):
                raise self.client.not_json(DEALS) from None
            described = {}
        self.fields = {str(f["name"]): f for f in described.get("fields") or ()}
        self.updateable = bool(described.get("updateable"))
        if not described.get("queryable", bool(self.fields)):
            error = self.client.permission(DEALS, "NOT_FOUND" if not self.fields else "NOT_QUERYABLE")
            self.add("deals", "problem", error.what, error.fix, unreadable=[DEALS])
            return False
        self.add("deals", "ok", f"Opportunity can be read, {len(self.fields)} fields of it are visible", fields=len(self.fields))
        return True

    def _readable(self) -> dict[str, Record]:
        """The objects that this user may query, by name; one by one where the org does not list them."""
        try:
            told = (self.client.call(ORG, "sobjects/") or {}).get("sobjects") or ()
        except Refused:
            told = [about for name in dict.fromkeys(spec.table for spec in OBJECTS) if (about := self._described(name))]
        return {str(o["name"]): o for o in told if o.get("queryable")}

    def _described(self, name: str) -> Record | None:
        try:
            return {"name": name, **(self.client.call(ORG, f"sobjects/{name}/describe") or {})}
        except Refused:
            return None

    def sharing(self) -> None:
        """Whether the user sees every deal. A deal that leaves its view looks like one that was deleted."""
        everything = self._sees_all()
        default = str(self.organization.get("DefaultOpportunityAccess") or "")
        facts: Record = {"view_all": everything, "org_wide_default": default or None}
        if everything:
            self.add("sharing", "ok", "the user may view all deals, whoever owns them", **facts)
        elif default.startswith(("Read", "Edit")):
            self.add("sharing", "ok", "deals are open to every user of the org, private ones apart", **facts)
        elif everything is None:
            self.add(
                "sharing", "warning", 'whether the user has "View All" on deals cannot be told: it may not read its own permissions',
                f'{VIEW_ALL} To have it checked here, add "View Setup and Configuration".', **facts,
            )  # fmt: skip
        else:
            said = "the user sees deals that are shared with it only; one that leaves its view will look deleted"
            self.add("sharing", "warning", said, VIEW_ALL, **facts)

    def _sees_all(self) -> bool | None:
        """View All on opportunities, or on all data. None: the org does not tell."""
        if not self.user:
            return None
        assigned = ASSIGNED.format(user=self.user)
        of_sets = self.asked(ORG, f"SELECT PermissionsViewAllData, PermissionsModifyAllData FROM PermissionSet WHERE Id IN {assigned}")
        if not of_sets:  # each user has at least the set of its profile: none means that they may not be read
            return None
        if any(row.get("PermissionsViewAllData") or row.get("PermissionsModifyAllData") for row in of_sets):
            return True
        of_deals = self.asked(
            ORG,
            "SELECT PermissionsViewAllRecords, PermissionsModifyAllRecords FROM ObjectPermissions "
            f"WHERE SobjectType = '{DEALS}' AND ParentId IN {assigned}",
        )
        if of_deals is None:
            return None
        return any(row.get("PermissionsViewAllRecords") or row.get("PermissionsModifyAllRecords") for row in of_deals)

    def around(self) -> None:
        """The objects around the deal: a line for each that is missed."""
        multi_currency = "CurrencyIsoCode" in self.fields
        optional = {DATED_CONVERSION_RATE.name, OPPORTUNITY_FIELD_HISTORY.name} | (set() if multi_currency else {CURRENCY_TYPE.name})
        wanted = [name for name in dict.fromkeys(spec.table for spec in OBJECTS) if name not in {DEALS, *optional}]
        missing = [name for name in wanted if name not in self.objects]
        for name in missing:
            self.add(
                "objects", "warning", f"{name} cannot be read: {COSTS.get(name, 'what it tells is unknown')}",
                f"Give the user's permission set Read on {name}.", unreadable=[name],
            )  # fmt: skip
        if not missing:
            self.add("objects", "ok", f"all {len(wanted)} objects around the deal can be read")

    def visible(self) -> None:
        """Fields that rules or the configuration count on: a line for each that is not there. Absent and hidden look the same."""
        mapped = {field: evidence for evidence, field in self.settings.fields.items()}
        wanted = list(dict.fromkeys((*OPPORTUNITY.expected, *ALSO_EXPECTED, *mapped)))
        missing = [name for name in wanted if name not in self.fields]
        for name in missing:
            grant = f"Give the user's permission set Read on Opportunity.{name}"
            if name in mapped:
                said, fix = f"{name} (mapped as {mapped[name]})", f"{grant}, or correct [sources.{self.settings.name}.fields]."
            else:
                said, fix = name, f"{grant}."
            said += " is not in the org, or hidden by field-level security"
            said += f": {COSTS_OF_FIELDS[name]}" if name in COSTS_OF_FIELDS else ""
            self.add("fields", "warning", said, fix, unreadable=[f"{DEALS}.{name}"])
        if not missing:
            self.add("fields", "ok", f"all {len(wanted)} fields that rules and the configuration count on are visible")

    # What it tells of the past

    def history(self) -> None:
        """Which fields are tracked, and what is lost where they are not."""
        by_history = OPPORTUNITY_HISTORY.name in self.objects
        matter = {name: what for name, what in TOLD_BY_FIELD_HISTORY.items() if name in self.fields}
        if not by_history:
            matter |= {name: what for name, what in TOLD_TWICE.items() if name in self.fields}
        tracked, log = self._tracked(), OPPORTUNITY_FIELD_HISTORY.name
        if tracked is None:
            self._guess_nothing(matter, log)
            return
        untracked = [name for name in matter if name not in tracked]
        facts: Record = {"tracked": sorted(tracked), "untracked": untracked}
        lost = f"before the first sync it is unknown {'; '.join(matter[name] for name in untracked)}"
        rest = f" ({OPPORTUNITY_HISTORY.name} tells stages, amounts, close dates and forecasts)" if by_history else ""
        track = f"Track {', '.join(untracked)}: {SET_TRACKING}."
        if not tracked:
            self.add("history", "warning", f"field history tracking is off for Opportunity: {lost}{rest}", track, **facts)
        elif log not in self.objects:
            self.add(
                "history", "warning", f"{len(tracked)} fields are tracked, but {log} cannot be read: their changes are unknown{rest}",
                "Give the user's permission set Read on the tracked fields: the log follows their field-level security.",
                unreadable=[log], **facts,
            )  # fmt: skip
        elif untracked:
            verb = "is" if len(untracked) == 1 else "are"
            self.add("history", "warning", f"{', '.join(untracked)} {verb} not tracked: {lost}{rest}", track, **facts)
        else:
            self.add("history", "ok", f"{', '.join(matter)} are tracked{rest}", **facts)

    def _tracked(self) -> set[str] | None:
        """Names of the tracked fields; None where the org does not tell this user."""
        told = self.asked(
            "FieldDefinition",
            f"SELECT QualifiedApiName, IsFieldHistoryTracked FROM FieldDefinition WHERE EntityDefinition.QualifiedApiName = '{DEALS}'",
        )
        return {str(row["QualifiedApiName"]) for row in told if row.get("IsFieldHistoryTracked")} if told else None

    def _guess_nothing(self, matter: Record, log: str) -> None:
        """Where FieldDefinition cannot be read: the log shows what was tracked when it changed, and is silent of everything else."""
        entries = self.asked(log, f"SELECT Field FROM {log} GROUP BY Field LIMIT 200") if log in self.objects else None
        if entries is None:
            said = f"field history tracking is off for Opportunity, or {log} is hidden: changes of fields before the first sync are unknown"
            self.add("history", "warning", said, f"Track {', '.join(matter)}: {SET_TRACKING}.", unreadable=[log])
            return
        told = {str(row.get("Field")) for row in entries}
        seen = [name for name in matter if {name, name.removesuffix("Id")} & told]  # the log says Owner where the field is OwnerId
        silent = [name for name in matter if name not in seen]
        facts: Record = {"tracked": None, "seen": seen, "silent": silent}
        if silent:
            said = f"no change of {', '.join(silent)} stands in {log}: not tracked, or never changed; the user may not read which (FieldDefinition)"
            self.add("history", "warning", said, f"Look whether they are tracked: {SET_TRACKING}.", **facts)
        else:
            self.add("history", "ok", f"changes of {', '.join(seen)} stand in {log}", **facts)

    def deletions(self) -> None:
        """How far the log of deletions reaches back: beyond it only a sweep finds what went."""
        end = self.client.server_time
        if end is None:
            return
        span = f"start={quote(soql_time(end - timedelta(minutes=10)))}&end={quote(soql_time(end))}"
        try:
            told = self.client.call(f"{DEALS}.deleted", f"sobjects/{DEALS}/deleted/?{span}") or {}
        except Refused as refused:
            code = refused.code or refused.status
            said = f"the org does not tell what was deleted ({code}): deals that left the recycle bin between two syncs stay open here"
            self.add("deletions", "warning", said, "Run `plumbline reconcile` now and then: it finds what went.")
            return
        since = instant(str(told.get("earliestDateAvailable")))
        days = (end - since).days if since else None
        if days is not None and days < REACH:
            said = f"the log of deletions reaches back {days} days only: it has been purged, or the org is that young"
            self.add("deletions", "warning", said, "After a longer pause between syncs, run `plumbline reconcile`.", days=days)
        else:
            self.add("deletions", "ok", f"the log of deletions can be read{'' if days is None else f', {days} days back'}", days=days)

    def bulk(self) -> None:
        """Whether large reads may go by the Bulk API. Listing jobs costs one call and makes none."""
        if self.settings.api == "rest":
            return
        try:
            self.client.call("Bulk API", "jobs/query")
        except Refused as refused:
            code = refused.code or refused.status
            self.add(
                "Bulk API", "warning", f"the Bulk API is closed to this user ({code}): large reads go by REST and take more calls",
                "Ask the org's admin to open it, or leave it: the sync does without.",
            )  # fmt: skip
        else:
            self.add("Bulk API", "ok", "open, for reads of more than about 20,000 records")

    # What it may write

    def write_back(self) -> None:
        absent = [name for name in (*WRITTEN, READ) if name not in self.fields]
        locked = [name for name in WRITTEN if name in self.fields and not self.fields[name].get("updateable")]
        facts: Record = {"updateable": self.updateable, "absent": absent, "locked": locked, "planned": self.writes}
        if not self.writes:
            can = "could write" if self.updateable and not absent and not locked else "cannot write all of it, which is enough while it is off"
            self.add("write-back", "ok", f"off; the user {can}", **facts)
        elif not self.updateable:
            self.add(
                "write-back", "problem", "the user may not edit opportunities: nothing can be written back",
                'Give the user a permission set with Edit on Opportunity and on the Plumbline fields, or set [writeback] mode = "off".', **facts,
            )  # fmt: skip
        elif set(WRITTEN) <= set(absent) | set(locked):
            self.add(
                "write-back", "problem", f"none of the fields to write can be written: {self._why(absent, locked)}",
                "Make the fields that docs/configuration.md lists, and give the user's permission set Edit on them.", **facts,
            )  # fmt: skip
        elif absent or locked:
            self.add(
                "write-back", "warning", f"some fields will be left out: {self._why(absent, locked)}",
                "Make the fields that docs/configuration.md lists, and give the user's permission set Edit on them.", **facts,
            )  # fmt: skip
        else:
            self.add("write-back", "ok", f"the user may edit opportunities and all {len(WRITTEN)} Plumbline fields", **facts)

    @staticmethod
    def _why(absent: list[str], locked: list[str]) -> str:
        parts = (("not in the org, or hidden: ", absent), ("read-only for the user: ", locked))
        return "; ".join(words + ", ".join(names) for words, names in parts if names)

    # What it costs

    def budget(self) -> None:
        """The day's calls, what a run may take of them, and what this look took."""
        budget = self.client.budget
        if not budget.total:
            return
        if budget.daily_limit is None:
            self._ask_limits()
        limit, used, took = budget.daily_limit, budget.daily_used or 0, budget.total
        if limit is None:
            self.add("API budget", "ok", f"the org does not tell its daily limit; this look took {took} calls", calls=took)
            return
        left = max(0, limit - used)
        share = int(limit * self.settings.quota_share)
        may = min(left, share)
        facts: Record = {"limit": limit, "used": used, "left": left, "run": may, "calls": took}
        said = f"{used:,} of {limit:,} calls of the last 24 hours are used, {left:,} ({left / limit:.0%}) are left; a run may take {may:,}"
        said += f" (quota_share {self.settings.quota_share:g}); this look took {took}"
        others = "Ask the org's admin who else is calling (Setup > API Usage), or run when the limit has moved on (it counts 24 hours)."
        if share < NIGHT:
            self.add("API budget", "problem", f"{said}; a night takes {NIGHT} at least", "Raise quota_share for this source.", **facts)
        elif may < NIGHT:
            self.add("API budget", "problem", f"{said}; a night takes {NIGHT} at least", others, **facts)
        elif left < LOW * limit:
            self.add("API budget", "warning", said, others, **facts)
        else:
            self.add("API budget", "ok", said, **facts)

    def _ask_limits(self) -> None:
        """For servers whose answers carry no Sforce-Limit-Info."""
        try:
            daily = (self.client.call(ORG, "limits/") or {}).get("DailyApiRequests") or {}
            self.client.budget.observe(int(daily["Max"]) - int(daily["Remaining"]), int(daily["Max"]))
        except (Refused, CrmError, AttributeError, KeyError, TypeError, ValueError):
            return
