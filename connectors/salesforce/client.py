"""One org, one run: simple-salesforce under token, budget, retry and clock.

Two ways to call: `call` for JSON through simple-salesforce's restful(), `fetch` and `download` for bytes that are landed as
they come. SFType and the library's bulk handlers are not used: they lose the token refresh, or loop for ever on a 401.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson
import requests
from urllib3.exceptions import HTTPError

from connectors.errors import CrmPermissionError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.http import RetryPolicy, Transient, network_trouble, retry_after, scrub, server_time
from connectors.limits import Budget
from connectors.salesforce.auth import Token, TokenProvider
from connectors.salesforce.settings import SalesforceSettings
from connectors.salesforce.transport import TSession

T = TypeVar("T")

NEWEST = 68  # the newest version whose REST, Bulk 2.0 and OAuth resources were read for this client; newer ones change defaults
RESULT_PAGES = 58  # first version with Bulk 2.0 parallel result pages
SIGN_IN, ORG = "sign-in", "org"
STATUS_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
STATUS_ABSENT = frozenset({404, 405, 410, 414, 431, 501})  # said by what stands before Salesforce, or by a server without the resource


class Refused(Exception):
    """Salesforce says no to one request, with its error code. Internal: who asked decides what that means."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.message = status, code, message


class Client:
    """Connects on first use. Safe under threads."""

    def __init__(self, settings: SalesforceSettings, policy: RetryPolicy | None = None, budget: Budget | None = None) -> None:
        """budget: shared with whatever else this run does with the org; None: one of its own."""
        self.settings, self.policy = settings, policy or RetryPolicy()
        self.budget = budget or Budget(settings.name, settings.quota_share)
        self.server_time: datetime | None = None
        self.session = TSession(settings.instance_url, settings.token_host, self._seen)
        self.tokens = TokenProvider(settings, self.session, lambda: self.server_time, self.policy)
        self.version = 0
        self._sf: Any = None
        self._answered = False
        self._user: str | None = None
        self.unsure = 0  # requests that the server may have done although no good answer came
        self._sent = threading.local()

    def close(self) -> None:
        self.session.close()

    # Connecting

    def connect(self) -> None:
        """Find the API version and sign in. Raises CrmUnavailableError, CrmAuthError or CrmProtocolError."""
        from simple_salesforce import Salesforce

        self.version = self._choose_version()
        token = self.tokens.token()
        self._sf = Salesforce(
            session_id=token.value.get_secret_value(),
            instance_url=self.settings.instance_url,
            session=self.session,
            version=f"{self.version}.0",
        )
        self._sf.base_url = f"https://{urlsplit(self.settings.instance_url).netloc}{self.data}/"  # it loses the brackets of IPv6 hosts

    def _choose_version(self) -> int:
        """The configured version, else the newest that org and client share. The list of versions needs no token and is no
        API call; a server without it gets the library's default."""
        from simple_salesforce.api import DEFAULT_API_VERSION

        wanted = self.settings.api_version
        offered = sorted(self.policy.run(self._offered))
        if wanted:
            version = int(wanted.split(".")[0])
            if offered and version not in offered:
                why = "Salesforce has retired it" if version < offered[0] else "it is newer than the org" if version > offered[-1] else ""
                raise CrmProtocolError(
                    f"the org does not offer API version {wanted}" + (f": {why}" if why else ""),
                    source=self.settings.name,
                    fix=f"Remove api_version from the configuration, or take one from {offered[0]}.0 to {offered[-1]}.0.",
                )
            return version
        shared = [version for version in offered if version <= NEWEST] or offered[:1]
        return shared[-1] if shared else int(DEFAULT_API_VERSION.split(".")[0])

    def _offered(self) -> list[int]:
        response = self._wire(SIGN_IN, lambda: self.session.get(f"{self.settings.instance_url}/services/data/"))
        if response.status_code in STATUS_TRANSIENT:
            raise self._transient(SIGN_IN, response.status_code, response)
        try:
            return [int(float(item["version"])) for item in orjson.loads(response.content)]
        except (ValueError, KeyError, TypeError):
            return []

    # Calling

    def call(self, obj: str, path: str, *, method: str = "GET", json: Any = None) -> Any:
        """A JSON call below /services/data/vXX.0/; the answer parsed, None when empty. Raises Refused, or a CrmError.

        Any call may reach the server twice, after an answer that was lost: only what may be repeated belongs here.
        """

        def send(token: Token) -> Any:
            options: dict[str, Any] = {"headers": self._headers(token)}
            if json is not None:
                options["data"] = orjson.dumps(json)
            return self._sf.restful(path, method=method, **options)

        return self._run(obj, send)

    def fetch(self, obj: str, url: str, *, headers: Mapping[str, str] | None = None) -> tuple[bytes, Mapping[str, str]]:
        """GET bytes from `url` (absolute on the host: /services/…) into memory: pages of some MB."""

        def send(token: Token) -> tuple[bytes, Mapping[str, str]]:
            response = self.session.get(self.settings.instance_url + url, headers=self._headers(token, headers))
            self._refuse(response)
            return response.content, response.headers

        return self._run(obj, send)

    def download(self, obj: str, url: str, target: Path) -> tuple[int, Mapping[str, str]]:
        """GET bytes from `url` to the file `target`, which is absent or whole; gives size and headers. A broken body is
        fetched again from its beginning."""
        part = target.with_name(target.name + ".part")

        def send(token: Token) -> tuple[int, Mapping[str, str]]:
            headers = self._headers(token, {"Accept": "text/csv"})
            with self.session.get(self.settings.instance_url + url, headers=headers, stream=True) as response:
                self._refuse(response)
                response.raw.decode_content = True
                with part.open("wb") as out:
                    shutil.copyfileobj(response.raw, out, 1 << 20)
                    size = out.tell()
                    out.flush()
                    os.fsync(out.fileno())
                return size, response.headers

        try:
            result = self._run(obj, send)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return result

    def upload(self, obj: str, url: str, body: bytes) -> None:
        """PUT a CSV body."""

        def send(token: Token) -> None:
            headers = self._headers(token, {"Content-Type": "text/csv; charset=UTF-8"})
            self._refuse(self.session.put(self.settings.instance_url + url, headers=headers, data=body))

        self._run(obj, send)

    def soap(self, obj: str, envelope: str) -> bytes:
        """POST a partner SOAP call that has no REST twin; `{token}` in the envelope becomes the session. Raises Refused."""

        def send(token: Token) -> bytes:
            body = envelope.format(token=token.value.get_secret_value()).encode()
            headers = {"Content-Type": "text/xml; charset=UTF-8", "SOAPAction": '""'}
            response = self.session.post(f"{self.settings.instance_url}/services/Soap/u/{self.version}.0", data=body, headers=headers)
            if response.status_code >= 300:
                raise Refused(response.status_code if response.status_code in (401, 503) else 400, "SOAP_FAULT", "")
            return response.content

        return self._run(obj, send)

    def user_id(self) -> str | None:
        """The user whom we act as, in 15 characters; None where the org does not say. No API call: the sign-in told it, or the
        OpenID address of the org does."""
        if self._user is None:
            known = self.tokens.user_id
            if known is None:
                known = self.policy.run(self._userinfo)
            self._user = known[:15]
        return self._user or None

    def _userinfo(self) -> str:
        token = self.tokens.token()
        answer = self._wire(SIGN_IN, lambda: self.session.get(f"{self.settings.instance_url}/services/oauth2/userinfo", headers=self._headers(token)))
        if answer.status_code in STATUS_TRANSIENT:
            raise self._transient(SIGN_IN, answer.status_code, answer)
        try:
            return str(orjson.loads(answer.content)["user_id"]) if answer.ok else ""
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""

    @property
    def data(self) -> str:
        """The path below which the API lives."""
        return f"/services/data/v{self.version}.0"

    # What every call goes through

    def _run(self, obj: str, send: Callable[[Token], T]) -> T:
        """One call with retries: budget, token, refusals in our terms."""
        from simple_salesforce.exceptions import SalesforceError

        if self._sf is None:
            self.connect()

        def attempt() -> T:
            refusals = 0
            while True:
                self._sent.number = None  # what a sign-in answers is no answer to a call
                token = self.tokens.token()
                self._sent.number = self.budget.spend(obj)
                try:
                    result = self._wire(obj, partial(send, token))
                except SalesforceError as error:
                    refused = refusal(error.status, error.content)
                except Refused as error:
                    refused = error
                else:
                    self.tokens.proven()
                    return result
                if refused.status != 401:
                    raise self._judge(obj, refused)
                self._sent.number = None
                refusals += 1
                self.tokens.refresh(token, obj, refusals)  # gives up with CrmAuthError when fresh tokens are refused too

        return self.policy.run(attempt)

    def _wire(self, obj: str, send: Callable[[], T]) -> T:
        """Send one request; trouble of the network becomes Transient."""
        try:
            result = send()
        except requests.JSONDecodeError:
            raise self.not_json(obj) from None
        except (requests.RequestException, HTTPError) as error:  # not OSError: a full disk is not the network
            trouble = network_trouble(error, self.settings.instance_url)
            self.unsure += trouble.sent
            failed = CrmUnavailableError(trouble.what, source=self.settings.name, obj=obj, fix=trouble.fix, code=trouble.kind)
            raise Transient(failed, hopeless=not trouble.sent and not self._answered) from None
        return result

    def _refuse(self, response: requests.Response) -> None:
        if response.status_code >= 300:
            try:
                content = orjson.loads(response.content)
            except orjson.JSONDecodeError:
                content = ""
            raise refusal(response.status_code, content)

    def _judge(self, obj: str, refused: Refused) -> Exception:
        """What a refusal means, whatever was asked. Codes: SOAP API Developer Guide, "ExceptionCode"."""
        name, answer = self.settings.name, self.session.last
        status, code = refused.status, refused.code
        if code == "REQUEST_LIMIT_EXCEEDED" and "concurrent" not in refused.message.lower():
            self.budget.observe(self.budget.daily_limit, None)
            return CrmQuotaError(
                "Salesforce's API calls of the day are used up",
                source=name,
                obj=obj,
                code=code,
                fix="Run again when the limit has moved on (it counts the last 24 hours), or ask the admin who else is calling.",
            )
        if code in ("API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED"):
            return CrmPermissionError(
                "the API is not open to this user or org",
                source=name,
                obj=obj,
                code=code,
                fix='Give the user the permission "API Enabled"; the org needs an edition with API access.',
            )
        if code == "REQUEST_LIMIT_EXCEEDED" or status in STATUS_TRANSIENT:
            return self._transient(obj, status, answer, code)
        if not code and status in STATUS_ABSENT:
            return Refused(status, f"HTTP_{status}", "")
        if status >= 500:
            return CrmUnavailableError(f"Salesforce answers {status}", source=name, obj=obj, code=code, fix="Run again later.")
        if 300 <= status < 400:
            to = urlsplit(answer.headers.get("Location", "") if answer is not None else "").hostname
            return CrmProtocolError(
                f"the server answers {status} and points to {to or 'another address'}",
                source=name,
                obj=obj,
                fix="Check instance_url: it must be the org's present My Domain address.",
            )
        if not code:
            return self.not_json(obj)
        return refused

    def _transient(self, obj: str, status: int, answer: requests.Response | None, code: str = "") -> Transient:
        self.unsure += status >= 500
        said = f"Salesforce answers {status}" + (f" {code}" if code else "") + " each time"
        failed = CrmUnavailableError(
            said,
            source=self.settings.name,
            obj=obj,
            code=code or str(status),
            fix="Run again later; see status.salesforce.com.",
        )
        return Transient(failed, after=retry_after(answer.headers) if answer is not None else None)

    def not_json(self, obj: str) -> CrmProtocolError:
        answer = self.session.last
        kind = (answer.headers.get("Content-Type", "") if answer is not None else "").split(";")[0] or "something"
        status = answer.status_code if answer is not None else 0
        return CrmProtocolError(
            f"{urlsplit(self.settings.instance_url).netloc} answers {status} with {kind} where Salesforce answers JSON",
            source=self.settings.name,
            obj=obj,
            fix="Check instance_url: it must be the org's My Domain address, and no proxy may stand in for it.",
        )

    def _headers(self, token: Token, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {"Authorization": token.bearer, "X-PrettyPrint": "0", "Content-Type": "application/json", **(more or {})}

    def _seen(self, response: requests.Response) -> None:
        """Called with the head of every answer."""
        self._answered = True
        now = server_time(response.headers)
        if now is not None and (self.server_time is None or now > self.server_time):
            self.server_time = now
        usage = response.headers.get("Sforce-Limit-Info")
        if usage:
            from simple_salesforce import Salesforce

            told = Salesforce.parse_api_usage(usage).get("api-usage")
            if told is not None:
                self.budget.observe(told.used, told.total, getattr(self._sent, "number", None))

    # Errors for the user

    def permission(self, obj: str, code: str) -> CrmPermissionError:
        return CrmPermissionError(
            f"the user may not read {obj}, or the org does not have it ({code})",
            source=self.settings.name,
            obj=obj,
            code=code,
            fix=f'Give the user a permission set with read access ("View All") to {obj} and its fields.',
        )

    def protocol(self, obj: str, refused: Refused) -> CrmProtocolError:
        return CrmProtocolError(
            f"Salesforce refuses the request: {refused.status} {refused.code} {self.scrub(refused.message)}".rstrip(),
            source=self.settings.name,
            obj=obj,
            code=refused.code,
            fix="This should not happen; please report it with this line.",
        )

    def scrub(self, text: str) -> str:
        """The last line of a message of Salesforce's: the lines before it repeat the query."""
        lines = [line for line in text.strip().splitlines() if line.strip()]
        return scrub(lines[-1] if lines else "", *self.tokens.secrets(), limit=160)


def refusal(status: int, content: Any) -> Refused:
    """The first error of a body: `[{errorCode, message}]`, as REST and Bulk 2.0 both answer."""
    first = content[0] if isinstance(content, list) and content else content
    if not isinstance(first, dict):
        return Refused(status, "", "")
    return Refused(status, str(first.get("errorCode") or first.get("error") or ""), str(first.get("message") or ""))


def soql_time(instant: datetime) -> str:
    """An instant as SOQL writes it. SOQL compares whole seconds, so it is cut, never rounded up."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
