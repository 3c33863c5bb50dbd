"""[sources.NAME] of a HubSpot portal. Imports pydantic only: every command reads the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.address import check_address

EXAMPLE = "https://api.hubapi.com"


class HubSpotSettings(BaseModel):
    """Where a portal is, how to get in, and how much of its API one run may use.

    access_token: a service key or the token of a legacy private app. For an OAuth app give client_id, client_secret and
    refresh_token instead; access tokens are then fetched and renewed by themselves.
    api_version: "v3" takes the numbered paths (associations: v4), "2026-09" and the like the dated ones that follow them.
    requests_per_10s: unset, it starts at 100 (what the smallest plan allows) and follows what the portal says it allows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    crm: Literal["hubspot"]
    base_url: str = EXAMPLE
    access_token: SecretStr | None = None
    client_id: str | None = None
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = None
    quota_share: float = Field(default=0.25, gt=0, le=1, description="of the day's API calls, at most, in one run")
    overlap_minutes: int = Field(default=60, ge=15, le=1440, description="asked for again before the watermark: HubSpot's search lags")
    requests_per_10s: int | None = Field(default=None, ge=1, le=1000)
    api_version: str = Field(default="v3", pattern=r"^(v3|20\d\d-(0[1-9]|1[0-2]))$")
    stages: dict[str, dict[str, str]] = {}
    fields: dict[str, str] = {}
    integration_user_ids: list[str] = []
    app_id: str | None = Field(default=None, description="of the key or app, by which history tells what Plumbline changed")

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        return check_address(url, EXAMPLE)

    @model_validator(mode="after")
    def _credentials(self) -> HubSpotSettings:
        oauth = {"client_id": self.client_id, "client_secret": self.client_secret, "refresh_token": self.refresh_token}
        given = [key for key, value in oauth.items() if value]
        if self.access_token is not None and given:
            raise ValueError(f"access_token and {given[0]} exclude each other; keep access_token for a service key or private app")
        if self.access_token is not None and not self.access_token.get_secret_value().strip():
            raise ValueError("access_token is empty")
        if self.access_token is None:
            missing = [key for key, value in oauth.items() if not value]
            if len(missing) == len(oauth):
                raise ValueError("access_token is missing (a service key), or client_id, client_secret and refresh_token of an OAuth app")
            if missing:
                raise ValueError(f"{missing[0]} is missing: an OAuth app needs client_id, client_secret and refresh_token")
        return self

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of this source, to be taken out of messages."""
        return tuple(s.get_secret_value() for s in (self.access_token, self.client_secret, self.refresh_token) if s)
