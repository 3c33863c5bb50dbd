"""Salesforce's own errors, as its REST answers show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SalesforceError(Exception):
    """An error that a request is answered with: HTTP status, errorCode, message and the fields concerned."""

    def __init__(self, code: str, message: str, *, status: int = 400, fields: Sequence[str] | None = None) -> None:
        self.code, self.message, self.status, self.fields = code, message, status, fields
        super().__init__(f"{code}: {message}")

    def body(self) -> list[dict[str, Any]]:
        error: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            error["fields"] = list(self.fields)
        return [error]


class OAuthError(Exception):
    """What the token endpoint refuses with: RFC 6749 section 5.2, in Salesforce's words."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        self.error, self.description, self.status = error, description, status
        super().__init__(f"{error}: {description}")


def not_found(message: str = "The requested resource does not exist") -> SalesforceError:
    return SalesforceError("NOT_FOUND", message, status=404)


# What an injected status answers when no body is armed with it, by HTTP status.
STATUS_BODIES: dict[int, tuple[str, str]] = {
    400: ("UNKNOWN_EXCEPTION", "An unexpected error occurred"),
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("INSUFFICIENT_ACCESS", "insufficient access rights on object id"),
    404: ("NOT_FOUND", "The requested resource does not exist"),
    429: ("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded."),
    500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred. Please include this ErrorId if you contact support: 1403012345-12345 (-1)"),
    503: ("SERVER_UNAVAILABLE", "Service unavailable: the server is temporarily unable to service your request"),
}
DAILY_LIMIT = ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
