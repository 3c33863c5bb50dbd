"""Addresses of CRMs as people write them into a configuration. Imports next to nothing: settings load on each command."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether the host of `url` can only be this machine. Names are not resolved: DNS must not be able to say yes."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(url: str, example: str) -> str:
    """`url` without its trailing slash. ValueError with the fix unless it is the https address of a host
    (http for loopback hosts only, because tokens travel in headers)."""
    try:
        parts = urlsplit(url.strip())
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
    if not port_is_fine or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f'must be an address such as "{example}"')
    if parts.username or parts.password:
        raise ValueError("must not hold a user name or password; credentials have keys of their own")
    if parts.query or parts.fragment:
        raise ValueError("must end before any ? or #")
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError('must start with https:// (http:// is for loopback hosts only, such as "http://127.0.0.1:8080")')
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
