"""Requests to the API server: the transport of the `kubernetes` package, closable at any time."""

from __future__ import annotations

import contextlib
import platform
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from kproxy import __version__
from kproxy.text.urls import split_user
from kproxy.watch.api.body import Broken, Silent, TooLong, whole
from kproxy.watch.api.errors import ApiError, Doing, answered, unanswered
from kproxy.watch.api.lean_import import lean_import
from kproxy.watch.api.server import ApiServer, MemoryFile

CONNECT_S = 10.0
_MAX_ERROR_BYTES = 64 << 10

# A peer that is gone is noticed within 45 s: without traffic by three probes, 15 s apart, and with
# unanswered data by TCP_USER_TIMEOUT. client-go notices in the same time, by pings of HTTP/2.
_GONE_AFTER_S = 45
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GONE_AFTER_S * 1000),
)

_HEADERS = {
    "User-Agent": f"kproxy/{__version__} (linux/{platform.machine()})",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # unpacking costs more than the network does
}

Requested = Callable[[str, str, str, float | None], None]


class Targets(Protocol):
    """Knows the target of the next request."""

    def current(self) -> ApiServer:
        """Return the target for a new request."""

    def after_refusal(self, target: ApiServer) -> ApiServer | None:
        """Return other credentials than those just refused, None if there are none.

        Raises ApiError.
        """

    def interrupt(self) -> None:
        """Let nobody wait any longer for a target."""


class Session:
    """Connections of one user of the API server; requests may come from several threads."""

    def __init__(self, targets: Targets, requested: Requested) -> None:
        self._targets = targets
        self._requested = requested
        self._sockets = _Sockets()
        self._lock = threading.Lock()
        self._manager: urllib3.PoolManager | None = None
        self._made_for: ApiServer | None = None  # the files that the manager's connections need

    @property
    def server(self) -> str:
        """The server's address, for messages."""
        return self._targets.current().server

    def request(
        self,
        doing: Doing,
        path: str,
        *,
        answer_s: float,
        query: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes | None = None,
        content_type: str = "application/json",
        endless: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Return the answer to a request, status 2xx, its body unread; the caller closes it.

        `endless`: a stream, which gets a connection of its own and is not timed.
        Credentials that are refused are read again, and tried at once if they changed.
        `answer_s` is how long to wait for the answer to begin, and between parts of its body.
        Raises ApiError.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        headers = dict(_HEADERS)
        if body is not None:
            headers["Content-Type"] = content_type
        if endless:
            headers["Connection"] = "close"
        ask = _Ask(doing, method, url, headers, body, answer_s, endless)
        target = self._targets.current()
        response = self._send(target, ask)
        if response.status == 401:
            newer = self._targets.after_refusal(target)
            if newer is not None:
                response.close()
                target = newer
                response = self._send(target, ask)
        if not 200 <= response.status < 300:
            raise _failure(target, ask, response)
        return response

    def close(self) -> None:
        """End every request in flight and refuse new ones. From any thread, at any time."""
        self._targets.interrupt()
        self._sockets.close()
        with self._lock:
            if self._manager is not None:
                self._manager.clear()

    def _send(self, target: ApiServer, ask: _Ask) -> urllib3.BaseHTTPResponse:
        headers = urllib3.HTTPHeaderDict(ask.headers)
        if target.authorization:
            headers["Authorization"] = target.authorization
        for name, value in target.impersonation:
            headers.add(name, value)
        started = time.monotonic()
        code = "<error>"  # as client-go has it in its metrics
        try:
            response = self._manager_for(target).request(
                ask.method,
                target.server.rstrip("/") + ask.url,
                body=ask.body,
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=ask.answer_s),
                retries=False,
                preload_content=False,
            )
            code = str(response.status)
        except urllib3.exceptions.HTTPError as error:
            raise unanswered(
                ask.doing,
                target.server,
                error,
                ca_file="" if target.ca is None else target.ca.origin,
                server_name=target.server_name,
            ) from error
        finally:
            took_s = None if ask.endless else time.monotonic() - started
            self._requested(ask.method, code, urlsplit(target.server).netloc, took_s)
        return response

    def _manager_for(self, target: ApiServer) -> urllib3.PoolManager:
        with self._lock:
            made_for = self._made_for
            if self._manager is None or made_for is None or made_for.transport != target.transport:
                if self._manager is not None:
                    self._manager.clear()
                self._manager = _manager(target, self._sockets)
                self._made_for = target
            return self._manager


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request without the credentials."""

    doing: Doing
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    answer_s: float
    endless: bool


def _failure(target: ApiServer, ask: _Ask, response: urllib3.BaseHTTPResponse) -> ApiError:
    """Return what an answer other than 2xx means, and be done with it."""
    try:
        body = whole(
            response, most_bytes=_MAX_ERROR_BYTES, within_s=ask.answer_s, clock=time.monotonic
        )
    except (Broken, Silent, TooLong):
        body = b""
    response.close()
    secret = target.authorization.partition(" ")[2].encode()
    if secret:  # whoever answers might repeat what we sent
        body = body.replace(secret, b"...")
    return answered(ask.doing, target.server, response.status, response.headers, body)


class _Sockets:
    """The open sockets of a session, so that a thread waiting in one can be woken up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._closed = False

    def opened(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            self._open.add(sock)
            closed = self._closed
        if closed:
            _end(sock)
        return sock

    def close(self) -> None:
        with self._lock:
            self._closed = True
            waiting = list(self._open)
        for sock in waiting:
            _end(sock)


def _end(sock: socket.socket) -> None:
    # The method of SSLSocket would take the TLS state away under the thread that reads.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _manager(target: ApiServer, sockets: _Sockets) -> urllib3.PoolManager:
    """Return the package's own pool manager, whose connections tell of their sockets.

    `wire` of a connection is its socket, also after it was handed over to the last answer. A
    connection reads CA and client certificate when it is made, so `target` must live as long.
    """
    with lean_import():
        from kubernetes.client import Configuration
        from kubernetes.client.rest import RESTClientObject

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            self.wire = sockets.opened(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            self.wire = sockets.opened(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    if target.insecure:  # which is said where it is read, and not at every connection
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    proxy, proxy_authorization = split_user(target.proxy)
    configuration = Configuration(
        host=target.server,
        ssl_ca_cert=_path(target.ca),
        cert_file=_path(target.certificate),
        key_file=_path(target.key),
        verify_ssl=not target.insecure,
        tls_server_name=target.server_name or None,
        no_proxy="",
        proxy_headers={"Proxy-Authorization": proxy_authorization} if proxy_authorization else None,
        retries=False,
        socket_options=[*HTTPConnection.default_socket_options, *_SOCKET_OPTIONS],
    )
    configuration.proxy = proxy or None  # the argument None would mean that of the environment
    manager: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


def _path(file: MemoryFile | None) -> str | None:
    return None if file is None else file.path
