"""Access tokens: the OAuth flows that an unattended job can use, through simple-salesforce's token_login.

https://help.salesforce.com: "OAuth 2.0 Client Credentials Flow", "OAuth 2.0 JWT Bearer Flow", "OAuth 2.0 Refresh Token Flow".
SOAP login and the username-password flow are left out: Salesforce retires them.
"""

from __future__ import annotations

import re
import threading
import warnings
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import jwt
import requests
from pydantic import SecretStr

from connectors.errors import CrmAuthError, CrmError, CrmProtocolError, CrmUnavailableError
from connectors.http import RetryPolicy, Transient, network_trouble, retry_after, scrub
from connectors.salesforce.settings import SalesforceSettings
from connectors.salesforce.transport import TSession

SIGN_INS = 3  # in a row without one call that a token of ours was good for: more would only lock the user out
ASSERTION_LIFE = timedelta(minutes=3)  # the longest that Salesforce takes

USER = re.compile(r"/id/[^/]+/(005\w{12,15})$")

# How a token endpoint says that it read no credentials, or not these.
UNREAD = frozenset({"invalid_client_id", "invalid_client", "invalid_request"})

# Refusals that no other address would take back.
HOPELESS = frozenset({"inactive_user", "inactive_org"})

# (error, part of its description) of the token endpoint → what to do. Codes: help.salesforce.com "OAuth 2.0 Authorization Errors".
FIXES: tuple[tuple[str, str, str], ...] = (
    ("invalid_client_id", "", "Check client_id: it is the consumer key of the external client app (or connected app) of this org."),
    (
        "app_not_found",
        "",
        "Install the external client app in this org; if it is, set login_url and audience to the org's My Domain address.",
    ),
    ("invalid_client", "", "Check client_secret, or take a new one from the app's OAuth settings."),
    ("invalid_grant", "no client credentials user", "Name a run-as user for the client credentials flow in the app's policies."),
    ("invalid_grant", "no valid scopes", 'Add the scope "Manage user data via APIs (api)" to the app.'),
    (
        "invalid_grant",
        "hasn't approved",
        "Pre-authorize the user for the app: permitted users = admin approved, and its profile or permission set.",
    ),
    ("invalid_grant", "not supported on this domain", "Use the org's My Domain address as instance_url (and login_url)."),
    ("invalid_grant", "audience", "Set audience to the login address that the org goes by: login or test.salesforce.com, or its My Domain."),
    (
        "invalid_grant",
        "refresh token",
        "The refresh token has expired, was revoked, or was good for one run because the app rotates them: turn rotation off, authorize again.",
    ),
    ("invalid_grant", "assertion", "Check that the app holds the certificate of private_key_file, and this machine's clock."),
    ("invalid_app_access", "", "Give the user access to the app (profile or permission set)."),
    ("inactive_user", "", "The user is inactive: activate it or name another."),
    ("inactive_org", "", "The org is locked, closed or suspended."),
    ("unsupported_grant_type", "", "Enable this flow in the app's OAuth settings, or choose another auth."),
    ("unauthorized_client", "", "Enable this flow in the app's OAuth settings, or choose another auth."),
)
CHECK = {
    "client_credentials": "Check client_id and client_secret, and that the app allows the client credentials flow with a run-as user.",
    "jwt": "Check client_id, username, private_key_file and login_url, and that the user is pre-authorized for the app.",
    "refresh_token": "Check client_id, client_secret and refresh_token; a revoked token needs a new authorization.",
    "session": 'Take a new access token; for unattended runs use auth = "client_credentials" or "jwt".',
}
ROTATES = (
    "the app rotates refresh tokens: the configured one is used up and the next run cannot sign in; turn rotation off in the app's "
    "OAuth policies and put in a new token, or sign in by client_credentials or jwt"
)


@dataclass(frozen=True)
class Token:
    """An access token. The value stays out of repr, so out of logs."""

    value: SecretStr

    @property
    def bearer(self) -> str:
        return f"Bearer {self.value.get_secret_value()}"


