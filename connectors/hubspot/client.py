"""One held connection to a HubSpot portal: hubspot-api-client carries the requests, everything about failing is decided here.

The library's typed methods cost some forty times the CPU of the bytes they wrap, build a connection pool on each access and know
no dated paths; its `ApiClient.call_api` gives the pool, TLS, authorisation and error classes without that, for any path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson
import urllib3
from hubspot.crm.deals import ApiClient, ApiException, Configuration  # any of its packages would do: the client is the same in all

from connectors.errors import CrmPermissionError, CrmProtocolError, CrmQuotaError, CrmUnavailableError
from connectors.http import TIMEOUT, RetryPolicy, Transient, network_trouble, retry_after, scrub, server_time
from connectors.hubspot.objects import Paths
from connectors.hubspot.pace import Window
from connectors.hubspot.settings import HubSpotSettings
from connectors.hubspot.tokens import FixedToken, OAuthToken, Tokens, refused
from connectors.limits import Budget

T = TypeVar("T")
R = TypeVar("R")

THREADS = 4  # batch reads under way at once; the windows below decide how many there are in a second
PER_10S = 100  # Free and Starter portals; paid ones allow 190 and say so in X-HubSpot-RateLimit-Max
MARGIN = 0.9  # of what the portal says it allows: other integrations of the same app share it
SEARCHES_PER_SECOND = 4  # HubSpot allows 5 per account
POLICY = RetryPolicy(tries=8, base=0.5, cap=20.0)
RETRIED = frozenset({408, 423, 429, 477, *range(500, 600)})  # 423: locked for seconds; 477: the portal moves to another host
WINDOW_WAIT = {"SECONDLY": 1.0, "TEN_SECONDLY_ROLLING": 2.5}  # seconds, where no Retry-After says it; the window frees bit by bit


class Refusal(Exception):
    """A 400, 404 or 409 with HubSpot's own error body: the request was understood and refused."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.status, self.body = status, body

    @property
    def category(self) -> str:
        return str(self.body.get("category") or self.status)


