"""HubSpot counts calls over rolling windows: so many in ten seconds for all of them, so many in one second for search."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class Window:
    """At most `calls` in any `seconds`. Threads share it: each call reserves its instant under the lock and sleeps outside it."""

    def __init__(self, calls: int, seconds: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.calls, self.seconds, self._sleep = calls, seconds, sleep
        self._granted: deque[float] = deque()
        self._closed_until = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next call may be made."""
        with self._lock:
            now = time.monotonic()
            instant = max(now, self._closed_until)
            if len(self._granted) >= self.calls:
                instant = max(instant, self._granted[-self.calls] + self.seconds)
            self._granted.append(instant)
            while len(self._granted) > self.calls:
                self._granted.popleft()
        if instant > now:
            self._sleep(instant - now)

    def close(self, seconds: float) -> None:
        """The server refused a call: nobody asks again for so long."""
        with self._lock:
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    def allow(self, calls: int, seconds: float) -> None:
        """Take over what the server says it allows."""
        with self._lock:
            self.calls, self.seconds = max(1, calls), seconds
            while len(self._granted) > self.calls:
                self._granted.popleft()