class TokenProvider:
    """The one place that signs in. Safe under threads: however many find the token stale at once, one signs in for all."""

    def __init__(
        self, settings: SalesforceSettings, session: TSession, server_time: Callable[[], datetime | None], policy: RetryPolicy | None = None
    ) -> None:
        """server_time: the last Date header seen, for assertions when our own clock is wrong."""
        self.settings, self.session, self.server_time = settings, session, server_time
        self.policy = policy or RetryPolicy()
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._unproven = 0
        self._refused: CrmError | None = None  # the sign-in: what it said then, it says to every thread
        self._refresh_token = settings.refresh_token
        self._place = settings.token_places[0]  # where we ask, and for whom an assertion is meant; the first that gave a token stays
        self._skew = timedelta(0)  # added to our clock in assertions
        self._in_form = False  # client_id and client_secret in the form: some gateways keep the Authorization header to themselves
        self.user_id: str | None = None  # of the user whom we act as, where the answer to the sign-in named it
        self.rotates = False  # the org issues a new refresh token each time: the configured one is good for one run only

    def token(self) -> Token:
        with self._lock:
            if self._token is None:
                self._token = self._sign_in()
            return self._token

    def refresh(self, stale: Token, obj: str, refusals: int = 1) -> Token:
        """A token other than `stale`: another thread's if it was quicker, else a new one. Raises CrmAuthError when new tokens do
        not help either: `refusals` is how often this call met a 401, and other calls may well be accepted meanwhile."""
        with self._lock:
            if self._token is not stale and self._token is not None and refusals <= SIGN_INS:
                return self._token
            if self.settings.auth == "session":
                raise CrmAuthError(
                    "the access token has expired or is not of this org",
                    source=self.settings.name,
                    obj=obj,
                    fix=CHECK["session"],
                    code="INVALID_SESSION_ID",
                )
            if self._unproven >= SIGN_INS or refusals > SIGN_INS:
                raise CrmAuthError(
                    f"signing in works, but {urlsplit(self.settings.instance_url).netloc} refuses the token each time",
                    source=self.settings.name,
                    obj=obj,
                    code="INVALID_SESSION_ID",
                    fix="Check that instance_url is the org of this user and app, and the app's IP and session policies.",
                )
            self._token = self._sign_in()
            return self._token

    def proven(self) -> None:
        """A call was accepted."""
        self._unproven = 0

    def secrets(self) -> list[str]:
        s = self.settings
        held = [s.client_secret, s.refresh_token, s.access_token, self._refresh_token, self._token.value if self._token else None]
        return [secret.get_secret_value() for secret in held if secret]

    # The flows

    def _sign_in(self) -> Token:
        if self._refused:
            raise self._refused
        self._unproven += 1
        if self.settings.auth == "session":
            assert self.settings.access_token is not None  # settings are complete  # noqa: S101
            return Token(self.settings.access_token)
        places = [self._place] if self._token else self.settings.token_places
        refusals: list[CrmError] = []
        for place in places:
            self._place = place
            try:
                return self.policy.run(self._attempt)
            except (CrmAuthError, CrmUnavailableError) as refused:  # a firewall may open the way to the org's own address only
                refusals.append(refused)
                if refused.code in HOPELESS:
                    break
        # The place that knows app and user tells what is wrong with them; the others only that they do not.
        told = next((r for r in refusals if isinstance(r, CrmAuthError) and not _elsewhere(r)), refusals[0])
        self._refused = told if isinstance(told, CrmAuthError) else None
        raise told

    def _grant(self) -> tuple[dict[str, str], dict[str, str]]:
        """The form and the headers of the token request."""
        s = self.settings
        client, secret = s.client_id or "", s.client_secret.get_secret_value() if s.client_secret else ""
        if s.auth == "client_credentials" and self._in_form:
            return {"grant_type": "client_credentials", "client_id": client, "client_secret": secret}, {}
        if s.auth == "client_credentials":
            return {"grant_type": "client_credentials"}, {"Authorization": f"Basic {b64encode(f'{client}:{secret}'.encode()).decode()}"}
        if s.auth == "jwt":
            return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": self._assertion()}, {}
        form = {"grant_type": "refresh_token", "client_id": client}
        form["refresh_token"] = self._refresh_token.get_secret_value() if self._refresh_token else ""
        return (form | {"client_secret": secret} if secret else form), {}

    def _assertion(self) -> str:
        s, path = self.settings, self.settings.private_key_file
        try:
            key = path.read_bytes() if path else b""
        except OSError as error:
            raise CrmAuthError(
                f"private_key_file {path} cannot be read: {error.strerror}", source=s.name, fix="Check the path and the file's permissions."
            ) from None
        claims = {
            "iss": s.client_id,
            "sub": s.username,
            "aud": self._place[1],
            "exp": int((datetime.now(UTC) + self._skew + ASSERTION_LIFE).timestamp()),
        }
        try:
            return jwt.encode(claims, key, algorithm="RS256")
        except (ValueError, TypeError, jwt.exceptions.PyJWTError):  # the text of these may quote the key
            raise CrmAuthError(
                f"private_key_file {path} does not hold an RSA private key",
                source=s.name,
                fix="It must be the unencrypted PEM file whose certificate was uploaded to the app.",
            ) from None

    def _attempt(self) -> Token:
        from simple_salesforce.exceptions import SalesforceAuthenticationFailed
        from simple_salesforce.login import token_login

        form, headers = self._grant()
        host = self._place[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it prints an authorization URL with the consumer key
                value, _ = token_login(
                    f"{host}/services/oauth2/token", form, "", self.settings.client_id or "", headers, None, self.session
                )
        except SalesforceAuthenticationFailed as error:
            refused = self._refusal(str(error.code), str(error.auth_message or ""))
            if self.settings.auth != "client_credentials" or self._in_form or error.code not in UNREAD:
                raise refused from None
            return self._attempt_in_form(refused)
        except (requests.JSONDecodeError, AttributeError, KeyError, TypeError):  # the library wants instance_url; RFC 6749 does not
            value = self._bare_token()
            if value is None:
                raise self._refusal("", "") from None
        except requests.RequestException as error:
            trouble = network_trouble(error, host)
            failed = CrmUnavailableError(trouble.what, source=self.settings.name, obj="sign-in", fix=trouble.fix, code=trouble.kind)
            raise Transient(failed, hopeless=not trouble.sent) from None
        if not value:
            raise self._not_oauth()
        self._take_rotated()
        self._take_user()
        return Token(SecretStr(str(value)))

    def _attempt_in_form(self, refused: Exception) -> Token:
        """Once more with the credentials in the form, which Salesforce documents too; `refused` is what the header met."""
        self._in_form = True
        try:
            return self._attempt()
        except CrmError:
            self._in_form = False
            raise refused from None

    def _bare_token(self) -> str | None:
        """The token of an answer that names no instance: we stay at instance_url in any case."""
        answer = self.session.last
        try:
            body = answer.json() if answer is not None and answer.ok else None
        except requests.JSONDecodeError:
            return None
        value = body.get("access_token") if isinstance(body, dict) else None
        return value if isinstance(value, str) else None

    def _take_user(self) -> None:
        """`id` of a token's answer is the address of the user: https://login.salesforce.com/id/00D…/005…"""
        answer = self.session.last
        try:
            body = answer.json() if answer is not None else None
        except requests.JSONDecodeError:
            return
        address = body.get("id") if isinstance(body, dict) else None
        found = USER.search(address) if isinstance(address, str) else None
        self.user_id = found[1] if found else self.user_id

    def _take_rotated(self) -> None:
        """With refresh token rotation the token we sent is void now; within this run we go on with its successor."""
        answer = self.session.last
        fresh = answer.json().get("refresh_token") if answer is not None and self.settings.auth == "refresh_token" else None
        if fresh and self._refresh_token and fresh != self._refresh_token.get_secret_value():
            self._refresh_token, self.rotates = SecretStr(str(fresh)), True

    def _refusal(self, code: str, words: str) -> Exception:
        answer = self.session.last
        status = answer.status_code if answer is not None else 0
        s = self.settings
        if status == 429 or status >= 500:
            failed = CrmUnavailableError(
                f"{urlsplit(self._place[0]).netloc} answers {status} to the sign-in",
                source=s.name,
                obj="sign-in",
                fix="Run again later.",
                code=str(status),
            )
            return Transient(failed, after=retry_after(answer.headers) if answer is not None else None)
        if code in ("", str(status)):  # simple-salesforce puts the status in the place of a code when the body is not JSON
            return self._not_oauth(status)
        said = scrub(words, *self.secrets(), s.client_id, s.username, limit=160)
        if code == "invalid_grant" and s.auth == "jwt" and self._adopt_server_clock():
            return Transient(CrmAuthError(f"Salesforce refuses the assertion ({said})", source=s.name, code=code, fix=CHECK["jwt"]))
        fixes = (fix for known, part, fix in FIXES if known == code and part in words.lower())
        return CrmAuthError(
            f"Salesforce refuses to sign us in: {code}" + (f" ({said})" if said else ""),
            source=s.name,
            code=code,
            fix=next(fixes, CHECK[s.auth]),
        )

    def _adopt_server_clock(self) -> bool:
        """Where our clock and the server's differ by more than an assertion's slack: go by the server's. True when that is news."""
        theirs = self.server_time()
        if theirs is None or self._skew or abs(theirs - datetime.now(UTC)) < ASSERTION_LIFE / 3:
            return False
        self._skew = theirs - datetime.now(UTC)
        return True

    def _not_oauth(self, status: int = 200) -> CrmError:
        s = self.settings
        return CrmProtocolError(
            f"{urlsplit(self._place[0]).netloc} answers {status} without a token where Salesforce issues tokens",
            source=s.name,
            obj="sign-in",
            fix="Check instance_url and login_url: they must be the org's My Domain address, or login.salesforce.com for jwt.",
        )


def _elsewhere(refused: CrmAuthError) -> bool:
    """Whether a refusal says no more than that this is the wrong door."""
    return refused.code in ("app_not_found", "invalid_client_id") or "audience" in refused.what.lower()
