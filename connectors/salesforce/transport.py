"""The requests session under simple-salesforce: time-outs, pool, http on loopback, and what each answer's headers say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from connectors.address import is_loopback
from connectors.http import TIMEOUT

POOL = 16


class Loopback(HTTPAdapter):
    """Speaks http to a server on this machine, whatever the scheme: simple-salesforce writes https into every URL."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(request.url or "")
        if not is_loopback(parts.geturl()):
            raise requests.exceptions.InvalidURL("http is for loopback hosts only")
        request.url = parts._replace(scheme="http").geturl()
        kwargs["proxies"] = {}  # a proxy could not reach our loopback
        return super().send(request, *args, **kwargs)


class TSession(requests.Session):
    """A session that never waits for ever, follows no redirects and retries nothing: each request is one API call, and who
    counts calls must see each try. `seen` is called with every answer; `last` is the latest answer of the calling thread."""

    def __init__(self, instance_url: str, login_url: str, seen: Callable[[requests.Response], None]) -> None:
        super().__init__()
        self.seen = seen
        self._local = threading.local()
        self.auth = lambda request: request  # else requests would put ~/.netrc in the place of our token
        self.mount("https://", HTTPAdapter(pool_maxsize=POOL, max_retries=0))
        for url in {instance_url, login_url}:
            if url.startswith("http://"):
                host = urlsplit(url).netloc
                for scheme in ("http", "https"):
                    self.mount(f"{scheme}://{host}/", Loopback(pool_maxsize=POOL, max_retries=0))

    @property
    def last(self) -> requests.Response | None:
        return getattr(self._local, "response", None)

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT
        kwargs.setdefault("allow_redirects", False)
        self._local.response = None
        response = super().request(*args, **kwargs)
        self._local.response = response
        self.seen(response)
        return response
