"""Who may call: the service key or app token, OAuth tokens that expire, and scopes."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from connectors.simulator.clock import SimClock
from connectors.simulator.faults import Faults
from connectors.simulator.hubspot.errors import ApiError, expired_token, missing_scopes, no_credentials

LIFETIME = 1800  # seconds of an OAuth access token
OBJECTS = ("deals", "companies", "contacts", "custom")
SCOPES = frozenset(
    ["oauth", "crm.objects.owners.read", "settings.currencies.read"]
    + [f"crm.{what}.{name}.{right}" for what in ("objects", "schemas") for name in OBJECTS for right in ("read", "write")]
)


@dataclass(frozen=True)
class Token:
    expires_at: datetime
    generation: int


@dataclass
class Access:
    """What the portal accepts. `access_token` is the static key, None when there is none; `scopes` are granted to all."""

    clock: SimClock
    faults: Faults
    access_token: str | None = "demo-token"
    client_id: str = "plumbline-demo"
    client_secret: str = "demo-secret"
    refresh_token: str = "demo-refresh-token"
    scopes: set[str] = field(default_factory=lambda: set(SCOPES))
    tokens: dict[str, Token] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def check(self, authorization: str | None) -> None:
        """Let the call pass, or raise HubSpot's 401: no credentials, unknown token, expired token."""
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise no_credentials()
        given = given.strip()
        if self.access_token is not None and secrets.compare_digest(given.encode(), self.access_token.encode()):
            return
        token, now = self.tokens.get(given), self.clock.now()
        if token is None:
            raise no_credentials()
        if token.generation != self.faults.token_generation:
            raise expired_token(now, now)
        if token.expires_at <= now:
            raise expired_token(token.expires_at, now)

    def need(self, scopes: Iterable[str]) -> None:
        """Raise the 403 unless every one of `scopes` is granted; `a|b` asks for either."""
        for wanted in scopes:
            if not any(scope in self.scopes for scope in wanted.split("|")):
                raise missing_scopes(wanted.split("|"))

    def issue(self, form: Mapping[str, str]) -> dict[str, Any]:
        """OAuth: a new access token for a refresh token; raises 400 as HubSpot does for whatever does not match."""
        if form.get("grant_type") != "refresh_token":
            raise ApiError(400, "missing or unknown grant_type", "BAD_GRANT_TYPE", error="unsupported_grant_type")
        if form.get("client_id") != self.client_id:
            raise ApiError(400, "missing or invalid client id", "BAD_CLIENT_ID", error="invalid_client")
        if form.get("client_secret") != self.client_secret:
            raise ApiError(400, "missing or invalid client secret", "BAD_CLIENT_SECRET", error="invalid_client")
        if form.get("refresh_token") != self.refresh_token:
            raise ApiError(400, "missing or invalid refresh token", "BAD_REFRESH_TOKEN", error="invalid_grant")
        token = secrets.token_urlsafe(24)
        with self._lock:
            expires_at = self.clock.now() + timedelta(seconds=LIFETIME)
            self.tokens[token] = Token(expires_at, self.faults.token_generation)
        return {
            "token_type": "bearer",
            "refresh_token": self.refresh_token,
            "access_token": token,
            "expires_in": LIFETIME,
        }
