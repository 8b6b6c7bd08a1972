"""A proxy of this process's own, through which catalogues and scenes on servers are read.

A server may redirect wherever it likes, and a name may stand for another address each time it is
looked up, so that a catalogue of strangers could lead into the network of whoever collects. Here
every connection is looked at when it is made, and made to the very address that was looked at.
GDAL, which follows redirects itself, has no other way out: what the machine says about proxies is
hidden from it and honoured here.
"""

from __future__ import annotations

import http.client
import logging
import os
import secrets
import selectors
import socket
import threading
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote, urlsplit
from urllib.request import BaseHandler, Request, getproxies, proxy_bypass

from ...errors import UserError
from .addresses import is_private, is_public, is_trusted

# What the guard answers in place of an address that it may not ask.
REFUSED = "An address of a private network"
_log = logging.getLogger(__name__)
_refused: list[str] = []  # hosts that were not asked, in their order
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 16
_HOP = {"proxy-connection", "proxy-authorization", "connection", "keep-alive"}
_USER = "rs_models"
# What libcurl and GDAL read from the environment and would go past the guard by.
_WAYS_PAST = (
    *("no_proxy", "NO_PROXY", "GDAL_HTTP_PROXY", "GDAL_HTTPS_PROXY"),
    *("GDAL_HTTP_PROXYUSERPWD", "GDAL_PROXY_AUTH"),
)


def refused_hosts() -> tuple[str, ...]:
    """Private hosts that servers led to and that were not asked, in their order."""
    return tuple(_refused)


def guarded(href: str) -> str:
    """What GDAL opens for an address on a server, so that it is read through the guard.

    Raises:
        UserError: This machine's proxy is none that the guard can go through.
    """
    guard = _guard()
    machines_proxy(href)
    for name in _WAYS_PAST:
        os.unsetenv(name)  # for C alone: `os.environ` keeps them, for us and for Python's clients
    proxy = quote(f"http://{_USER}:{guard.secret}@{guard.place}", safe="")
    return f"/vsicurl?proxy={proxy}&empty_dir=yes&url={quote(href, safe='')}"


class ThroughGuard(BaseHandler):
    """Sends the requests of a urllib opener, redirected ones too, through the guard."""

    handler_order = 600  # after urllib has noted the host that is meant

    def http_request(self, request: Request) -> Request:
        """The request, to the guard."""
        guard = _guard()
        machines_proxy(request.full_url)
        request.add_unredirected_header("Proxy-Authorization", _basic(f"{_USER}:{guard.secret}"))
        request.set_proxy(guard.place, request.type)
        return request

    https_request = http_request


@dataclass(frozen=True)
class Proxy:
    """The proxy that this machine's connections have to go through.

    Attributes:
        host: Its name or address.
        port: Its port.
        headers: What it is told with each request.
    """

    host: str
    port: int
    headers: dict[str, str]


def machines_proxy(address: str) -> Proxy | None:
    """The proxy that is set for an address; None where it is asked directly.

    Raises:
        UserError: A proxy of a kind that cannot be gone through.
    """
    target = urlsplit(address)
    environment, proxies = os.environ, getproxies()
    stated = environment.get("GDAL_HTTPS_PROXY") if target.scheme == "https" else None
    stated = stated or environment.get("GDAL_HTTP_PROXY")
    stated = stated or proxies.get(target.scheme) or proxies.get("all")
    if not stated or proxy_bypass(target.hostname or ""):
        return None
    try:
        parts = urlsplit(stated if "://" in stated else f"http://{stated}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 80
    kind = environment.get("GDAL_PROXY_AUTH", "BASIC").upper()
    if not host or parts.scheme != "http" or kind not in ("BASIC", "ANY", "ANYSAFE"):
        raise UserError(
            f"The proxy that is set for {target.scheme} addresses is none that scenes can be read "
            "through: set one as http://HOST:PORT, with a name and password or without, or "
            "download the scenes first."
        )
    login = environment.get("GDAL_HTTP_PROXYUSERPWD")
    if not login and parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, {"Proxy-Authorization": _basic(login)} if login else {})


def _basic(login: str) -> str:
    return f"Basic {b64encode(login.encode()).decode()}"


