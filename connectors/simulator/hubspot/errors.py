"""HubSpot's error answers, in its words: the bodies that a client has to read."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from connectors.simulator.faults import Fault

OAUTH_DOCS = "https://developers.hubspot.com/docs/methods/auth/oauth-overview"
SCOPES_DOCS = "https://developers.hubspot.com/scopes"


class ApiError(Exception):
    """An answer with an error status. `body()` is HubSpot's JSON: status, message, correlationId, category, errors, context."""

    def __init__(
        self,
        status: int,
        message: str,
        category: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.category, self.rest = status, message, category, rest
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"status": "error", "message": self.message, "correlationId": str(uuid.uuid4())}
        body |= self.rest
        if self.category:
            body["category"] = self.category
        return body


def validation(message: str, **rest: Any) -> ApiError:
    return ApiError(400, message, "VALIDATION_ERROR", **rest)


class InvalidValue(Exception):
    """One property value that HubSpot would not take: its code, such as INVALID_OPTION, and words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def invalid_values(invalid: Sequence[tuple[str, InvalidValue]], portal_id: int) -> ApiError:
    """The 400 for property values; one of them fails the entire request, batches included. `invalid`: (property, what)."""
    verdicts = [
        {
            "isValid": False,
            "message": what.message,
            "error": what.code,
            "name": name,
            "localizedErrorMessage": what.message,
            "portalId": portal_id,
        }
        for name, what in invalid
    ]
    errors = [
        {"message": what.message, "code": what.code, "context": {"propertyName": [name]}} for name, what in invalid
    ]
    return validation(f"Property values were not valid: {orjson.dumps(verdicts).decode()}", errors=errors)


def no_such_object(object_id: object) -> ApiError:
    message = "Object not found.  objectId are usually numeric."
    return ApiError(404, message, "OBJECT_NOT_FOUND", context={"id": [str(object_id)]})


def no_credentials() -> ApiError:
    message = (
        "Authentication credentials not found. This API supports OAuth 2.0 authentication "
        f"and you can find more details at {OAUTH_DOCS}"
    )
    return ApiError(401, message, "INVALID_AUTHENTICATION")


def expired_token(expired_at: datetime, now: datetime) -> ApiError:
    seconds = max(0, int((now - expired_at).total_seconds()))
    message = f"The OAuth token used to make this call expired {seconds} second(s) ago."
    context = {"expire time": [expired_at.strftime("%Y-%m-%dT%H:%M:%S.000Z")]}
    return ApiError(401, message, "EXPIRED_AUTHENTICATION", context=context)


def missing_scopes(scopes: Sequence[str]) -> ApiError:
    message = (
        "This app hasn't been granted all required scopes to make this call. "
        f"Read more about required scopes here: {SCOPES_DOCS}."
    )
    errors = [
        {
            "message": "One or more of the following scopes are required.",
            "context": {"requiredGranularScopes": list(scopes)},
        }
    ]
    return ApiError(403, message, "MISSING_SCOPES", errors=errors, links={"scopes": SCOPES_DOCS})


def rate_limited(policy: str) -> ApiError:
    """429. `policy`: SECONDLY, TEN_SECONDLY_ROLLING or DAILY. HubSpot sends no Retry-After that one could rely on."""
    message = f"You have reached your {policy.lower()} limit."
    return ApiError(429, message, "RATE_LIMITS", errorType="RATE_LIMIT", policyName=policy)


def fault_body(status: int, fault: Fault) -> tuple[Mapping[str, str], Any]:
    """HubSpot's own answer for a status that somebody ordered: headers and body (see simulator.http.instrument)."""
    if status >= 502:
        # The gateway in front of HubSpot answers here, and it speaks no JSON.
        return {"content-type": "text/html"}, f"<html>\r\n<head><title>{status}</title></head>\r\n<body>{status}</body>\r\n</html>\r\n"
    error = {
        401: ApiError(401, "The OAuth token used to make this call expired 0 second(s) ago.", "EXPIRED_AUTHENTICATION"),
        403: missing_scopes(["crm.objects.deals.read"]),
        404: ApiError(404, "resource not found", "OBJECT_NOT_FOUND"),
        409: ApiError(409, "The request conflicts with another change of this object.", "CONFLICT"),
        423: ApiError(423, "This resource is locked by another large update. Please try again later.", "LOCKED"),
        429: rate_limited("DAILY" if fault.kind == "daily_limit" else "TEN_SECONDLY_ROLLING"),
    }.get(status, ApiError(status, "internal error" if status >= 500 else "The request was refused."))
    return {}, error.body()