class Client:
    """A portal's API. Thread-safe; close it, or use it as a context manager.

    object: the object that calls are counted for (`budget.calls`) and that errors name; set it before each object.
    Raises CrmAuthError, CrmPermissionError (with the scopes that are missing), CrmQuotaError (the day's limit or our share of it),
    CrmUnavailableError (after all retries) and CrmProtocolError. No message holds a secret or a record.
    """

    def __init__(self, settings: HubSpotSettings, policy: RetryPolicy | None = None, budget: Budget | None = None) -> None:
        policy = policy or POLICY
        self.settings, self.source, self.policy = settings, settings.name, policy
        self.paths = Paths(settings.api_version)
        self.budget = budget or Budget(settings.name, settings.quota_share)
        self.object = "account"
        self.clock: datetime | None = None
        """The server's time of the last answer."""
        self._adaptive = settings.requests_per_10s is None
        self._calls = Window(settings.requests_per_10s or PER_10S, 10.0, sleep=policy.sleep)
        self._searches = Window(SEARCHES_PER_SECOND, 1.0, sleep=policy.sleep)
        self._api = _api_client(settings.base_url)
        self._answered = False
        self._tokens = self._token_source()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._api.rest_client.pool_manager.clear()

    # Requests -------------------------------------------------------------------------------------------------------------

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that a GET answers. Lists in `query` are sent as repeated names."""
        return self._json("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any], *, search: bool = False) -> dict[str, Any]:
        """The JSON object that a POST answers. Only for what may be sent twice: searches, batch reads, updates and upserts are
        retried like reads. Raises Refusal on 400, 404 and 409."""
        return self._json("POST", path, body=body, search=search)

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """work(item) of each item, in order, a few at once. `items` is read no further ahead than needed."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="hubspot") as pool:
            running: list[Future[R]] = []
            try:
                for item in items:
                    running.append(pool.submit(work, item))
                    if len(running) > THREADS:
                        yield running.pop(0).result()
                while running:
                    yield running.pop(0).result()
            finally:
                for future in running:
                    future.cancel()

    def _json(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None, search: bool = False,
    ) -> dict[str, Any]:
        if query:
            path = f"{path}?{encode(query)}"
        return self.policy.run(lambda: self._attempt(method, path, body, form, search))

    def _attempt(
        self, method: str, path: str, body: Mapping[str, Any] | None, form: Mapping[str, str] | None, search: bool
    ) -> dict[str, Any]:
        for last in (False, True):
            token = None if form else self._tokens.get()
            sent = self.budget.spend(self.object)
            (self._searches if search else self._calls).wait()
            status, headers, content = self._send(method, path, token, body, form)
            self._observe(headers, sent)
            if 200 <= status < 300:
                self._answered = True
                return self._parsed(content)
            if status != 401 or token is None or last:
                break
            if self._tokens.renewable:
                self._tokens.renew(token)
            elif self._answered:  # a token that worked a moment ago is asked once more: HubSpot refuses good ones now and then
                self.policy.sleep(1.0)
            else:
                break
        self._raise(status, headers, content, search)

    def _send(
        self, method: str, path: str, token: str | None, body: Mapping[str, Any] | None, form: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        auth = {"in": "header", "key": "Authorization", "value": f"Bearer {token}"} if token else None
        try:
            try:
                answer = self._api.call_api(
                    path, method, header_params=headers, body=body, post_params=form, response_types_map={}, _host=self.settings.base_url,
                    auth_settings=["oauth2"] if auth else None, _request_auth=auth, _preload_content=False, _request_timeout=TIMEOUT,
                )
                return answer.status, answer.headers, answer.read()
            except UnicodeDecodeError as error:  # the library decodes error bodies as UTF-8, whatever they are
                if isinstance(error.__context__, ApiException):
                    raise error.__context__ from None
                raise
        except ApiException as error:
            if not error.status:  # status 0 is how the library reports failed TLS
                self._unreachable(urllib3.exceptions.SSLError())
            content = error.body.encode() if isinstance(error.body, str) else error.body or b""
            return error.status, error.headers or {}, content
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._unreachable(error)

    def _unreachable(self, error: Exception) -> NoReturn:
        trouble = network_trouble(error, self.settings.base_url)
        failure = CrmUnavailableError(trouble.what, source=self.source, obj=self.object, fix=trouble.fix, code=trouble.kind)
        raise Transient(failure, hopeless=not trouble.sent and not self._answered) from None

    def _parsed(self, content: bytes) -> dict[str, Any]:
        try:
            document = orjson.loads(content) if content else {}
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise CrmProtocolError(
                "the answer is not HubSpot's JSON", source=self.source, obj=self.object, code="NOT_JSON",
                fix=f"Check base_url ({urlsplit(self.settings.base_url).netloc}): a proxy or a web page may stand where the API should be.",
            )
        return document

    # What the answers say -------------------------------------------------------------------------------------------------

    def _observe(self, headers: Mapping[str, str], sent: int) -> None:
        self.clock = server_time(headers) or self.clock
        limit, remaining, allowed, interval = (
            _number(headers.get(f"X-HubSpot-RateLimit-{name}")) for name in ("Daily", "Daily-Remaining", "Max", "Interval-Milliseconds")
        )
        self.budget.observe(limit - remaining if limit is not None and remaining is not None else None, limit, sent)
        if self._adaptive and allowed and interval:
            self._calls.allow(int(allowed * MARGIN), interval / 1000)

    def _raise(self, status: int, headers: Mapping[str, str], content: bytes, search: bool) -> NoReturn:
        """Turn an error answer into the exception that it means."""
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict):
            body = {}
        policy = str(body.get("policyName") or "").upper()
        if status == 401:
            raise refused(self.source, oauth=self._tokens.renewable)
        if status == 429 and (policy == "DAILY" or "daily limit" in str(body.get("message")).lower()):
            raise CrmQuotaError(
                "the portal's API calls of the day are used up", source=self.source, obj=self.object, code="DAILY",
                fix="The count starts anew at midnight in the portal's time zone; run again then.",
            )
        if status in RETRIED:
            after = retry_after(headers)
            if status == 429:
                after = WINDOW_WAIT.get(policy) if after is None else after
                (self._searches if search else self._calls).close(min(after or 1.0, self.policy.longest))
                what = f"HubSpot's rate limit {policy or 'of calls'} stays used up"
                fix = "Other integrations may be using it: run again later, or lower requests_per_10s for this source."
            else:
                what, fix = f"HubSpot fails with status {status}", "Run again later; https://status.hubspot.com tells of outages."
            raise Transient(CrmUnavailableError(what, source=self.source, obj=self.object, fix=fix, code=str(status)), after=after)
        if status == 403:
            scopes = _scopes(body)
            named = f"the scope {' or '.join(scopes)}" if scopes else f"a permission to read or write {self.object}"
            raise CrmPermissionError(
                f"the token lacks {named}", source=self.source, obj=self.object, code=str(body.get("category") or 403),
                fix="Add it to the service key (Settings > Integrations > Service Keys) or to the app, then run again.",
            )
        if status in (400, 404, 409) and ("category" in body or "status" in body):
            raise Refusal(status, body)
        raise CrmProtocolError(
            f"HubSpot answered with status {status}", source=self.source, obj=self.object, code=str(status),
            fix="Check base_url and api_version of this source." if status == 404 else "Run with -v and report it if it stays.",
        )

    def protocol_error(self, refusal: Refusal) -> CrmProtocolError:
        """A refusal where none was to be expected, for the user to read."""
        message = scrub(refusal.body.get("message") or "", *self.settings.secrets, limit=200)
        said = " ".join(dict.fromkeys((str(refusal.status), refusal.category)))
        return CrmProtocolError(
            f"HubSpot refused a request ({said}): {message or 'no reason given'}", source=self.source, obj=self.object,
            code=refusal.category, fix="Check api_version of this source; report it if it stays.",
        )

    # Tokens ---------------------------------------------------------------------------------------------------------------

    def _token_source(self) -> Tokens:
        settings = self.settings
        if settings.access_token is not None:
            return FixedToken(settings.access_token.get_secret_value().strip())
        assert settings.refresh_token is not None  # noqa: S101 - the settings saw to it
        return OAuthToken(self.source, settings.refresh_token.get_secret_value(), self._fetch_token)

    def _fetch_token(self, refresh_token: str) -> dict[str, Any]:
        settings = self.settings
        secret = settings.client_secret.get_secret_value() if settings.client_secret else ""
        app = {"client_id": settings.client_id or "", "client_secret": secret}
        form = {"grant_type": "refresh_token", **app, "refresh_token": refresh_token}
        policy = replace(self.policy, tries=min(4, self.policy.tries))
        try:
            return policy.run(lambda: self._attempt("POST", self.paths.token, None, form, False))
        except (Refusal, CrmPermissionError):
            raise refused(self.source, oauth=True) from None


def _api_client(base_url: str) -> ApiClient:
    configuration = Configuration()
    configuration.retries = urllib3.Retry(total=False, redirect=False)  # retried above, where Retry-After and policies are known
    configuration.connection_pool_maxsize = THREADS + 1
    parts = urlsplit(base_url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.netloc):
        given = urlsplit(proxy)
        configuration.proxy = proxy
        if given.username:
            configuration.proxy_headers = urllib3.make_headers(proxy_basic_auth=f"{given.username}:{given.password or ''}")
    client = ApiClient(configuration)
    client.user_agent = "plumbline"
    return client


def encode(query: Mapping[str, Any]) -> str:
    """A query string; lists are repeated names, as HubSpot's own clients send them."""
    return urlencode({key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}, doseq=True)


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdigit() else None


def _scopes(body: Mapping[str, Any]) -> list[str]:
    """The scopes that HubSpot says a call needs; any one of them is enough."""
    found: list[str] = []
    for error in [body, *(body.get("errors") or [])]:
        context = error.get("context") if isinstance(error, dict) else None
        for key in ("requiredGranularScopes", "requiredScopes", "missingScopes"):
            names = context.get(key) if isinstance(context, dict) else None
            found += [str(name) for name in names or [] if str(name) not in found]
    return found
