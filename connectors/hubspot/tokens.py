"""Where a request's bearer token comes from: a fixed one, or an OAuth app's, renewed before it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from connectors.errors import CrmAuthError, CrmProtocolError

EARLY = 60.0  # seconds before its end at which an access token is renewed: HubSpot asks to go by expires_in, not by 401s


class Tokens(Protocol):
    renewable: bool

    def get(self) -> str:
        """The token to send now."""

    def renew(self, refused: str) -> None:
        """The server refused this token: get another, unless another thread did so already."""


class FixedToken:
    """A service key, or the token of a private app: valid until somebody revokes it."""

    renewable = False

    def __init__(self, token: str) -> None:
        self._token = token

    def get(self) -> str:
        return self._token

    def renew(self, refused: str) -> None:
        """There is no other one."""


class OAuthToken:
    """Access tokens of an OAuth app. One thread renews, the others wait for it and use what it got."""

    renewable = True

    def __init__(self, source: str, refresh_token: str, fetch: Callable[[str], dict[str, Any]]) -> None:
        """fetch: takes the refresh token, answers the token endpoint's JSON."""
        self.source, self._refresh_token, self._fetch = source, refresh_token, fetch
        self._token: str | None = None
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def get(self) -> str:
        with self._lock:
            if self._token is None or time.monotonic() >= self._renew_at:
                return self._renew()
            return self._token

    def renew(self, refused: str) -> None:
        with self._lock:
            if self._token == refused:
                self._renew()

    def _renew(self) -> str:
        answer = self._fetch(self._refresh_token)
        token, life = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(token, str) or not token:
            raise CrmProtocolError(
                "the token endpoint's answer holds no access_token", source=self.source, fix="Check base_url: it must be HubSpot's API."
            )
        if isinstance(answer.get("refresh_token"), str):
            self._refresh_token = answer["refresh_token"]
        seconds = float(life) if isinstance(life, (int, float)) else 1800.0  # what HubSpot gives
        self._token, self._renew_at = token, time.monotonic() + max(seconds - EARLY, seconds / 2)
        return token


def refused(source: str, *, oauth: bool) -> CrmAuthError:
    if oauth:
        return CrmAuthError(
            "HubSpot does not accept the app's credentials", source=source, code="INVALID_AUTHENTICATION",
            fix="Check client_id, client_secret and refresh_token, and that the app is still installed in the portal.",
        )
    return CrmAuthError(
        "HubSpot does not accept the access token", source=source, code="INVALID_AUTHENTICATION",
        fix="Check access_token: Settings > Integrations > Service Keys in HubSpot shows whether the key is active, or makes a new one.",
    )
