"""API calls are a budget that the CRM's owner shares with others: counted per object, stopped before our share is used up."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from connectors.errors import CrmQuotaError

KEPT = "what was read is kept, the next {run} goes on from there"


class Budget:
    """Calls of one run to one source, against the CRM's day. Shared by all that the run does there. Safe under threads.

    spend() is called before each request and raises CrmQuotaError instead of letting the run go over `share` of the daily
    limit, or over the limit itself. observe() takes what the CRM says of its day; until it said anything, nothing is refused.

    `daily_used` is never less than what the CRM has counted, as far as it can be known: answers may overtake one another, and an
    answer cannot count the calls that left after its own. So an answer stands for its count and every call sent since; it may
    lower the number (the CRM's day moves on) only when it was asked for after the present number was known.
    """

    def __init__(self, source: str, share: float) -> None:
        self.source, self.share = source, share
        self.calls: Counter[str] = Counter()
        self.daily_used: int | None = None
        self.daily_limit: int | None = None
        self._known_at = 0  # calls sent when daily_used was last taken from an answer
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        return self.calls.total()

    def usage(self) -> dict[str, Any]:
        """What was used, for the record: calls, calls_by_object, daily_used, daily_limit."""
        with self._lock:
            by_object = {obj: calls for obj, calls in sorted(self.calls.items()) if calls}
            return {
                "calls": self.calls.total(), "calls_by_object": by_object, "daily_used": self.daily_used, "daily_limit": self.daily_limit,
            }

    @property
    def remaining(self) -> int | None:
        """Calls that this run may still make; None while the CRM has not told its limit."""
        with self._lock:
            return self._remaining()

    def _remaining(self) -> int | None:
        if self.daily_limit is None:
            return None
        ours = int(self.daily_limit * self.share + 1e-6) - self.calls.total()  # 0.29 of 100 are 29
        theirs = self.daily_limit - (self.daily_used or 0)
        return max(0, min(ours, theirs))

    def spend(self, obj: str) -> int:
        """Count a call for `obj` before it is sent. Returns its number, which observe() wants with the answer."""
        with self._lock:
            if self._remaining() == 0:
                self._refuse(obj)
            self.calls[obj] += 1
            if self.daily_used is not None:
                self.daily_used += 1  # ours is counted at once; observe() corrects it by the CRM's own count
            return self.calls.total()

    def observe(self, used: int | None, limit: int | None, sent: int | None = None) -> None:
        """What an answer says of the day: calls used and allowed, each None when it says nothing. sent: number of the call that it
        answers; None when it was no call of ours, so that it may only raise the count."""
        with self._lock:
            if used is not None:
                total = self.calls.total()
                if sent is not None:
                    used += total - sent
                if self.daily_used is None or used > self.daily_used or (sent is not None and sent > self._known_at):
                    self.daily_used, self._known_at = used, total
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
