"""What can go wrong with the API server, in an operator's words."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
import urllib3.exceptions as http

from kproxy.core.misshapen import UNDECODABLE
from kproxy.text.escaping import printable

MAX_RETRY_AFTER_S = 300.0  # a server that asks for more is asked again all the same
_MAX_TEXT = 300  # characters of what a server says

_GONE = ("Expired", "Gone")
_USER = re.compile(r'User "([^"]+)"')

# OpenSSL's X509_V_ERR_ numbers (x509_vfy.h).
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_SIGNER = (2, 7, 18, 19, 20, 21)
_OTHER_NAME = (62, 64)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")


class Doing(NamedTuple):
    """What is asked of the API server: a verb and a resource as RBAC names them."""

    verb: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


class ApiError(Exception):
    """The API server gave no good answer; the text is one line that names the cause.

    - `status`: the HTTP status, or the code of an error in a stream; 0 if there was no answer.
    - `reason`, `about`, `causes`: the fields `reason`, `details.kind` and the reasons of
      `details.causes` of the API's Status object, empty without one.
    - `retry_after_s`: how long the server asks to be left alone.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int = 0,
        reason: str = "",
        about: str = "",
        causes: frozenset[str] = frozenset(),
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(printable(text))
        self.status = status
        self.reason = reason
        self.about = about
        self.causes = causes
        self.retry_after_s = retry_after_s

    @property
    def version_is_gone(self) -> bool:
        """Whether the resource version that was asked for cannot be had, now or ever.

        Too old, or newer than all there is: the latter after etcd was restored from a backup.
        """
        too_old = self.status == 410 or self.reason in _GONE
        return too_old or "ResourceVersionTooLarge" in self.causes


class Garbled(ApiError):
    """What the server said makes no sense, so nothing it said may be relied on."""


class _Cause(msgspec.Struct):
    reason: str = ""


class _Details(msgspec.Struct, rename="camel"):
    kind: str = ""
    causes: list[_Cause] | None = None
    retry_after_seconds: float = 0.0


class _Status(msgspec.Struct):
    """The API's `v1 Status`."""

    kind: str
    message: str = ""
    reason: str = ""
    details: _Details | None = None
    code: int = 0


# Made before there are threads: two that decode a type first, at once, end the process by a signal.
_STATUSES = msgspec.json.Decoder(_Status)


def answered(
    doing: Doing, host: str, status: int, headers: Mapping[str, str], body: bytes
) -> ApiError:
    """Return the error that an HTTP answer other than 2xx stands for."""
    said = _status_object(body)
    retry_after_s = _seconds(headers.get("Retry-After"))
    if said is None:
        text = body.decode(errors="replace").strip().partition("\n")[0]
        if 300 <= status < 400:
            text = f"sends us on to {headers.get('Location', 'nowhere')}"
        return ApiError(
            _words(doing, host, status, text), status=status, retry_after_s=retry_after_s
        )
    return _refused(doing, host, status, said, retry_after_s)


def in_stream(doing: Doing, host: str, raw: bytes | msgspec.Raw) -> ApiError:
    """Return the error that the object of an ERROR event stands for."""
    said = _status_object(raw)
    if said is None:
        return Garbled(f"cannot {doing}: {host} sends an error that is no Status object")
    return _refused(doing, host, said.code, said, 0.0)


def _refused(doing: Doing, host: str, status: int, said: _Status, retry_after_s: float) -> ApiError:
    details = said.details or _Details()
    return ApiError(
        _words(doing, host, status, said.message),
        status=status,
        reason=said.reason,
        about=details.kind,
        causes=frozenset(cause.reason for cause in details.causes or ()),
        retry_after_s=min(max(retry_after_s, details.retry_after_seconds), MAX_RETRY_AFTER_S),
    )


