"""Where the links of catalogues may lead."""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
from functools import lru_cache
from pathlib import Path

from ...errors import UserError

BUCKETS = {"s3://": "/vsis3/", "gs://": "/vsigs/"}
# A bucket's name as S3 and Google give them. GDAL makes it part of a host, where a "#" or a ":"
# would end the name of the server that is asked.
_BUCKET = re.compile(r"(?:s3|gs)://[a-z0-9][a-z0-9._-]{1,221}[a-z0-9]/[^/?#]", re.I)
_TRUSTED: set[str] = set()  # private hosts that the user named
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address
# Other forms that translators send on to IPv4 addresses: RFC 4291 (compatible), 2765 and 8215.
_LEADS_ELSEWHERE = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48")))


def resolved(base: str, href: str) -> str:
    """Where a link leads, seen from the document that it stands in.

    What comes from a server may name no file of this machine and no address of a private network
    but that server's own.

    Args:
        base: Path or address of the document.
        href: As it stands there.

    Raises:
        UserError: A link that leads where it may not.
    """
    if "\0" in urllib.parse.unquote(href):
        raise UserError(f"{base} names {href!r}, which holds a null character: it is damaged.")
    bucket = href.startswith(tuple(BUCKETS))
    if bucket and not _BUCKET.match(href):
        raise UserError(f"{base} names {href!r:.200}, which is no object of a bucket.")
    if not is_url(base):
        if is_url(href):
            trust(href)  # what lies on this machine may name any host
        if is_url(href) or bucket:
            return href
        if "://" in href and not href.startswith("file://"):
            raise UserError(f"{base} names {href}, which cannot be read here: download it first.")
        path = Path(urllib.parse.unquote(href.removeprefix("file://")))
        return str((Path(base).parent / path).resolve())
    if bucket:
        return href
    try:
        address = urllib.parse.urljoin(base, href)
        host, own = (urllib.parse.urlsplit(part).hostname for part in (address, base))
        # Clients decode the host, so that 127.0.0.%31 is no name but 127.0.0.1.
        is_address = is_url(address) and bool(host) and "%" not in (host or "")
    except ValueError as error:
        raise UserError(f"{base} names {href!r:.200}, which is no address: {error}.") from error
    if not is_address or href.startswith("/vsi") or "/vsi" in href[:12]:
        raise UserError(
            f"{base} names {href}, which is no address on a server: a catalogue that was fetched "
            "may name nothing else."
        )
    if host != own and is_private(host or ""):
        raise UserError(
            f"{base} names {address}, an address of a private network: a catalogue that was "
            "fetched may not; give that address yourself if you trust it."
        )
    return address


def trust(address: str) -> None:
    """Lets a private host be asked that the user named, in an address or in a catalogue of files.

    A public one stays looked at: its name may lead elsewhere later.

    Raises:
        UserError: No address.
    """
    try:
        host = (urllib.parse.urlsplit(address).hostname or "").lower()
    except ValueError as error:
        raise UserError(f"{address!r:.200} is no address: {error}.") from error
    if is_private(host):
        _TRUSTED.add(host)


def is_trusted(host: str) -> bool:
    """Whether a host may be private."""
    return host.lower() in _TRUSTED


@lru_cache(1024)
def is_private(host: str) -> bool:
    """Whether a host's name stands for an address that the public network does not have."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return host == "localhost" or host.endswith((".local", ".internal"))
    return not all(is_public(str(text)) for text in found)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public network, by whatever form it is written in.

    IPv6 has forms that stand for an IPv4 address and lead there.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    if ip.is_site_local or any(ip in network for network in _LEADS_ELSEWHERE):
        return False
    inner = ip.ipv4_mapped or ip.sixtofour
    return is_public(str(inner)) if inner else ip.is_global and not ip.is_multicast


def is_url(text: str) -> bool:
    """Whether it is an address of a web server."""
    return text.lower().startswith(("http://", "https://"))
