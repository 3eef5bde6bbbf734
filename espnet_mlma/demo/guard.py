"""Refuse requests with foreign hosts or origins, to unused routes, or above the size limit.

Any website can send requests to a port of its visitor's machine. Browsers state the source:
`Origin` and `Sec-Fetch-Site` name the site that sends a request, `Host` the name in the address
bar. After DNS rebinding, when a foreign name resolves to this machine, `Host` is the foreign name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from espnet_mlma.errors import MlmaError

type Message = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]

UPLOAD = "/gradio_api/upload"
FILE = "/gradio_api/file="
# The routes that the page uses; Gradio has many more: proxies, recordings, shared states.
_ROUTES = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/.+"
        rf"|/gradio_api/queue/data|{FILE}.+"
    ),
    "POST": re.compile(rf"{UPLOAD}|/gradio_api/(queue/join|cancel|reset)"),
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.IGNORECASE)
# Room for the boundaries and headers of an upload's parts; all other requests are shorter.
_OVERHEAD_BYTES = 2**16
# Browsers must not run files as pages, nor show them in other sites.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Hosts:
    """Host names under which the page may be requested.

    Args:
        listening: address or name that the server listens on.
        others: more names, such as a reverse proxy's.

    Raises:
        MlmaError: one of `others` is not a host name.
    """

    def __init__(self, listening: str, others: Sequence[str] = ()):
        for name in others:
            if _address(name) is None and hostname(name) != name.lower():
                raise MlmaError(f"{name!r} is not a host name; give it without scheme and port")
        address = _address(listening)
        self._is_everywhere = address is not None and address.is_unspecified
        self.others = {name.lower() for name in others}
        self._names = {"localhost", *self.others}
        if not self._is_everywhere:
            self._names.add(listening.lower())
        if address is None or not address.is_loopback:
            own, full = socket.gethostname().lower(), socket.getfqdn().lower()
            self._names |= {own, full, f"{own.partition('.')[0]}.local"}

    def __contains__(self, host: str) -> bool:
        """Return whether a `Host` header names the page.

        DNS rebinding needs a name, so addresses are safe. If the server listens on all addresses,
        any address is accepted: behind a container or a router the machine does not know its own.
        """
        name = hostname(host)
        if name is None or name in self._names:
            return name is not None
        address = _address(name)
        return address is not None and (self._is_everywhere or address.is_loopback)


def hostname(host: str) -> str | None:
    """Return the name in a `Host` header, in lower case and without port; None: invalid."""
    match = _HOST.fullmatch(host)
    return match and match[1].strip("[]").lower()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class Guard:
    """Filter requests to an ASGI application.

    Args:
        page: the application.
        hosts: names under which it is served.
        upload_bytes: maximum size of an upload in bytes, all files of a request together.
    """

    def __init__(self, page: Callable, hosts: Hosts, upload_bytes: int):
        self._page = page
        self._hosts = hosts
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._page(scope, receive, send)
        elif scope["type"] == "http":
            refusal = self._refusal(scope)
            if refusal is None:
                await self._limited(scope, receive, send)
            else:
                await _answer(send, *refusal)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Return status and text of the refusal; None: the request is allowed."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        hosts = _values(scope, "host")
        # Gradio builds addresses from it and trusts every client.
        forwarded = ",".join(_values(scope, "x-forwarded-host")).split(",")
        named = hosts + [host.strip() for host in forwarded if host.strip()]
        if len(hosts) != 1 or not all(host in self._hosts for host in named):
            return 403, (
                "the page is not served under this name; open the address that the server printed, "
                "or start it with --allow-host NAME"
            )
        if not self._is_same_origin(scope, method, named):
            return 403, "requests of other sites are refused; open the page itself"
        if method not in _ROUTES or not _ROUTES[method].fullmatch(scope["path"]):
            return 404, "the page has no such address"
        lengths = _values(scope, "content-length")
        if any(int(length) > self._limit(scope) for length in lengths if length.isdecimal()):
            return self._too_large()
        return None

    def _is_same_origin(self, scope: Message, method: str, hosts: Iterable[str]) -> bool:
        own = {f"{scheme}://{host.lower()}" for host in hosts for scheme in ("http", "https")}
        for origin in _values(scope, "origin"):
            _, _, host = origin.partition("://")
            if origin.lower() not in own and hostname(host) not in self._hosts.others:
                return False
        # Another site may link to the page; all its other requests are refused.
        is_link = method == "GET" and _values(scope, "sec-fetch-dest") == ["document"]
        sites = set(_values(scope, "sec-fetch-site"))
        return is_link or sites <= {"same-origin", "none"}

    def _limit(self, scope: Message) -> int:
        is_upload = scope["path"] == UPLOAD
        return _OVERHEAD_BYTES + (self._upload_bytes if is_upload else 0)

    def _too_large(self) -> tuple[int, str]:
        return 413, (
            f"request larger than {self._upload_bytes / 2**20:g} MB; cut the audio, or start the "
            "server with a higher --max-mb"
        )

    async def _limited(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on; if it grows too large, the page sees the client disconnect."""
        limit, received, has_begun = self._limit(scope), 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= limit else {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if received > limit and not has_begun:
                return
            if message["type"] == "http.response.start":
                has_begun = True
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        try:
            await self._page(scope, counted, answer)
        except Exception:
            # After the limit, the page's error is about the disconnect; the client gets 413 below.
            if received <= limit:
                raise
        if received > limit and not has_begun:
            await _answer(send, *self._too_large())


def _values(scope: Message, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
