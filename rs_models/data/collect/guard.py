"""A proxy of this process's own, through which GDAL reads scenes: it reaches no private address.

GDAL follows a server's redirects itself, wherever they lead, so that a catalogue of strangers could
name a scene of its own and let that lead into the network of whoever collects. Here every
connection is looked at when it is made, redirected or not.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit
from urllib.request import getproxies

from .addresses import is_private, is_public

_log = logging.getLogger(__name__)
_TIMEOUT = 60  # seconds without a byte
_CHUNK = 1 << 16
_HOP = {"proxy-connection", "proxy-authorization", "connection", "keep-alive"}


def guarded(href: str) -> str:
    """What GDAL opens for an address on a server, so that it is read through the guard.

    Where a proxy is set for this machine, that one is used, and decides what may be reached.

    Args:
        href: An address that the user gave, or that was looked at; a private host of it is trusted.
    """
    if "GDAL_HTTP_PROXY" in os.environ or {"http", "https", "all"} & getproxies().keys():
        return f"/vsicurl/{href}"
    guard = _guard()
    host = (urlsplit(href).hostname or "").lower()
    if is_private(host):  # a public one stays looked at: its name may lead elsewhere later
        guard.trusted.add(host)
    port = guard.server_address[1]
    return (
        f"/vsicurl?proxy=http%3A%2F%2F127.0.0.1%3A{port}&empty_dir=yes&url={quote(href, safe='')}"
    )


class _Guard(ThreadingHTTPServer):
    """The proxy, and the hosts that may be private."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.trusted: set[str] = set()

    def connected(self, host: str, port: int) -> socket.socket | None:
        """A connection to a host at an address that may be asked; None where there is none.

        The address that was looked at is the one that is connected to.
        """
        trusted = host.lower() in self.trusted
        for family, kind, protocol, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            if not trusted and not is_public(str(place[0])):
                _log.warning(
                    "A server of scenes leads to %s:%d, an address of a private network, which was "
                    "not asked.",
                    host,
                    port,
                )
                return None
            upstream = socket.socket(family, kind, protocol)
            upstream.settimeout(_TIMEOUT)
            try:
                upstream.connect(place)
            except OSError:
                upstream.close()
            else:
                return upstream
        return None


@cache
def _guard() -> _Guard:
    guard = _Guard()
    threading.Thread(target=guard.serve_forever, daemon=True, name="guard").start()
    return guard


class _Relay(BaseHTTPRequestHandler):
    """One connection of GDAL's."""

    server: _Guard
    timeout = _TIMEOUT

    def do_CONNECT(self) -> None:
        """Passes bytes both ways, for https."""
        target = urlsplit(f"//{self.path}")
        upstream = self._upstream(target.hostname, target.port)
        if upstream is not None:
            with upstream:
                self.send_response(200)
                self.end_headers()
                _pass_on(self.connection, upstream)

    def do_GET(self) -> None:
        """Asks for GDAL and passes the answer on, for http."""
        target = urlsplit(self.path)
        port = target.port or 80 if target.scheme == "http" else None
        upstream = self._upstream(target.hostname, port)
        if upstream is None:
            return
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        lines = [f"{self.command} {path} HTTP/1.1"]
        lines += [f"{key}: {text}" for key, text in self.headers.items() if key.lower() not in _HOP]
        with upstream:
            upstream.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
            while chunk := upstream.recv(_CHUNK):
                self.wfile.write(chunk)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of requests."""

    def handle(self) -> None:
        """Ends quietly where either side breaks off."""
        try:
            super().handle()
        except (OSError, ValueError):  # ValueError: an address that is none
            self.close_connection = True

    def _upstream(self, host: str | None, port: int | None) -> socket.socket | None:
        """The connection to a host; None where it may not be, after telling GDAL so."""
        self.close_connection = True
        try:
            upstream = self.server.connected(host, port) if host and port else None
        except (OSError, UnicodeError):  # no such host
            upstream = None
        if upstream is None:
            self.send_error(403)
        return upstream


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
