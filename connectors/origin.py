"""Origins (RFC 6454): who answers, and who may see a token. An origin is safe to show; a URL is not."""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin

import httpx

from connectors.errors import BadUrl, ForeignLink, PlainHttp

_DEFAULT_PORT = {"http": 80, "https": 443}
MAX_PORT = 65_535


def origin_of(url: str | httpx.URL) -> str:
    """Return `scheme://host:port` in lower case, with the default port written out. Raises BadUrl.

    The host is as it is looked up: `httpx.URL.host` would undo the ASCII form of a name, and not every such
    form can be undone.
    """
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, TypeError, ValueError):
        raise BadUrl("A URL cannot be read.") from None
    port = parsed.port or _DEFAULT_PORT.get(parsed.scheme)
    if not host or port is None or not 0 < port <= MAX_PORT:
        raise BadUrl("A URL is not an http or https address.")
    return f"{parsed.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def check_base_url(url: str, *, allow_plain_http: bool = False) -> str:
    """Return the base URL without a trailing slash. Raises BadUrl, and PlainHttp beyond this machine."""
    cleaned = url.strip().rstrip("/")
    origin = origin_of(cleaned)
    parsed = httpx.URL(cleaned)
    if parsed.scheme not in _DEFAULT_PORT or parsed.userinfo or parsed.query or parsed.fragment:
        raise BadUrl("The base URL must be http or https, without user name, query or fragment.")
    refuse_plain_http(origin, allow_plain_http=allow_plain_http)
    return cleaned


def refuse_plain_http(origin: str, *, allow_plain_http: bool) -> None:
    """Raise PlainHttp for http to any machine but this one, unless allowed."""
    if origin.startswith("http://") and not allow_plain_http and not is_loopback(_host(origin)):
        raise PlainHttp(f"Patient data would travel unencrypted to {origin}.")


def _host(origin: str) -> str:
    return origin.partition("://")[2].rpartition(":")[0].strip("[]")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be this machine (RFC 6761 for `localhost`)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def follow(link: str, seen_at: str, allowed: frozenset[str]) -> str:
    """Return the absolute URL of a link found at `seen_at`. Raises ForeignLink beyond the allowed origins."""
    try:
        target = urljoin(seen_at, link)
        origin = origin_of(target)
    except (ValueError, BadUrl):
        raise ForeignLink("A link in the answer is not an http address, so it was not followed.") from None
    if origin not in allowed or httpx.URL(target).userinfo:
        raise ForeignLink(f"A link leads from {origin_of(seen_at)} to {origin}, so it was not followed.")
    return target
