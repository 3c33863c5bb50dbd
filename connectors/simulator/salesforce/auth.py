"""Who may talk to the org: the token endpoint's flows and the tokens that it has issued."""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from connectors.simulator.salesforce.errors import OAuthError, SalesforceError

if TYPE_CHECKING:
    from connectors.simulator.salesforce.org import SalesforceOrg

JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass
class Token:
    user_id: str
    generation: int
    expires: datetime | None


class Identity:
    """A connected app with its credentials, and the sessions it has given.

    client_id, client_secret: of client credentials and refresh. refresh_token: the one accepted. access_token: when set, a
    session that is always accepted, as of a logged-in command line. username: the integration user whom sessions act as.
    private_key_pem: its public part checks JWT assertions; made on first use unless set, or set public_key_pem alone.
    token_lifetime: None means that tokens last until they are revoked or the fault `expire_tokens` strikes.
    """

    def __init__(self, org: SalesforceOrg) -> None:
        self.org = org
        self.client_id = "plumbline-demo"
        self.client_secret = "demo-secret"
        self.refresh_token = "5Aep861demo-refresh-token"
        self.access_token: str | None = None
        self.username = "integration@plumbline.example"
        self.token_lifetime: timedelta | None = None
        self.client_credentials_enabled = True
        self._tokens: dict[str, Token] = {}
        self._lock = threading.Lock()
        self._private_key: str | None = None
        self._public_key: str | None = None

    @cached_property
    def _key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if self._private_key is not None:
            return load_pem_private_key(self._private_key.encode(), None)
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def private_key_pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @private_key_pem.setter
    def private_key_pem(self, pem: str) -> None:
        self._private_key, self._public_key = pem, None
        self.__dict__.pop("_key", None)

    @property
    def public_key_pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if self._public_key is not None:
            return self._public_key
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @public_key_pem.setter
    def public_key_pem(self, pem: str) -> None:
        self._public_key = pem

    # tokens

    def issue(self, user_id: str) -> str:
        """A new session of the user."""
        organization = self.org.organization_id[:15]
        token = f"{organization}!AQ{secrets.token_urlsafe(72).replace('-', '.').replace('_', '.')}"
        expires = self.org.clock.now() + self.token_lifetime if self.token_lifetime else None
        with self._lock:
            self._tokens[token] = Token(user_id, self.org.faults.token_generation, expires)
        return token

    def revoke(self, token: str | None = None) -> None:
        """End one session, or all."""
        with self._lock:
            if token is None:
                self._tokens.clear()
            else:
                self._tokens.pop(token, None)

    def session(self, authorization: str | None) -> str:
        """The user id behind an Authorization header. Raises INVALID_SESSION_ID (401)."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() in {"bearer", "oauth"}:
            if self.access_token is not None and hmac.compare_digest(token.encode(), self.access_token.encode()):
                return self.org.integration_user_id
            with self._lock:
                found = self._tokens.get(token)
            if found is not None and self._valid(found):
                return found.user_id
        raise SalesforceError("INVALID_SESSION_ID", "Session expired or invalid", status=401)

    def _valid(self, token: Token) -> bool:
        if token.generation != self.org.faults.token_generation:
            return False
        return token.expires is None or self.org.clock.now() < token.expires

    # flows

    def grant(self, form: Mapping[str, str], authorization: str | None) -> str:
        """The id of the user for whom the token request earns a session. Raises OAuthError."""
        grant = form.get("grant_type", "")
        if grant == JWT_GRANT:
            return self._by_assertion(form.get("assertion", ""))
        if grant not in {"client_credentials", "refresh_token"}:
            raise OAuthError("unsupported_grant_type", "grant type not supported")
        self._check_client(form, authorization)
        if grant == "client_credentials":
            if not self.client_credentials_enabled:
                raise OAuthError("invalid_grant", "no client credentials user enabled")
        elif not hmac.compare_digest(form.get("refresh_token", "").encode(), self.refresh_token.encode()):
            raise OAuthError("invalid_grant", "expired access/refresh token")
        return self.org.integration_user_id

    def _check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        if authorization and authorization.lower().startswith("basic "):
            try:
                decoded = base64.b64decode(authorization[6:], validate=True).decode()
            except ValueError as error:
                raise OAuthError("invalid_client", "invalid client credentials") from error
            client_id, _, secret = (unquote(part) for part in decoded.partition(":"))
        if not client_id:
            raise OAuthError("invalid_request", "must provide a client_id")
        if client_id != self.client_id:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if not hmac.compare_digest(secret.encode(), self.client_secret.encode()):
            raise OAuthError("invalid_client", "invalid client credentials")

    def _by_assertion(self, assertion: str) -> str:
        import jwt

        try:
            # The assertion's three minutes run by the caller's clock, not by the simulated org's, which may stand anywhere.
            claims = jwt.decode(
                assertion, self.public_key_pem, algorithms=["RS256"], options={"verify_aud": False, "require": ["iss", "sub", "aud", "exp"]}
            )
        except jwt.ExpiredSignatureError as error:
            raise OAuthError("invalid_grant", "expired authorization code") from error
        except jwt.PyJWTError as error:
            raise OAuthError("invalid_grant", "invalid assertion") from error
        if claims["iss"] != self.client_id:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        audience = str(claims["aud"]).rstrip("/")
        if not audience.endswith((".salesforce.com", ".my.salesforce.com")) and not audience.startswith("http://127.0.0.1"):
            raise OAuthError("invalid_grant", "audience is invalid")
        try:
            return self.org.user_id(str(claims["sub"]))
        except SalesforceError as error:
            raise OAuthError("invalid_grant", "user hasn't approved this consumer") from error
