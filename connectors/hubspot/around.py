"""What surrounds a portal's deals: the account, its people, pipelines, properties and companies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from connectors.errors import CrmPermissionError, CrmProtocolError
from connectors.hubspot.files import Ndjson
from connectors.hubspot.objects import COMPANIES
from connectors.hubspot.pulling import SUSPICIOUS, Newest, Pulling, listed_because, losers_of, reached
from connectors.hubspot.reading import Listing, Record, changed, pages, read_all, vanished
from connectors.landing import Field, Manifest


class Around(Pulling):
    """The part of a pull that reads what surrounds the deals."""

    def account(self) -> None:
        """Who the portal is: id, time zone, currency, and where its records are shown."""
        with self.files("account") as out:
            details: Record = {}
            notice = self.unless_refused(lambda: details.update(self.client.get(self.client.paths.account)))
            if details:
                out.write(details)
            portal, ui = details.get("portalId"), details.get("uiDomain") or "app.hubspot.com"
            self.org = {
                "org_id": str(portal) if portal else None, "timezone": details.get("timeZone"), "currency": details.get("companyCurrency"),
                "record_url": f"https://{ui}/contacts/{portal}/record/0-3/{{id}}" if portal else None,
            }
            self.org = {key: value for key, value in self.org.items() if value}
            self.finish_whole("account", out, key="portalId", notice=notice)

    def owners(self) -> None:
        """Owners, those who left too: their deals remain."""
        with self.files("owners") as out:
            seen: set[str] = set()
            usual, other = self.client.paths.owners

            def read(path: str, *, archived: bool) -> None:
                for page in pages(self.client, path, {"limit": 100, "archived": archived}):
                    for owner in page:
                        if owner["id"] not in seen:
                            seen.add(owner["id"])
                            out.write(owner)

            def read_either() -> None:
                nonlocal usual
                try:
                    read(usual, archived=False)
                except CrmProtocolError:
                    if seen:
                        raise
                    usual = other
                    read(usual, archived=False)

            notice = self.unless_refused(read_either)
            refused = None if notice else self.unless_refused(lambda: read(usual, archived=True))
            self.finish_whole("owners", out, notice=notice, partly=refused and f"owners who left are unknown: {refused}")

    def pipelines(self) -> None:
        """Deal pipelines with their stages. Without them no deal's stage means anything, so they are not optional."""
        with self.files("pipelines") as out:
            for pipeline in self.results(self.client.paths.pipelines("deals")):
                out.write(pipeline)
            self.finish_whole("pipelines", out)

    def deal_properties(self) -> list[Field]:
        """The portal's deal properties."""
        definitions: list[Record] = []
        with self.files("properties") as out:
            notice = self.unless_refused(lambda: definitions.extend(self.results(self.client.paths.properties("deals"))))
            for definition in definitions:
                out.write(definition)
            self.finish_whole("properties", out, key="name", notice=notice)
        return [
            Field(
                d["name"], str(d.get("type") or "string"), d.get("label"), custom=not d.get("hubspotDefined"),
                calculated=bool(d.get("calculated")),
            )
            for d in definitions
        ]

    def exchange_rates(self, fields: list[Field]) -> None:
        """The rates of a portal with several currencies: a new one moves the home amounts of its open deals and no stamp."""
        if fields and not any(field.name == "deal_currency_code" for field in fields):
            return
        with self.files("exchange_rates") as out:

            def read() -> None:
                for page in pages(self.client, self.client.paths.exchange_rates, {"limit": 100}):
                    for rate in page:
                        out.write({"id": f"{rate.get('fromCurrencyCode')} {rate.get('effectiveAt')}", **rate})

            self.finish_whole("exchange_rates", out, notice=self.unless_refused(read))

    def companies(self) -> None:
        """companies, companies.archived, companies.gone: archiving, restoring and deleting for good move no stamp of them either."""
        since = self.since_of("companies")
        self.client.object, started, newest = "companies", self.client.clock, Newest()
        with self.files("companies") as out, self.files("companies.archived") as archive, self.files("companies.gone") as gone:
            self.client.object = "companies"
            seen: set[str] = set()
            losers: set[str] = set()

            def read(found: Iterable[Record]) -> None:
                for company in self.counted(found, "companies"):
                    newest.see(company, COMPANIES.cursor)
                    seen.add(str(company["id"]))
                    losers.update(losers_of(company))
                    out.write(company)

            listed = since is None
            notice = unsearched = None
            if since is not None:
                pages_changed = changed(self.client, COMPANIES, self.lower(since), COMPANIES.properties)
                unsearched = self.unless_refused(lambda: read(r for page in pages_changed for r in page))
                listed = unsearched is not None
            if listed:
                out.clear()
                notice = self.unless_refused(lambda: read(Listing(self.client, COMPANIES, COMPANIES.properties).read()))
            unlisted = unlooked = None
            if notice is None:
                in_bin: set[str] = set()
                self.client.object = "companies.archived"
                unlisted = self.unless_refused(lambda: self._archived_companies(archive, in_bin))
                if unlisted is None and not listed:
                    self.client.object = "companies.gone"
                    unlooked = self.unless_refused(lambda: self._companies_back(since, seen, in_bin, read))
                    unlooked = unlooked or self.unless_refused(lambda: self._companies_gone(seen, in_bin, losers, gone))
            self.finish(
                Manifest(
                    self.client.source, "hubspot", "companies", "id", "full" if listed else "incremental",
                    complete=listed and notice is None, cursor=COMPANIES.cursor, since=None if listed else since,
                    watermark=since if notice else reached(since, started, newest.at), notice=notice or listed_because(unsearched),
                ),
                out, keep=notice is None,
            )
            self.finish_whole("companies.archived", archive, partly=notice or unlisted)
            self.finish(Manifest(self.client.source, "hubspot", "companies.gone", "id", "incremental", notice=unlooked), gone, keep=True)

    def _archived_companies(self, out: Ndjson, in_bin: set[str]) -> None:
        """Read after the live ones: one that is archived meanwhile is then archived here."""
        for company in Listing(self.client, COMPANIES, COMPANIES.properties).read(archived=True):
            if company.get("archived") is not False:
                in_bin.add(str(company["id"]))
                out.write(company)

    def _companies_back(
        self, since: datetime | None, seen: set[str], in_bin: set[str], read: Callable[[Iterable[Record]], None]
    ) -> None:
        """Companies that are in the recycle bin no more though the warehouse has them there: restored, or gone for good."""
        known = self.known.companies if self.known else None
        moments = [at for at in (since, self.client.clock) if at is not None]
        restored = known.restorable(min(moments, default=None)) - in_bin - seen if known else set()
        if restored:
            read(read_all(self.client, COMPANIES, sorted(restored), COMPANIES.properties))

    def _companies_gone(self, seen: set[str], in_bin: set[str], losers: set[str], out: Ndjson) -> None:
        """Companies that were deleted for good, found by counting as for deals."""
        known = self.known.companies if self.known else None
        if known is None:
            return
        believed = (known.live | seen) - in_bin - losers
        missing = vanished(self.client, COMPANIES, believed)
        if len(missing) > max(SUSPICIOUS, len(believed) // 2):
            raise CrmPermissionError(
                f"{len(missing):,} of {len(believed):,} companies can no longer be seen, as if they were deleted for good",
                source=self.client.source, obj="companies", code="COMPANIES_VANISHED", fix="Check what the token's user may see.",
            )
        for key in sorted(missing, key=int):
            out.write({"id": key})
