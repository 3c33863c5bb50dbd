"""HubSpot's rate limits: a rolling ten seconds for most calls, five searches a second, and the day's calls."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from zoneinfo import ZoneInfo

from connectors.simulator.hubspot.errors import rate_limited

INTERVAL = 10.0


@dataclass
class RateLimits:
    """The limits of one portal, those of a Professional account by default; None lifts a limit.

    per_ten_seconds and search_per_second are counted in real time, daily from midnight to midnight in the portal's time
    zone by the simulator's clock. Search calls count for the day and against their own limit, and carry no headers.
    """

    per_ten_seconds: int | None = 190
    search_per_second: int | None = 5
    daily: int | None = 650_000
    used_today: int = 0
    _day: str = ""
    _calls: deque[float] = field(default_factory=deque)
    _searches: deque[float] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def lift(self) -> None:
        """No limits at all: for bulk tests, where waiting tells nothing."""
        self.per_ten_seconds = self.search_per_second = self.daily = None

    def take(self, now: datetime, timezone: str, *, search: bool) -> dict[str, str]:
        """Count one call and give the headers that HubSpot adds to its answer; raises the 429 when a limit is reached."""
        with self._lock:
            today = now.astimezone(ZoneInfo(timezone)).date().isoformat()
            if today != self._day:
                self._day, self.used_today = today, 0
            if self.daily is not None and self.used_today >= self.daily:
                raise rate_limited("DAILY")
            if search:
                if not _fits(self._searches, 1.0, self.search_per_second):
                    raise rate_limited("SECONDLY")
                self.used_today += 1
                return {}
            if not _fits(self._calls, INTERVAL, self.per_ten_seconds):
                raise rate_limited("TEN_SECONDLY_ROLLING")
            self.used_today += 1
            headers = {}
            if self.per_ten_seconds is not None:
                headers = {
                    "X-HubSpot-RateLimit-Interval-Milliseconds": str(int(INTERVAL * 1000)),
                    "X-HubSpot-RateLimit-Max": str(self.per_ten_seconds),
                    "X-HubSpot-RateLimit-Remaining": str(self.per_ten_seconds - len(self._calls)),
                }
            if self.daily is not None:
                headers["X-HubSpot-RateLimit-Daily"] = str(self.daily)
                headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(self.daily - self.used_today)
            return headers


def _fits(calls: deque[float], window: float, limit: int | None) -> bool:
    """Whether one more call fits into the last `window` seconds; counts it if so."""
    instant = time.monotonic()
    while calls and calls[0] <= instant - window:
        calls.popleft()
    if limit is not None and len(calls) >= limit:
        return False
    calls.append(instant)
    return True
