"""A fake API server on this machine's loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tests.support.fake_api.api import ADMINISTRATOR, Api
from tests.support.fake_api.connection import Connection
from tests.support.fake_api.faults import Answer, Drop, Fault, Hang, Rule
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.requests import Request
from tests.support.fake_api.resources import RESOURCES
from tests.support.fake_api.store import Document
from tests.support.fake_api.tls import Authority, Tls
from tests.support.fake_api.watching import End, Stream
from tests.support.ports import keep, listening, port_of

PROXY_USER = "system:serviceaccount:kube-system:kube-proxy"
_LONGEST_S = 30.0
_STEPS_OF_ACCEPTING = 5  # rounds of the loop after which `_connected` knows every connection
T = TypeVar("T")


class FakeApi:
    """The server, and everything a test does to it. A context manager.

    Whatever is done from outside happens between two steps of the server, never in the middle.
    `token` is that of the proxy's ServiceAccount, `admin_token` may do everything and is spared
    all faults.
    """

    def __init__(self, authority: Authority | None = None) -> None:
        self._authority = authority or Authority()
        self.ca_pem = self._authority.ca_pem
        self._api = Api()
        self._rules: list[Rule] = []
        self._requests: list[Request] = []
        self._connections: dict[asyncio.Task[Any], asyncio.WriteTransport] = {}
        self._tls: ssl.SSLContext | None = None
        self._failures: list[Mapping[str, Any]] = []
        self._listener: asyncio.Server | None = None
        self._place = keep()
        self.port = port_of(self._place)
        self.url = f"https://127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._failed)
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake API server")
        self._thread.start()
        self.token = self.issue(PROXY_USER)
        self.admin_token = self.issue(ADMINISTRATOR)
        self.start()

    def __enter__(self) -> FakeApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it all. Fails if the server itself has failed meanwhile."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LONGEST_S)
        self._loop.close()
        self._place.close()
        assert not self._failures, self._failures

    # Being there.

    def start(self, tls: Tls = Tls.TRUSTED) -> None:
        """Listen, on the same port as ever."""
        self._run(self._start(tls))

    def stop(self) -> None:
        """Refuse connections, and drop those there are."""
        self._run(self._stop())

    def write_kubeconfig(
        self, file: Path, *, token: str | None = None, port: int | None = None
    ) -> Path:
        """Write the file by which the proxy, or the bearer of a token, finds the server.

        `port` is where it is reached on 127.0.0.1 if that is another port.
        """
        authority = base64.b64encode(self.ca_pem).decode()
        url = f"https://127.0.0.1:{port or self.port}"
        cluster = {"server": url, "certificate-authority-data": authority}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token or self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        file.write_text(json.dumps(content))
        return file

    # What it holds.

    @property
    def version(self) -> int:
        """Return the version of the last write."""
        return self._do(lambda: self._api.store.version)

    def put(self, resource: str, *documents: Document) -> list[Document]:
        """Create or replace objects and return them as they are stored.

        Takes what a real server would never store, too.
        """
        kind = RESOURCES[resource]
        return self._do(lambda: [self._api.put(kind, each).document() for each in documents])

    def delete(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object; cluster-scoped ones have the namespace ""."""
        self._do(lambda: self._api.delete(RESOURCES[resource], namespace, name))

    def objects(self, resource: str) -> list[Document]:
        """Return the objects that there are."""
        stored = self._do(lambda: self._api.store.objects(RESOURCES[resource]))
        return [each.document() for each in stored]

    def tick(self, writes: int = 1) -> None:
        """Let others write: the version moves, and nothing that is held here changes."""

        def move() -> None:
            self._api.store.version += writes

        self._do(move)

    def compact(self) -> None:
        """Forget the history: whoever resumes from before now gets 410."""
        self._do(self._api.store.compact)

    # Who may do what.

    def issue(self, user: str) -> str:
        """Return a new token of a user."""
        token = f"token-{secrets.token_hex(8)}"  # in YAML some digits alone are a number
        self._do(lambda: self._api.users.update({token: user}))
        return token

    def revoke(self, token: str) -> None:
        """Believe a token no more. Watches that are open go on, as in a real server."""
        self._do(lambda: self._api.users.pop(token))

    def forbid(self, resource: str, verbs: Iterable[str] = ("get", "list", "watch")) -> None:
        """Take permissions away from everybody but the administrator."""
        self._do(lambda: self._api.permissions.difference_update(_permissions(resource, verbs)))

    def permit(self, resource: str, verbs: Iterable[str] = ("list", "watch")) -> None:
        """Give permissions."""
        self._do(lambda: self._api.permissions.update(_permissions(resource, verbs)))

    def remove(self, resource: str) -> None:
        """Have no such resource, like a server that is too old for it."""
        self._do(lambda: self._api.missing.add(resource))

    def restore(self, resource: str) -> None:
        """Have it again."""
        self._do(lambda: self._api.missing.discard(resource))

    def serve_streaming_lists(self, streaming: Streaming) -> None:
        """Be as new or as old as this about `sendInitialEvents`."""

        def change() -> None:
            self._api.streaming = streaming

        self._do(change)

    # What was asked.

    @property
    def requests(self) -> list[Request]:
        """Return all requests but the administrator's, also those that a fault has answered."""
        return self._do(lambda: list(self._requests))

    def asked(self, resource: str, verb: str | None = None) -> list[Request]:
        """Return the requests for a resource."""
        return [r for r in self.requests if r.plural == resource and verb in (None, r.verb)]

    # Bad days.

    def next(
        self, resource: str | None, fault: Fault, *, verb: str | None = None, times: int = 1
    ) -> Rule:
        """Let the next requests fail; None is any resource, any verb."""
        rule = Rule(fault, resource, verb, times)
        self._do(lambda: self._rules.append(rule))
        return rule

    @contextlib.contextmanager
    def during(
        self, resource: str | None, fault: Fault, *, verb: str | None = None
    ) -> Iterator[Rule]:
        """Let all requests fail that come during the block."""
        rule = Rule(fault, resource, verb, None)
        self._do(lambda: self._rules.append(rule))
        try:
            yield rule
        finally:
            self._do(lambda: self._rules.remove(rule))

    def watching(self, resource: str) -> int:
        """Return how many watches are open."""
        return self._do(lambda: len(list(self._api.streams_of(RESOURCES[resource]))))

    def bookmark(self, resource: str) -> None:
        """Tell the version to open watches, if they asked for it."""
        self._each(resource, lambda stream: stream.bookmark(self._api.store.version))

    def say(self, resource: str, *lines: bytes) -> None:
        """Say anything at all to open watches."""
        self._each(resource, lambda stream: stream.say(b"".join(lines)))

    def end(self, resource: str) -> None:
        """End open watches in good order."""
        self._each(resource, lambda stream: stream.finish(End.CLEAN))

    def cut(self, resource: str, *, reset: bool = False, partial: bytes = b"") -> None:
        """Break the connections of open watches, if wanted within an event."""

        def cut(stream: Stream) -> None:
            if partial:
                stream.say(partial)
            stream.finish(End.RESET if reset else End.CUT)

        self._each(resource, cut)

    def freeze(self, resource: str) -> None:
        """Let open watches stay open and never say anything again."""
        self._each(resource, Stream.freeze)

    def at_once(self, happen: Callable[[], None]) -> None:
        """Let several of these things happen before the server does anything else."""
        self._do(happen)

    # How it is done.

    def _each(self, resource: str, act: Callable[[Stream], None]) -> None:
        def run() -> None:
            for stream in self._api.streams_of(RESOURCES[resource]):
                act(stream)

        self._do(run)

    def _serve(self, request: Request) -> tuple[Answer | Stream, Fault | None]:
        user = self._api.user_of(request)
        if user == ADMINISTRATOR:
            return self._api.answer(request, user), None  # a test that looks after its objects
        self._requests.append(replace(request, user=user or "", at_s=time.monotonic()))
        rules = (rule for rule in self._rules if rule.strikes(request.plural, request.verb))
        rule = next(rules, None)
        fault = None if rule is None else rule.use()
        if isinstance(fault, Answer):
            return fault, None
        if isinstance(fault, Hang) or (isinstance(fault, Drop) and not fault.late):
            return Answer(200, b""), fault  # nobody gets it, and nothing is done
        return self._api.answer(request, user), fault

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = transport
        try:
            if self._tls is not None:
                await writer.start_tls(self._tls)
            await self._talk(reader, writer)
        except OSError:
            transport.abort()  # the client did not like our certificate, or left
        except asyncio.CancelledError:
            return  # the server stops
        finally:
            del self._connections[task]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(
            reader,
            writer,
            serve=self._serve,
            opened=self._api.open,
            closed=self._api.streams.discard,
            version=lambda: self._api.store.version,
        )
        await connection.run()

    async def _start(self, tls: Tls) -> None:
        self._tls = self._authority.context(tls)
        self._listener = await asyncio.start_server(self._connected, sock=listening(self.port))

    async def _stop(self) -> None:
        if self._listener is not None:
            # Python 3.11 forgets a connection whose server is closed between accept() and the
            # making of its transport: it would stay open.
            for listener in self._listener.sockets:
                self._loop.remove_reader(listener.fileno())
            for _ in range(_STEPS_OF_ACCEPTING):
                await asyncio.sleep(0)
            self._listener.close()
            await self._listener.wait_closed()
            self._listener = None
        open_now = dict(self._connections)
        for task, transport in open_now.items():
            transport.abort()
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the next round

    def _failed(self, _: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Remember what went wrong here; a client that hangs up did nothing wrong."""
        if not isinstance(context.get("exception"), OSError):
            self._failures.append(context)

    def _do(self, work: Callable[[], T]) -> T:
        if threading.current_thread() is self._thread:
            return work()  # a fault that does something to the server

        async def step() -> T:
            return work()

        return self._run(step())

    def _run(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_LONGEST_S)


def _permissions(resource: str, verbs: Iterable[str]) -> set[tuple[str, str, str]]:
    return {(RESOURCES[resource].group, resource, verb) for verb in verbs}
