"""diagnose(): what this token may read in this portal. One small read of each kind of record; nothing is written.

Whether a token may write is told by no read: the line says so, and names the scope.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from connectors.diagnosis import Diagnosis, State, failure
from connectors.errors import CrmAuthError, CrmError, CrmPermissionError, CrmQuotaError, CrmUnavailableError
from connectors.hubspot.client import POLICY, Client, Refusal
from connectors.hubspot.objects import COMPANIES, DEALS
from connectors.hubspot.settings import HubSpotSettings

Say = Callable[[str], None]
Record = dict[str, Any]

PATIENT = replace(POLICY, tries=3)  # somebody waits for the answer
LOW = 0.1  # of the day's calls left
NIGHT = 60  # calls of a quiet night in a small portal
KEYS = "Settings > Integrations > Service Keys"
WRITTEN = ("plumbline_status", "plumbline_score", "plumbline_top_issue", "plumbline_issues", "plumbline_flagged_since")
READ = "plumbline_snooze_until"
# Properties of deals without which rules cannot judge. HubSpot lists them in every portal; a key may be kept from single ones.
EXPECTED = ("dealname", "dealstage", "pipeline", "amount", "closedate", "createdate", "hubspot_owner_id", "hs_next_step")

# What else is read: what it is called in landed files, the scope that it takes, and what is unknown without it.
AROUND: tuple[tuple[str, str, str], ...] = (
    ("owners", "crm.objects.owners.read", "names of owners, and whether they still work here, are unknown"),
    ("companies", COMPANIES.scope, "names, industries and sizes of companies are unknown"),
    ("contacts", "crm.objects.contacts.read", "contacts on deals are counted by HubSpot's own property only"),
)


def diagnose(settings: HubSpotSettings, *, writes: bool, progress: Say | None = None, client: Client | None = None) -> list[Diagnosis]:
    """See connectors.diagnosis. writes: whether write-back is planned. Takes nine calls. client: one of the caller's making."""
    with client or Client(settings, PATIENT) as opened:
        return _Look(settings, opened, writes, progress or (lambda _: None)).all()


