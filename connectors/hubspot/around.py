"""What surrounds a portal's deals: the account, its people, pipelines, properties and companies."""

from __future__ import annotations

from collections.abc import Iterable

from connectors.errors import CrmProtocolError
from connectors.hubspot.objects import COMPANIES
from connectors.hubspot.pulling import Newest, Pulling, listed_because, reached
from connectors.hubspot.reading import Listing, Record, changed, pages
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

    def companies(self) -> None:
        since = self.since_of("companies")
        self.client.object, started, newest = "companies", self.client.clock, Newest()
        with self.files("companies") as out:

            def read(found: Iterable[Record]) -> None:
                for company in self.counted(found, "companies"):
                    newest.see(company, COMPANIES.cursor)
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
            self.finish(
                Manifest(
                    self.client.source, "hubspot", "companies", "id", "full" if listed else "incremental",
                    complete=listed and notice is None, cursor=COMPANIES.cursor, since=None if listed else since,
                    watermark=since if notice else reached(since, started, newest.at), notice=notice or listed_because(unsearched),
                ),
                out, keep=notice is None,
            )
