"""API calls are a budget that the CRM's owner shares with others: counted per object, stopped before our share is used up."""

from __future__ import annotations

import threading
from collections import Counter

from connectors.errors import CrmQuotaError


class Budget:
    """Calls of one run against the CRM's day. Safe under threads.

    spend() is called before each request and raises CrmQuotaError instead of letting the run go over `share` of the daily
    limit, or over the limit itself. observe() takes what the CRM says of its day; until it said anything, nothing is refused.
    """

    def __init__(self, source: str, share: float) -> None:
        self.source, self.share = source, share
        self.calls: Counter[str] = Counter()
        self.daily_used: int | None = None
        self.daily_limit: int | None = None
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return self.calls.total()

    @property
    def remaining(self) -> int | None:
        """Calls that this run may still make; None while the CRM has not told its limit."""
        with self._lock:
            return self._remaining()

    def _remaining(self) -> int | None:
        if self.daily_limit is None:
            return None
        ours = int(self.daily_limit * self.share) - self.calls.total()
        theirs = self.daily_limit - (self.daily_used or 0)
        return max(0, min(ours, theirs))

    def spend(self, obj: str) -> None:
        with self._lock:
            if self._remaining() == 0:
                self._refuse(obj)
            self.calls[obj] += 1
            if self.daily_used is not None:
                self.daily_used += 1  # ours is counted at once; observe() corrects it by the CRM's own count

    def observe(self, used: int | None, limit: int | None) -> None:
        with self._lock:
            if used is not None:
                self.daily_used = used
            if limit is not None and limit > 0:
                self.daily_limit = limit

    def _refuse(self, obj: str) -> None:
        used, limit, calls = self.daily_used or 0, self.daily_limit or 0, self.calls.total()
        if used >= limit:
            raise CrmQuotaError(
                f"all {limit} API calls of the day are used", source=self.source, obj=obj, code="DAILY_LIMIT",
                fix="Run again tomorrow, or ask the CRM's admin who else is calling.",
            )
        raise CrmQuotaError(
            f"stopped after {calls} API calls: quota_share = {self.share:g} of the day's {limit} is used up in this run",
            source=self.source, obj=obj, code="QUOTA_SHARE",
            fix="Raise quota_share for this source, or run again tomorrow.",
        )
