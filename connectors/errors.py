"""What can go wrong between us and a CRM, each error written for the person who reads it."""

from __future__ import annotations

from typing import Self


class CrmError(Exception):
    """A CRM refused or failed. `str()` is one or two plain lines: what happened, to which source and object, what to do.

    Messages never hold credentials, query results or other people's data: they are logged and printed.
    """

    def __init__(self, what: str, *, source: str, fix: str, obj: str | None = None, code: str | None = None) -> None:
        self.what, self.source, self.object, self.fix, self.code = what, source, obj, fix, code
        where = f"{source} ({obj})" if obj else source
        super().__init__(f"{where}: {what}\n{fix}")

    def with_more(self, words: str) -> Self:
        """The same error, with more to say about what happened."""
        return type(self)(f"{self.what}; {words}", source=self.source, fix=self.fix, obj=self.object, code=self.code)


class CrmAuthError(CrmError):
    """The CRM does not accept the credentials."""


class CrmPermissionError(CrmError):
    """The user or token may not read or write what is needed."""


class CrmQuotaError(CrmError):
    """The day's API calls are used up, the CRM's or our own share of them."""


class CrmUnavailableError(CrmError):
    """Unknown host, refused or broken connection, time-out or 5xx, after all retries."""


class CrmProtocolError(CrmError):
    """The CRM answered something that we do not understand, or refused a request that should be right."""
