"""Failures that a simulated CRM can be told to show, each as the real one shows it to a client."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, get_args

Kind = Literal["status", "drop", "truncate", "slow", "daily_limit", "late_commit", "expire_tokens", "job_failed"]
KINDS: tuple[str, ...] = get_args(Kind)
DETAILS: dict[str, set[str]] = {
    "status": {"status", "headers", "body"},
    "drop": {"applied"},
    "truncate": set(),
    "slow": {"seconds"},
    "daily_limit": set(),
    "late_commit": {"seconds"},
    "expire_tokens": set(),
    "job_failed": {"message"},
}
AT_WORK = {"late_commit", "job_failed"}  # kinds that strike while the work is done, not when its request comes
REQUIRED: dict[str, set[str]] = {"status": {"status"}, "slow": {"seconds"}, "late_commit": {"seconds"}}


@dataclass
class Fault:
    """One armed failure. `times` None: until cleared. `after`: matching requests that still pass before it strikes."""

    kind: str
    times: int | None = 1
    after: int = 0
    path: str | None = None
    method: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def matches(self, method: str, path: str) -> bool:
        if self.method is not None and self.method.upper() != method.upper():
            return False
        return self.path is None or re.search(self.path, path) is not None


class Faults:
    """The armed failures of one server, in the order in which they were armed. Thread-safe.

    Kinds and their details:

    - `status`: answer with `status=` (and `headers=`); without `body=` the CRM's own error body for that status.
    - `drop`: close the connection with no answer; `applied=True` does the request's work first, as when an answer is lost.
    - `truncate`: do the work, send headers with the full Content-Length and half of the body, then close.
    - `slow`: answer after `seconds=` of real time.
    - `daily_limit`: every call answers the CRM's daily-limit error until cleared.
    - `late_commit`: the next `times` writes are stamped now and become visible `seconds=` later by the simulator's clock.
    - `expire_tokens`: every token issued so far is invalid from now on (see `token_generation`); with `after`, `path` or `method`
      from the request on that it then meets.
    - `job_failed`: the next `times` Salesforce Bulk jobs end as Failed, with `message=` as what the platform says of it. `path` is
      searched in "jobs/query <operation> <SOQL>" or "jobs/ingest <operation> <object>".
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._armed: list[Fault] = []
        self.token_generation = 0
        """Rises when tokens expire. A server notes it with each token it issues and accepts only those of the present one."""

    def arm(
        self,
        kind: str,
        *,
        times: int | None = 1,
        after: int = 0,
        path: str | None = None,
        method: str | None = None,
        **detail: Any,
    ) -> Fault:
        """Arm a failure. `path` is a regular expression searched in the decoded path with its query string.

        Raises ValueError when the kind or a detail is unknown or missing, or the path is no regular expression.
        """
        if kind not in KINDS:
            raise ValueError(f"Unknown kind of fault: {kind!r}. Known are {', '.join(KINDS)}")
        if unknown := detail.keys() - DETAILS[kind]:
            raise ValueError(f"A {kind} fault takes no {', '.join(sorted(unknown))}")
        if missing := REQUIRED.get(kind, set()) - detail.keys():
            raise ValueError(f"A {kind} fault needs {', '.join(sorted(missing))}")
        try:
            re.compile(path or "")
        except re.error as error:
            raise ValueError(f"A fault's path is a regular expression, and {path!r} is none: {error}") from error
        fault = Fault(kind, None if kind == "daily_limit" else times, after, path, method, detail)
        with self._lock:
            if kind == "expire_tokens" and not (after or path or method):
                self.token_generation += 1
            else:
                self._armed.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm everything. Tokens that were expired stay so: a client gets new ones by asking."""
        with self._lock:
            self._armed.clear()

    def armed(self) -> list[Fault]:
        with self._lock:
            return list(self._armed)

    def next(self, method: str, path: str) -> Fault | None:
        """The failure that this request meets, counted as used; None lets it pass. Called once per request."""
        while (fault := self._take(method, path, lambda kind: kind not in AT_WORK)) and fault.kind == "expire_tokens":
            with self._lock:
                self.token_generation += 1  # the request itself goes on, and is refused for its token
        return fault

    def late_commit(self, method: str = "", path: str = "") -> float | None:
        """Seconds for which the write now being done stays invisible to readers, or None. Called once per write."""
        fault = self._take(method, path, lambda kind: kind == "late_commit")
        return None if fault is None else float(fault.detail["seconds"])

    def job_failed(self, method: str, path: str) -> Fault | None:
        """The failure that a Bulk job which now starts will end with, or None. Called once per job."""
        return self._take(method, path, lambda kind: kind == "job_failed")

    def _take(self, method: str, path: str, wanted: Callable[[str], bool]) -> Fault | None:
        with self._lock:
            for fault in self._armed:
                if not wanted(fault.kind) or not fault.matches(method, path):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._armed.remove(fault)
                return fault
        return None
