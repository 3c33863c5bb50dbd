"""What every CRM client needs of HTTP: the server's clock, retries, plain words for network trouble, scrubbing."""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import tenacity

T = TypeVar("T")

TIMEOUT = (10.0, 120.0)  # seconds to connect, seconds between two bytes


# The server's clock ---------------------------------------------------------------------------------------------------


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """The instant of the answer by the server's own clock (Date header, RFC 9110 6.6.1), or None."""
    value = headers.get("Date") or headers.get("date")
    if not value:
        return None
    try:
        instant = parsedate_to_datetime(value)
    except ValueError:
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait (Retry-After as seconds or as a date), or None."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    now = server_time(headers)
    return max(0.0, (until.astimezone(UTC) - now).total_seconds()) if now else None


# Retries --------------------------------------------------------------------------------------------------------------


class Transient(Exception):
    """One attempt failed in a way in which the next may not.

    `error` is what to raise when no try is left: an error written for the user. `after`: seconds the server asked for.
    `hopeless`: a cause that time rarely heals (unknown host, refused connection before anything was ever answered): given up
    after two tries, so that a typing error in an address is told at once.
    """

    def __init__(self, error: Exception, *, after: float | None = None, hopeless: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.after, self.hopeless = error, after, hopeless


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter: try n waits between half and all of base * 2^(n-1) seconds, at most `cap`;
    a server's Retry-After is respected up to `longest`."""

    tries: int = 6
    base: float = 0.5
    cap: float = 30.0
    longest: float = 120.0
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, asked: float | None) -> float:
        most = min(self.cap, self.base * 2 ** (attempt - 1))
        jittered = random.uniform(most / 2, most)  # noqa: S311 - spreads clients, protects nothing
        return max(jittered, min(asked, self.longest)) if asked else jittered

    def run(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it returns. Only Transient is tried again; its `error` is raised when the tries are used up."""

        def failure(state: tenacity.RetryCallState) -> Transient | None:
            error = state.outcome.exception() if state.outcome else None
            return error if isinstance(error, Transient) else None

        def pause(state: tenacity.RetryCallState) -> float:
            error = failure(state)
            return self.wait(state.attempt_number, error.after if error else None)

        def enough(state: tenacity.RetryCallState) -> bool:
            error = failure(state)
            if error and (error.after or 0) > self.longest:
                return True
            return state.attempt_number >= (2 if error and error.hopeless else self.tries)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Transient), stop=enough, wait=pause, sleep=self.sleep, reraise=True
        )
        try:
            return retrying(attempt)
        except Transient as last:
            raise last.error from last.__cause__


# Trouble in plain words -----------------------------------------------------------------------------------------------

Kind = Literal["unknown_host", "refused", "timeout", "tls", "broken"]


@dataclass(frozen=True)
class Trouble:
    """What went wrong on the wire: `what` for the message, `fix` for what to do, `sent`: False when the request certainly
    never reached the server, so that even a request that must not happen twice may be tried again."""

    kind: Kind
    what: str
    fix: str
    sent: bool


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it wraps and what it came from: requests and urllib3 hide the cause in args, reason or context."""
    seen: set[int] = set()
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        queue += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]


def network_trouble(error: BaseException, address: str) -> Trouble:
    """Say what a network exception of requests or urllib3 means. Nothing of its text is used: it holds whole URLs."""
    host = urlsplit(address).netloc or address
    names = {type(e).__name__ for e in _chain(error)}
    causes = list(_chain(error))
    if any(isinstance(e, socket.gaierror) for e in causes) or "NameResolutionError" in names:
        return Trouble("unknown_host", f"the host {host} is not known", "Check the address in the configuration, and DNS.", False)
    if any(isinstance(e, ssl.SSLError) for e in causes) or "SSLError" in names:
        return Trouble(
            "tls", f"no secure connection to {host} could be made",
            "Check the address, a proxy on the way and this machine's CA certificates.", False,
        )
    if any(isinstance(e, ConnectionRefusedError) for e in causes):
        return Trouble(
            "refused", f"{host} refuses the connection",
            "Check the address and port in the configuration, and that the server runs.", False,
        )
    if names & {"ConnectTimeoutError", "ConnectTimeout"}:
        return Trouble("timeout", f"{host} does not answer", "Check the address, firewall and proxy, then run again.", False)
    if names & {"ReadTimeoutError", "ReadTimeout", "TimeoutError"}:
        return Trouble("timeout", f"{host} stopped answering", "Run again later; nothing that was landed is lost.", True)
    if "NewConnectionError" in names:
        return Trouble("refused", f"{host} cannot be reached", "Check the address, firewall and proxy, then run again.", False)
    return Trouble("broken", f"the connection to {host} broke", "Run again later; nothing that was landed is lost.", True)


# Scrubbing ------------------------------------------------------------------------------------------------------------

_SECRETS = re.compile(
    r"""(?ix)
    (\bBearer \s+ | \bBasic \s+ | \bOAuth \s+) [^\s"',;]+
    | (\b(?:access_token|refresh_token|client_secret|assertion|password|sid|session_id|id_token|hapikey|signature)
       ["']? \s* [=:] \s* ["']?) [^\s"'&,;}]+
    """
)
_QUERY = re.compile(r"\?[^\s\"')]*")
_SESSION = re.compile(r"\b00D[A-Za-z0-9]{12,15}![A-Za-z0-9._]+")  # a Salesforce session id begins with the org's id


def scrub(text: object, *secrets: str | None, limit: int = 300) -> str:
    """`text` on one line, shortened, without the given secrets, tokens in their usual places, or the query parts of URLs."""
    words = str(text)
    for secret in sorted((s for s in secrets if s and len(s) >= 4), key=len, reverse=True):
        words = words.replace(secret, "***")
    words = _SESSION.sub("***", words)
    words = _SECRETS.sub(lambda m: f"{m[1] or m[2] or ''}***", words)
    words = " ".join(_QUERY.sub("?…", words).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
