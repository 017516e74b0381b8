"""Who the server claims to be."""

from __future__ import annotations

import enum
import ssl
from datetime import UTC, datetime

import trustme


class Tls(enum.Enum):
    """What a client finds when it connects."""

    TRUSTED = "a certificate as it should be"
    OTHER_CA = "a certificate of an authority that nobody told the client of"
    OTHER_NAME = "a certificate for somebody else"
    EXPIRED = "a certificate of yesterday"
    NONE = "no TLS at all"


class Authority:
    """A certificate authority and the certificates of a server on 127.0.0.1."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.ca_pem = self._authority.cert_pem.bytes()
        self._contexts: dict[Tls, ssl.SSLContext | None] = {Tls.NONE: None}

    def context(self, tls: Tls) -> ssl.SSLContext | None:
        """Return what the server needs to look like this, None for no TLS."""
        if tls not in self._contexts:
            self._contexts[tls] = self._make(tls)
        return self._contexts[tls]

    def _make(self, tls: Tls) -> ssl.SSLContext:
        authority = trustme.CA() if tls is Tls.OTHER_CA else self._authority
        name = "kubernetes.example" if tls is Tls.OTHER_NAME else "127.0.0.1"
        long_ago = datetime(2001, 1, 1, tzinfo=UTC) if tls is Tls.EXPIRED else None
        certificate = authority.issue_cert(name, not_after=long_ago)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # a ticket that nobody reads turns a closing into a reset
        certificate.configure_cert(context)
        return context
