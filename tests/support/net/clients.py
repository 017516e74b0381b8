"""One connection attempt each, by TCP and by UDP."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Callable

from kproxy.core.addresses import family_of
from kproxy.core.objects import Protocol
from tests.support.net.loop import Loop
from tests.support.net.observed import Failed, Observed, Probe, Refused
from tests.support.net.resets import reset_on_close
from tests.support.net.responders import FAMILIES, decode_answer

_LARGEST_ANSWER = 4096

Report = Callable[[Observed], None]


class Attempt:
    """A connection attempt from a port of its own; `report` is called once, when it has ended.

    Made inside the sender's namespace, and registered in the loop.
    """

    def __init__(self, loop: Loop, probe: Probe, source_port: int, report: Report) -> None:
        self._loop = loop
        self._report = report
        stream = probe.protocol is Protocol.TCP
        kind = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
        self._socket = socket.socket(FAMILIES[family_of(probe.source)], kind | socket.SOCK_NONBLOCK)
        if stream:  # leaves no TIME_WAIT behind
            reset_on_close(self._socket)
        loop.watch(
            self._socket,
            self._connected if stream else self._readable,
            selectors.EVENT_WRITE if stream else selectors.EVENT_READ,
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((probe.source, source_port))
            code = self._socket.connect_ex((probe.destination, probe.port))
            if stream or code:
                self._check(code)
            else:
                self._socket.send(b"who are you?")
        except OSError as error:
            self._check(error.errno or 0)

    def give_up(self) -> None:
        """Close the socket; nothing is reported any more."""
        self._loop.close(self._socket)

    def _connected(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._check(code)
        if code == 0:
            self._loop.watch(self._socket, self._readable)

    def _readable(self) -> None:
        try:
            message = self._socket.recv(_LARGEST_ANSWER)
        except BlockingIOError:
            return
        except OSError as error:
            self._check(error.errno or 0)
            return
        self._end(decode_answer(message) if message else Failed("closed without an answer"))

    def _check(self, code: int) -> None:
        """Report an error.

        EPERM is a rule in the node's output that dropped the packet, ENOBUFS a program. ETIMEDOUT
        is nobody's answer: on a slow machine the kernel may give up before we do.
        """
        if code == errno.ECONNREFUSED:
            self._end(Refused())
        elif code == errno.ETIMEDOUT:
            self.give_up()
        elif code not in (0, errno.EINPROGRESS, errno.EPERM, errno.ENOBUFS):
            self._end(Failed(os.strerror(code)))

    def _end(self, observed: Observed) -> None:
        self.give_up()
        self._report(observed)
