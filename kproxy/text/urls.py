"""Addresses of servers and of proxies, read as client-go and Go's net/http read them."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

_USER = re.compile(r"^(\w+://)?.*@", re.DOTALL)
_HOST = re.compile(r"[0-9A-Za-z_.:%~-]+")
_PORTS = {"http": 80, "https": 443}


def complete_address(server: str, *, secure: bool) -> str | None:
    """Return a server's address with a scheme, None if it is none.

    One without a scheme is read as client-go reads it: `secure` says that TLS is configured.
    """
    if "://" not in server:
        server = f"{'https' if secure else 'http'}://{server}"
    return None if _parts(server) is None else server


def without_user(address: str) -> str:
    """Return an address, whatever is wrong with it, fit to be shown: without a password."""
    return _USER.sub(r"\1...@", address)


def split_user(address: str) -> tuple[str, str]:
    """Return an address without user and password, and the header value that stands for them."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address, ""
    return parts._replace(netloc=host).geturl(), basic(unquote_to_bytes(user))


def basic(user_and_password: bytes) -> str:
    """Return the header value by which a user logs in with a password (RFC 7617)."""
    return f"Basic {b64encode(user_and_password).decode()}"


def check_proxy(address: str) -> None:
    """Raise ValueError, with the reason, for an address that is not that of a usable proxy."""
    if address.startswith(("socks5://", "socks5h://")):
        raise ValueError(f"{without_user(address)} is a SOCKS proxy, which is not supported")
    if _parts(address) is None:
        raise ValueError(f"{without_user(address)!r} is no address like http://name:port")


def proxy_for(server: str, environment: Mapping[str, str]) -> str:
    """Return the proxy that the environment wants for a server, "" for none.

    The rules are those of golang.org/x/net/http/httpproxy: ALL_PROXY is not one of them, and the
    own host is never reached through a proxy. Raises ValueError, with the reason.
    """
    parts = urlsplit(server)
    variable = f"{parts.scheme}_proxy"
    proxy = _variable(environment, variable)
    if not proxy or _goes_directly(parts, _variable(environment, "no_proxy")):
        return ""
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        check_proxy(proxy)
    except ValueError as error:
        raise ValueError(f"{variable.upper()} in the environment: {error}") from error
    return proxy


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name.upper()) or environment.get(name, "")


def _goes_directly(server: SplitResult, no_proxy: str) -> bool:
    host = server.hostname or ""
    port = str(server.port or _PORTS[server.scheme])
    address = _ip(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return "*" in entries or any(_names(entry, host, port) for entry in entries if entry)


def _names(entry: str, host: str, port: str) -> bool:
    """Say whether an entry of NO_PROXY names a host: network, address, or domain."""
    address = _ip(host)
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass
    else:
        return address in network if address is not None else False
    wanted, colon, wanted_port = entry.rpartition(":")
    if not colon:
        wanted, wanted_port = entry, ""
    if wanted_port not in ("", port):
        return False
    wanted = wanted.strip("[]")
    if address is not None:
        return _ip(wanted) == address
    wanted = wanted.removeprefix("*")
    return bool(wanted) and (
        host == wanted or host.endswith(wanted if wanted.startswith(".") else f".{wanted}")
    )


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _parts(address: str) -> SplitResult | None:
    """Return the parts of an address that a connection can be made to, None if it is none."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        usable = parts.scheme in _PORTS and parts.port != 0 and _HOST.fullmatch(host)
    except ValueError:
        return None
    return parts if usable and address.isascii() and address.isprintable() else None