class _Guard(ThreadingHTTPServer):
    """The proxy; it serves this process alone."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.secret = secrets.token_hex(16)
        self.place = f"127.0.0.1:{self.server_address[1]}"


@cache
def _guard() -> _Guard:
    guard = _Guard()
    threading.Thread(target=guard.serve_forever, daemon=True, name="guard").start()
    return guard


class _Refused(Exception):
    """An address of a private network that nobody trusts."""


def _connected(host: str, port: int) -> socket.socket:
    """A connection to a host; the address that was looked at is the one that is connected to.

    Raises:
        _Refused: The host has an address that may not be asked.
        OSError: It has none, or does not answer.
    """
    why = OSError(f"{host} has no address")
    trusted = is_trusted(host)
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not trusted and not all(is_public(str(place[0])) for *_, place in places):
        raise _Refused
    for family, kind, protocol, _, place in places:
        upstream = socket.socket(family, kind, protocol)
        upstream.settimeout(_TIMEOUT)
        try:
            upstream.connect(place)
        except OSError as error:
            upstream.close()
            why = error
        else:
            return upstream
    raise why


def _check_name(host: str) -> None:
    """Refuses a host whose name leads into a private network as far as can be seen from here.

    Behind a proxy many names cannot be looked up; those the proxy looks up and answers for.
    """
    if not is_trusted(host) and is_private(host):
        raise _Refused


class _Relay(BaseHTTPRequestHandler):
    """One connection of GDAL's or of urllib's."""

    server: _Guard
    timeout = _TIMEOUT

    def do_CONNECT(self) -> None:
        """Passes bytes both ways, for https."""
        upstream = self._upstream(f"https://{self.path}")
        if upstream is not None:
            with upstream:
                self.send_response(200)
                self.end_headers()
                _pass_on(self.connection, upstream)

    def do_GET(self) -> None:
        """Asks in the name of who asked, and passes the answer on, for http."""
        upstream = self._upstream(self.path)
        if upstream is None:
            return
        target, proxy = urlsplit(self.path), machines_proxy(self.path)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        path = f"http://{target.netloc}{path}" if proxy else path
        lines = [f"{self.command} {path} HTTP/1.1"]
        lines += [f"{key}: {text}" for key, text in self.headers.items() if key.lower() not in _HOP]
        lines += [f"{key}: {text}" for key, text in (proxy.headers if proxy else {}).items()]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with upstream:
            head = "\r\n".join([*lines, "Connection: close", "", ""])
            upstream.sendall(head.encode("latin-1") + body)
            while chunk := upstream.recv(_CHUNK):
                self.wfile.write(chunk)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of requests."""

    def handle(self) -> None:
        """Ends quietly where either side breaks off."""
        try:
            super().handle()
        except (OSError, ValueError):  # ValueError: an address that is none
            self.close_connection = True

    def _upstream(self, address: str) -> socket.socket | None:
        """The connection for an address; None where there is none, after saying so."""
        self.close_connection = True
        login = self.headers.get("Proxy-Authorization", "")
        if not secrets.compare_digest(login, _basic(f"{_USER}:{self.server.secret}")):
            self.send_error(407)
            return None
        target = urlsplit(address)
        host, secure = target.hostname or "", self.command == "CONNECT"
        port = target.port or (443 if secure else 80)
        try:
            proxy = machines_proxy(address)
            if proxy is None:
                return _connected(host, port)
            _check_name(host)
            if not secure:
                return socket.create_connection((proxy.host, proxy.port), _TIMEOUT)
            tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=_TIMEOUT)
            tunnel.set_tunnel(host, port, proxy.headers)
            tunnel.connect()
            return tunnel.sock
        except _Refused:
            _refused.append(host.lower())
            _log.warning(
                "A server leads to %s:%d, an address of a private network, which was not asked.",
                host,
                port,
            )
            self.send_error(403, REFUSED)
        except (OSError, UnicodeError, UserError, http.client.HTTPException) as error:
            self.send_error(502, _reason(error))
        return None


def _reason(error: Exception) -> str:
    """Why there is no connection, as the one line of a status."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text.encode("ascii", "replace").decode()[:200]


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Bytes of each to the other, until one ends or both are silent."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while ready := selector.select(_TIMEOUT):
            for key, _ in ready:
                source, target = key.fileobj, key.data
                assert isinstance(source, socket.socket)
                chunk = source.recv(_CHUNK)
                if not chunk:
                    return
                target.sendall(chunk)
