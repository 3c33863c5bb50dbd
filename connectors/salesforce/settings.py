"""One Salesforce source of `plumbline.toml`. Imports pydantic only: settings load on each command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.address import check_address

EXAMPLE = "https://acme.my.salesforce.com"

# Where people read their org's address off the browser, and where its API answers. Salesforce Help: "My Domain URL Formats";
# .mil is the United States' military cloud, .cn is Salesforce on Alibaba Cloud.
PAGES = (
    (".lightning.force.com", ".my.salesforce.com"),
    (".my.salesforce-setup.com", ".my.salesforce.com"),
    (".vf.force.com", ".my.salesforce.com"),
    (".lightning.crmforce.mil", ".my.salesforce.mil"),
    (".my.salesforce-setup.mil", ".my.salesforce.mil"),
    (".lightning.sfcrmapps.cn", ".my.sfcrmproducts.cn"),
    (".setup.sfcrmproducts.cn", ".my.sfcrmproducts.cn"),
)
# Clouds with login addresses that all their orgs share. Government orgs sign in at their own My Domain only.
CLOUDS = ("salesforce.com", "sfcrmproducts.cn")
MILITARY_AUDIENCE = "https://login.salesforce.com"
SHARED = {f"{door}.{cloud}" for cloud in CLOUDS for door in ("login", "test")}
# acme--uat.sandbox.my.salesforce.com, acme--uat.cs42.my.salesforce.com, x.scratch.my.salesforce.com, cs42.salesforce.com, usa2s.…
SANDBOX = re.compile(r"[^.]+--[^.]+\..*|[^.]+\.(sandbox|scratch)\..*|cs\d+\..*|[a-z]{3}\d+s\..*|test\..*")

# What each way of signing in needs beside instance_url, with what to write.
NEEDED = {
    "client_credentials": ("client_id", "client_secret"),
    "jwt": ("client_id", "username", "private_key_file"),
    "refresh_token": ("client_id", "refresh_token"),
    "session": ("access_token",),
}


class SalesforceSettings(BaseModel):
    """Where the org is, how to sign in, and how much of its API we may use."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    crm: Literal["salesforce"]
    instance_url: str = Field(description="the org's My Domain address")
    auth: Literal["client_credentials", "jwt", "refresh_token", "session"] = "client_credentials"
    client_id: str | None = None
    client_secret: SecretStr | None = None
    username: str | None = None
    private_key_file: Path | None = None
    refresh_token: SecretStr | None = None
    access_token: SecretStr | None = None
    login_url: str | None = Field(default=None, description="where tokens come from; see token_host")
    audience: str | None = Field(default=None, description="jwt only: `aud` of the assertion; see token_places")
    api_version: str | None = Field(default=None, description="such as 60.0; default: the newest that org and client share")
    quota_share: float = Field(default=0.25, gt=0, le=1, description="of the day's API calls, at most, in one run")
    overlap_minutes: int = Field(default=60, ge=0, le=60 * 24 * 14, description="how far each pull reads back")
    api: Literal["auto", "rest", "bulk"] = "auto"
    stages: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    integration_user_ids: list[str] = []

    @field_validator("instance_url")
    @classmethod
    def _instance(cls, url: str) -> str:
        url = _address(url)
        if _host(url) in SHARED:
            raise ValueError(f'is the login page of all orgs; give the My Domain address of yours, such as "{EXAMPLE}"')
        return url

    @field_validator("login_url")
    @classmethod
    def _login(cls, url: str | None) -> str | None:
        return None if url is None else _address(url)

    @field_validator("audience")
    @classmethod
    def _audience(cls, url: str | None) -> str | None:
        return None if url is None else check_address(url, "https://login.salesforce.com")

    @field_validator("api_version", mode="before")
    @classmethod
    def _version(cls, version: Any) -> Any:
        if version is None:
            return None
        match = re.fullmatch(r"v?(\d{2,3})(\.0)?", str(version).strip())
        if not match:
            raise ValueError('must look like "60.0"')
        return f"{match[1]}.0"

    @model_validator(mode="after")
    def _complete(self) -> SalesforceSettings:
        missing = [key for key in NEEDED[self.auth] if not _given(getattr(self, key))]
        if missing:
            others = " or ".join(f'"{auth}"' for auth in NEEDED if auth != self.auth)
            raise ValueError(f'auth = "{self.auth}" needs {" and ".join(missing)}; add it, or choose auth = {others}')
        if self.auth == "jwt" and self.private_key_file is not None and not self.private_key_file.is_file():
            raise ValueError(f"there is no private_key_file {self.private_key_file}; give the path of the key in PEM form")
        if self.auth == "client_credentials" and self.login_url and _host(self.login_url) in SHARED:
            raise ValueError(f'login_url {self.login_url} does not serve auth = "client_credentials"; remove it: My Domain does')
        if self.audience and self.auth != "jwt":
            raise ValueError(f'audience is for auth = "jwt" only; remove it, or choose another auth than "{self.auth}"')
        return self

    @property
    def token_host(self) -> str:
        """The address that issues tokens: login_url, else the org itself; for jwt the login address that all orgs of its cloud
        share (sandboxes: test.…). An org of another cloud, or on loopback, issues its own."""
        return self.token_places[0][0]

    @property
    def token_places(self) -> tuple[tuple[str, str], ...]:
        """Where tokens may come from, most likely first: (address, audience of a jwt assertion).

        login_url and audience decide alone where they are configured. Else an app of the older kind is known at the shared login
        address; GovCloud signs in at the My Domain, with the shared address as audience; and external client apps may be known to
        their own My Domain only (since Spring '26, "app_not_found" elsewhere). Salesforce's own CLI tries such pairs as well.
        """
        if self.auth != "jwt":
            host = self.login_url or self.instance_url
            return ((host, host),)
        hosts = [self.login_url] if self.login_url else [shared_login(self.instance_url), self.instance_url]
        pairs = [
            (host, audience)
            for host in filter(None, hosts)
            for audience in ([self.audience] if self.audience else [shared_login(host), host, MILITARY_AUDIENCE if _is_military(host) else None])
            if audience
        ]
        return tuple(dict.fromkeys(pairs))


