"""Endpoints that tell their address, and a client that asks for it."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

from bench.cluster import ENDPOINT_PORT, SERVICE_PORT
from bench.stage import Stage
from tests.support.waiting import SLOWER

_ANSWERED_WITHIN_S = 0.2 * SLOWER
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def who_answers(stage: Stage, cluster_ip: str) -> str | None:
    """Connect to a clusterIP; return the address of the endpoint, None if there was no answer."""
    with stage.client.entered():
        client = socket.socket()
    with client:
        client.settimeout(_ANSWERED_WITHIN_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        try:
            client.connect((cluster_ip, SERVICE_PORT))
            return client.recv(64).decode() or None
        except OSError:
            return None


class _TellAddress(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(self.request.getsockname()[0].encode())
            self.request.recv(1)  # the client resets: no TIME_WAIT stays here


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 1024
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def answering(stage: Stage) -> Iterator[None]:
    """Let every endpoint answer with its own address."""
    with stage.far.entered():
        server = _Server(("0.0.0.0", ENDPOINT_PORT), _TellAddress)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