def _words(doing: Doing, host: str, status: int, said: str) -> str:
    said = said if len(said) <= _MAX_TEXT else said[:_MAX_TEXT] + "..."
    quoted = f": {said}" if said else ""
    if status == 401:
        return (
            f"{host} does not accept our credentials (401): the token or client certificate is "
            "expired, revoked or of another cluster"
        )
    if status == 403:
        user = _USER.search(said)
        whom = user.group(1) if user else "our user"
        return f"may not {doing} (403): grant it to {whom} by RBAC{quoted}"
    if status == 404:
        return f"cannot {doing}: {host} does not have it (404){quoted}"
    if status == 429:
        return f"cannot {doing} yet: {host} has too much to do (429){quoted}"
    if 300 <= status < 400:
        return f"cannot {doing}: {host} is no API server ({status}), it {said}"
    return f"cannot {doing}: {host} answers {status}{quoted}"


def not_json(doing: Doing, host: str, content_type: str) -> Garbled:
    """Return the error for an answer 200 in another format."""
    return Garbled(
        f"cannot {doing}: {host} answers in {content_type or 'no format'} instead of JSON, "
        "so it is no API server"
    )


def unanswered(
    doing: Doing, host: str, error: http.HTTPError, *, ca_file: str, server_name: str
) -> ApiError:
    """Return the error for a request that got no answer.

    `ca_file` is what the server's certificate was checked against, "" for the system's CAs, and
    `server_name` the name that was expected in it, "" for that in its address.
    """
    expected = server_name or urlsplit(host).hostname or ""
    return ApiError(f"cannot {doing}: {_why_unanswered(host, error, ca_file, expected)}")


def _why_unanswered(host: str, error: http.HTTPError, ca_file: str, expected: str) -> str:
    if isinstance(error, http.LocationValueError):
        return f"{host} is no address of a server"
    through = "the proxy on the way to " if isinstance(error, http.ProxyError) else ""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _why_untrusted(host, cause, ca_file, expected)
        if isinstance(cause, ssl.SSLError):
            return _why_no_tls(host, cause)
        if isinstance(cause, http.NameResolutionError):
            return f"the name of {through}{host} cannot be resolved"
        if isinstance(cause, http.ReadTimeoutError):
            return f"{through}{host} does not answer"
        if isinstance(cause, http.TimeoutError) and not isinstance(cause, http.NewConnectionError):
            return f"{through}{host} cannot be reached (time-out): wrong address, or a firewall?"
        if isinstance(cause, ConnectionRefusedError):
            return f"{through}{host} refuses the connection: nothing listens there now"
        if isinstance(cause, OSError) and cause.strerror:
            return f"{through}{host} cannot be reached: {cause.strerror}"
    return f"{through}{host} breaks off the connection"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was made of, which libraries keep in several places."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [cause.__cause__, getattr(cause, "original_error", None), *cause.args]


def _why_untrusted(
    host: str, error: ssl.SSLCertVerificationError, ca_file: str, expected: str
) -> str:
    code = error.verify_code
    if code in _UNKNOWN_SIGNER:
        whose = f"the CA in {ca_file}" if ca_file else "any CA that this system trusts"
        return f"the certificate of {host} is not signed by {whose}"
    if code in _OTHER_NAME:
        return f"the certificate of {host} is not for {expected}, so this may be another server"
    if code == _EXPIRED:
        return f"the certificate of {host} has expired (or this node's clock is wrong)"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet (or this node's clock is wrong)"
    return f"the certificate of {host} cannot be trusted: {error.verify_message}"


def _why_no_tls(host: str, error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return f"{host} does not speak TLS"
    if "ALERT" in reason:
        return f"{host} refuses our client certificate or our TLS version ({reason})"
    return f"the TLS connection to {host} fails ({reason or 'cut off'})"


def _status_object(body: bytes | msgspec.Raw) -> _Status | None:
    try:
        said = _STATUSES.decode(body)
    except UNDECODABLE:
        return None
    return said if said.kind == "Status" else None


def _seconds(text: str | None) -> float:
    """Return a Retry-After in seconds; the API server never sends the other form, a date."""
    if text is None or not text.isascii() or not text.isdigit():
        return 0.0
    return min(float(text), MAX_RETRY_AFTER_S)