def shared_login(url: str) -> str | None:
    """The login address that all orgs of the same cloud and kind share, such as https://test.salesforce.com for a sandbox.
    None for an address of no such cloud."""
    host = _host(url)
    cloud = next((c for c in CLOUDS if host.endswith(f".{c}")), None)
    return f"https://{'test' if SANDBOX.fullmatch(host) else 'login'}.{cloud}" if cloud else None


def _is_military(url: str) -> bool:
    return _host(url).endswith(".mil")


def _address(url: str) -> str:
    """`url` as the API's address, ending after the host. ValueError with the right address for what browsers show instead of it."""
    text = url.strip()
    bare = "://" not in text and re.match(r"[\w-]+(\.[\w-]+)+(:\d+)?(/|$)", text) is not None
    full = f"https://{text}" if bare else text
    host = (urlsplit(full).hostname or "").lower() if "://" in full else ""
    right = api_host(host)
    if right != host:
        raise ValueError(f'is the address of pages; the API answers at "https://{right}"')
    if bare:
        raise ValueError(f'must be an address with its scheme: "https://{host}"')
    checked = check_address(full, EXAMPLE)
    parts = urlsplit(checked)
    if parts.path:
        raise ValueError(f'must end after the host name: "{parts.scheme}://{parts.netloc}"')
    return checked


def api_host(host: str) -> str:
    """The host at which the API answers, for a host of Lightning, Setup or Visualforce pages; any other stays as it is."""
    for pages, api in PAGES:
        if host.endswith(pages):
            name = host.removesuffix(pages)
            if pages == ".vf.force.com":  # acme--c, acme--uat--c.sandbox: the part after the last -- is a package
                first, dot, rest = name.partition(".")
                name = first.rpartition("--")[0] + dot + rest
            return name + api
    return host


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _given(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