class _Look:
    def __init__(self, settings: HubSpotSettings, client: Client, writes: bool, say: Say) -> None:
        self.settings, self.client, self.writes, self.say = settings, client, writes, say
        self.found: list[Diagnosis] = []
        self.properties: dict[str, Record] | None = None

    def all(self) -> list[Diagnosis]:
        checks = (
            ("sign-in", self.sign_in), ("deals", self.deals), ("objects", self.around), ("fields", self.fields), ("currencies", self.currencies),
            ("write-back", self.write_back),
        )  # fmt: skip
        for area, check in checks:
            self.say(f"{self.settings.name}: looking at {area} …")
            try:
                if check() is False:
                    break
            except CrmQuotaError as error:
                if self.client.budget.daily_limit is None:
                    self.found.append(failure("API budget", error))
                break
            except CrmError as error:
                self.found.append(failure(area, error))
                break
        self.budget()
        return self.found

    def add(self, area: str, state: State, said: str, fix: str | None = None, **detail: Any) -> None:
        self.found.append(Diagnosis(area, state, said, fix, detail))

    def get(self, obj: str, path: str, query: Mapping[str, Any] | None = None) -> Record:
        """One read, counted for `obj`. Raises CrmError; a refusal where none was to be expected is a CrmProtocolError."""
        self.client.object = obj
        try:
            return self.client.get(path, query)
        except Refusal as refusal:
            raise self.client.protocol_error(refusal) from None

    def without(self, obj: str, path: str, query: Mapping[str, Any] | None = None) -> CrmError | None:
        """Why one read cannot be done, None when it can. Raises what would meet every other read too."""
        try:
            self.get(obj, path, query)
        except (CrmAuthError, CrmQuotaError, CrmUnavailableError):
            raise
        except CrmError as error:
            return error
        return None

    def sign_in(self) -> None:
        how = "a service key or private app's token" if self.settings.access_token else "an OAuth app"
        try:
            about = self.get("account", self.client.paths.account)
        except CrmPermissionError as error:  # a token of narrow scope is a good one all the same
            self.add("sign-in", "warning", f"by {how}; the portal does not tell what it is: {error.what}", error.fix)
            return
        portal = about.get("portalId")
        kind = {"SANDBOX": " (sandbox)", "DEVELOPER_TEST": " (test account)"}.get(str(about.get("accountType")), "")
        facts: Record = {"portal_id": portal, "timezone": about.get("timeZone"), "currency": about.get("companyCurrency")}
        self.add("sign-in", "ok", f"to portal {portal or 'without a number'}{kind} by {how}, API {self.settings.api_version}", **facts)

    def deals(self) -> bool:
        error = self.without(DEALS.name, self.client.paths.objects(DEALS.name), {"limit": 1})
        if error is None:
            error = self.without("pipelines", self.client.paths.pipelines(DEALS.name))
            what = "pipelines"
        else:
            what = DEALS.name
        if error is not None:
            fix = f"Add the scope {DEALS.scope} to the key ({KEYS}) or app."
            self.add(what, "problem", f"{what} cannot be read: {error.what}", fix, unreadable=[what])
            return False
        self.add("deals", "ok", "deals and their pipelines can be read")
        return True

    def around(self) -> None:
        usual, other = self.client.paths.owners
        missing = []
        for name, scope, cost in AROUND:
            path = usual if name == "owners" else self.client.paths.objects(name)
            error = self.without(name, path, {"limit": 1})
            if error is not None and name == "owners" and not isinstance(error, CrmPermissionError):
                error = self.without(name, other, {"limit": 1})
            if error is None:
                continue
            missing.append(name)
            # Contacts are known by their associations; companies by these and by their own records.
            unreadable = ["deals.associations"] if name == "contacts" else [name]
            self.add("objects", "warning", f"{name} cannot be read: {error.what}; {cost}",
                     f"Add the scope {scope} to the key ({KEYS}) or app.", unreadable=unreadable)  # fmt: skip
        if not missing:
            self.add("objects", "ok", "owners, companies and contacts can be read")

    def fields(self) -> None:
        """Properties that rules or the configuration count on: a line for each that the portal does not list."""
        told = self.get("properties", self.client.paths.properties(DEALS.name))
        self.properties = {str(p["name"]): p for p in told.get("results") or () if isinstance(p, dict) and "name" in p}
        mapped = {field: evidence for evidence, field in self.settings.fields.items()}
        wanted = list(dict.fromkeys((*EXPECTED, *mapped)))
        missing = [name for name in wanted if name not in self.properties]
        for name in missing:
            if name in mapped:
                said, fix = f"{name} (mapped as {mapped[name]})", f"Correct [sources.{self.settings.name}.fields], or let the key see that property."
            else:
                said, fix = name, "Let the key see that property (sensitive data has scopes of its own)."
            self.add("fields", "warning", f"{said} is not among the portal's deal properties", fix, unreadable=[f"{DEALS.name}.{name}"])
        if not missing:
            self.add("fields", "ok", f"all {len(wanted)} properties that rules and the configuration count on are there")

    def currencies(self) -> None:
        """Whether the rates can be read, in a portal that has more than one currency."""
        if "deal_currency_code" not in (self.properties or {}):
            return
        error = self.without("exchange_rates", self.client.paths.exchange_rates, {"limit": 1})
        if error is None:
            self.add("currencies", "ok", "exchange rates can be read")
        else:
            said = f"exchange rates cannot be read: {error.what}; a deal in another currency follows a new rate only when it is changed"
            fix = f"Add the scope settings.currencies.read to the key ({KEYS}) or app."
            self.add("currencies", "warning", said, fix, unreadable=["exchange_rates"])

    def write_back(self) -> None:
        if self.properties is None:
            return
        absent = [name for name in (*WRITTEN, READ) if name not in self.properties]
        locked = [name for name in WRITTEN if _read_only(self.properties.get(name, {}))]
        facts: Record = {"absent": absent, "locked": locked, "planned": self.writes}
        make = "Make the properties that docs/configuration.md lists."
        untold = "whether the token may write (scope crm.objects.deals.write) shows the first write only"
        if not self.writes:
            self.add("write-back", "ok", "off", **facts)
        elif set(WRITTEN) <= set(absent) | set(locked):
            self.add("write-back", "problem", "the portal has none of the properties to write", make, **facts)
        elif absent or locked:
            self.add("write-back", "warning", f"some properties will be left out: {', '.join(absent + locked)}; {untold}", make, **facts)
        else:
            self.add("write-back", "ok", f"the portal has all {len(WRITTEN)} Plumbline properties; {untold}", **facts)

    def budget(self) -> None:
        budget = self.client.budget
        limit, took = budget.daily_limit, budget.total
        if not took or all(one.state == "problem" for one in self.found):  # nothing answered
            return
        if limit is None:
            self.add("API budget", "ok", f"the portal does not tell a daily limit (OAuth apps have none); this look took {took} calls", calls=took)
            return
        left = max(0, limit - (budget.daily_used or 0))
        share = int(limit * self.settings.quota_share)
        may = min(left, share)
        facts: Record = {"limit": limit, "used": limit - left, "left": left, "run": may, "calls": took}
        said = f"{limit - left:,} of the day's {limit:,} calls are used, {left:,} ({left / limit:.0%}) are left; a run may take {may:,}"
        said += f" (quota_share {self.settings.quota_share:g}); this look took {took}"
        wait = "Ask who else is calling (Settings > Integrations), or run after midnight in the portal's time zone."
        if share < NIGHT:
            self.add("API budget", "problem", f"{said}; a night takes {NIGHT} or so", "Raise quota_share for this source.", **facts)
        elif may < NIGHT:
            self.add("API budget", "problem", f"{said}; a night takes {NIGHT} or so", wait, **facts)
        elif left < LOW * limit:
            self.add("API budget", "warning", said, wait, **facts)
        else:
            self.add("API budget", "ok", said, **facts)


def _read_only(definition: Mapping[str, Any]) -> bool:
    about = definition.get("modificationMetadata")
    return isinstance(about, dict) and bool(about.get("readOnlyValue"))
