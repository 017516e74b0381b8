"""Where requests go and as whom, with the contents of all files that say so."""

from __future__ import annotations

import os
import re
import ssl
import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kproxy.watch.api.errors import ApiError

_AUTHORIZATION = re.compile(r"[\x21-\x7e]+ [\x21-\x7e]+")
_HEADER = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")


class MemoryFile:
    """A file that is on no disk, and gone with the last reference to this object.

    `origin` says where its content is from. The libraries want a file for each certificate and
    key; as these are copies, they fit each other whatever happens to their origins.
    """

    def __init__(self, origin: str, data: bytes) -> None:
        self.origin = origin
        self.data = data
        handle = os.memfd_create("kproxy", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, handle)
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        self.path = f"/proc/self/fd/{handle}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ApiServer:
    """Where requests go and as whom, as of some moment.

    - `origin`: what says all this, for messages.
    - `ca`: None for the CAs of the system; it counts unless `insecure` takes any certificate.
    - `certificate`, `key`: both or none.
    - `server_name`: the name in the server's certificate, "" for that in its address.
    - `proxy`: what the connection leads through, "" for nothing.
    - `authorization`, `impersonation`: the value of that header, and those of client-go's
      `Impersonate-` headers.
    """

    server: str
    origin: str = ""
    ca: MemoryFile | None = None
    certificate: MemoryFile | None = None
    key: MemoryFile | None = None
    insecure: bool = False
    server_name: str = ""
    proxy: str = ""
    authorization: str = field(default="", repr=False)
    impersonation: tuple[tuple[str, str], ...] = ()

    @property
    def transport(self) -> Hashable:
        """Return what differs between two targets whose connections must not be mixed up."""
        files = (self.ca, self.certificate, self.key)
        contents = tuple(None if file is None else file.data for file in files)
        return self.server, contents, self.insecure, self.server_name, self.proxy

    @property
    def credentials(self) -> Hashable:
        """Return what differs between two targets of which one may be let in."""
        return self.authorization, self.impersonation, self.transport


def check(target: ApiServer) -> None:
    """Refuse what no request could be made with, while it is known where it is from.

    Raises ApiError.
    """
    if target.authorization and not _AUTHORIZATION.fullmatch(target.authorization):
        raise ApiError("the token holds spaces or characters that no HTTP header can carry")
    for name, value in target.impersonation:
        if not _HEADER.fullmatch(value):
            raise ApiError(f"{name} cannot be {value!r}: no HTTP header can carry that")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if target.ca is not None:
        try:
            context.load_verify_locations(target.ca.path)
        except OSError as error:
            where = target.ca.origin
            raise ApiError(f"there is no CA certificate in {where}: {_why(error)}") from error
    if target.certificate is not None and target.key is not None:
        try:
            # Without a password given, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(target.certificate.path, target.key.path, password="")
        except OSError as error:
            where = target.certificate.origin
            raise ApiError(
                f"there is no client certificate with a fitting key in {where}: {_why(error)}"
            ) from error
    expected = target.server_name or urlsplit(target.server).hostname
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=expected)
    except (ValueError, TypeError) as error:
        raise ApiError(f"no server can have the name {expected!r}: {error}") from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM format"
    return error.strerror or str(error)
