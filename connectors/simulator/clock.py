"""The simulators' clock: every stamp, Date header and late commit in a simulated CRM is told by it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from threading import Lock


class SimClock:
    """A clock that starts where it is told and then runs at wall speed.

    `now`: aware instant to start at; None starts at the wall clock. It may be set, moved on, frozen and let run again;
    it is safe to share between threads.
    """

    def __init__(self, now: datetime | None = None) -> None:
        self._lock = Lock()
        self._frozen = False
        self._base = _utc(now) if now is not None else datetime.now(UTC)
        self._started = time.monotonic()

    def now(self) -> datetime:
        """The present instant in UTC, cut to milliseconds: the finest that both CRMs store."""
        with self._lock:
            instant = self._now()
        return instant.replace(microsecond=instant.microsecond // 1000 * 1000)

    def set(self, instant: datetime) -> None:
        """Jump to an aware instant, forwards or backwards."""
        with self._lock:
            self._base, self._started = _utc(instant), time.monotonic()

    def advance(self, by: timedelta) -> None:
        with self._lock:
            self._base, self._started = self._now() + by, time.monotonic()

    def freeze(self) -> None:
        """Stand still until `run()`; `set` and `advance` still move it."""
        with self._lock:
            self._base, self._frozen = self._now(), True

    def run(self) -> None:
        with self._lock:
            if self._frozen:
                self._started, self._frozen = time.monotonic(), False

    @property
    def frozen(self) -> bool:
        return self._frozen

    def _now(self) -> datetime:
        return self._base if self._frozen else self._base + timedelta(seconds=time.monotonic() - self._started)


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"The simulator's clock needs an instant with a time zone, not {instant.isoformat()}")
    return instant.astimezone(UTC)
