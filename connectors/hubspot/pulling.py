"""What every pull of a portal is made of: its files, its manifests, and what may be refused without ending it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from connectors.errors import CrmPermissionError, CrmProtocolError, CrmQuotaError
from connectors.hubspot.client import Client, Refusal
from connectors.hubspot.files import Ndjson
from connectors.hubspot.known import Known
from connectors.hubspot.reading import Record, instant, records
from connectors.landing import Landing, Manifest, Pull

SAY_EVERY = 5000  # records


@dataclass
class Newest:
    """The greatest cursor seen of an object."""

    at: datetime | None = None

    def see(self, record: Record, cursor: str) -> None:
        stamp = instant((record.get("properties") or {}).get(cursor))
        if stamp is not None and (self.at is None or stamp > self.at):
            self.at = stamp


class Pulling:
    """One pull while it goes on."""

    def __init__(
        self, client: Client, landing: Landing, since: Mapping[str, datetime], full: bool, known: Known | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.client, self.landing, self.since, self.full, self.known = client, landing, since, full, known
        self.say = progress or (lambda words: None)
        self.spent, self.spent_on = client.budget.total, client.budget.calls.copy()
        self.done: list[str] = []
        self.unread: list[str] = []
        self.stopped: CrmQuotaError | None = None
        self.whole: set[str] | None = None
        """Where a full pull goes on with one that had to stop: the objects that are still to be read whole."""
        self.org: dict[str, Any] = {}

    def finished(self, run_id: str, *, full: bool) -> Pull:
        """Write pull.json: what was landed until now is the whole pull."""
        budget = self.client.budget
        pulled = Pull(
            self.client.source, "hubspot", run_id, full=full, objects=self.done, org=self.org, calls=budget.total - self.spent,
            daily_used=budget.daily_used, daily_limit=budget.daily_limit, server_time=self.client.clock,
            stopped=str(self.stopped) if self.stopped else None, unread=self.unread,
        )
        self.landing.finish(pulled)
        return pulled

    def files(self, obj: str) -> Ndjson:
        self.client.object = obj
        return Ndjson(self.landing.object_directory(obj))

    def results(self, path: str) -> list[Record]:
        try:
            return records(self.client.get(path), self.client)
        except Refusal as refusal:
            raise self.client.protocol_error(refusal) from None

    def unless_refused(self, read: Callable[[], None]) -> str | None:
        """Read what the pull can do without; why it could not be read, in words, or None."""
        try:
            read()
        except (CrmPermissionError, CrmProtocolError) as error:
            return error.what
        except Refusal as refusal:
            return self.client.protocol_error(refusal).what
        return None

    def since_of(self, obj: str) -> datetime | None:
        """The watermark from which `obj` is read on; None: it is read whole."""
        return None if self.full and (self.whole is None or obj in self.whole) else self.since.get(obj)

    def lower(self, since: datetime) -> datetime:
        return since - timedelta(minutes=self.client.settings.overlap_minutes)

    def finish_whole(self, obj: str, out: Ndjson, *, key: str = "id", notice: str | None = None, partly: str | None = None) -> None:
        """Finish an object that is read whole each time. notice: why it could not be read; partly: why only a part of it."""
        said = notice or partly
        self.finish(Manifest(self.client.source, "hubspot", obj, key, "full", complete=said is None, notice=said), out, keep=not notice)

    def finish(self, manifest: Manifest, out: Ndjson, *, keep: bool) -> None:
        """keep: whether what was read is worth loading, though there may be a notice."""
        manifest.files = out.finish() if keep else []
        manifest.calls = self.client.budget.calls[manifest.object] - self.spent_on[manifest.object]
        self.landing.finish_object(manifest)
        self.done.append(manifest.object)

    def counted(self, found: Iterable[Record], what: str) -> Iterator[Record]:
        with self.counting(what) as count:
            for record in found:
                count()
                yield record

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[], None]]:
        """Say now and then how many records there were, and at the end: a call of what it gives is one of them."""
        number = 0

        def count() -> None:
            nonlocal number
            number += 1
            if number % SAY_EVERY == 0:
                self.say(f"{self.client.source}: {number:,} {what} read …")

        yield count
        self.say(f"{self.client.source}: {number:,} {what} read")


def listed_because(refused: str | None) -> str | None:
    return refused and f"all of them were listed, for what changed cannot be searched: {refused}"


def reached(before: datetime | None, started: datetime | None, newest: datetime | None) -> datetime | None:
    """Up to where everything has been landed: see the module's invariant. It never falls behind what was promised before."""
    reached = min((at for at in (started, newest) if at is not None), default=None) if newest is not None else None
    return max((at for at in (before, reached) if at is not None), default=None)
