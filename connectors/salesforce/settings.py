"""One Salesforce source of `plumbline.toml`. Imports pydantic only: settings load on each command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.address import check_address

EXAMPLE = "https://acme.my.salesforce.com"
JWT_LOGIN = "https://login.salesforce.com"
JWT_LOGIN_SANDBOX = "https://test.salesforce.com"

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
    api_version: str | None = Field(default=None, description="such as 60.0; default: the newest that org and client share")
    quota_share: float = Field(default=0.25, gt=0, le=1, description="of the day's API calls, at most, in one run")
    overlap_minutes: int = Field(default=60, ge=0, le=60 * 24 * 14, description="how far each pull reads back")
    api: Literal["auto", "rest", "bulk"] = "auto"
    stages: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    integration_user_ids: list[str] = []

    @field_validator("instance_url", "login_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        url = check_address(url, EXAMPLE)
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.path:
            raise ValueError(f'must end after the host name: "{parts.scheme}://{parts.netloc}"')
        if host.endswith(".lightning.force.com"):
            raise ValueError(
                f'is the address of pages; the API answers at "https://{host.removesuffix(".lightning.force.com")}.my.salesforce.com"'
            )
        return url

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
        return self

    @property
    def token_host(self) -> str:
        """The address that issues tokens: login_url, else the org itself; for jwt login.salesforce.com (sandboxes:
        test.salesforce.com), which is also the audience of the assertion. An org on loopback issues its own."""
        if self.login_url:
            return self.login_url
        host = urlsplit(self.instance_url).hostname or ""
        if self.auth == "jwt" and host.endswith(".salesforce.com"):
            return JWT_LOGIN_SANDBOX if ".sandbox." in host else JWT_LOGIN
        return self.instance_url


def _given(value: object) -> bool:
    return bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
