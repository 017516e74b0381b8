"""What all parts stand on at one size of cluster: the API server, and a node for each peer."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.answers import answering
from bench.api_server import ApiServer, ApiServerEnded, api_server
from bench.cluster import Cluster
from bench.load.frames import Frames
from bench.load.talk import FIRST_PORT, LAST_PORT, Talk
from bench.node import Node, PeerFailed, built_node
from bench.parameters import Parameters, Size
from bench.peers import KPROXY, PEERS
from bench.peers.peer import Peer
from bench.traffic import MOST_MOVES, WAYS, Way, services
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.commands import CommandFailed
from tests.support.waiting import NotInTime

FAILURES = (
    PeerFailed,
    ApiServerEnded,
    BackendError,
    CommandFailed,
    NotInTime,
    OSError,
    subprocess.SubprocessError,
)
"""How a peer, or a program that loads it, fails: it costs its own figures, not the run."""
_LINES = 3  # of what a program said at last


class Bed:
    """A context manager. `limit` hears why somebody could not be measured."""

    def __init__(
        self,
        parameters: Parameters,
        size: Size,
        *,
        folder: Path,
        limit: Callable[[str, str], None],
        frames: Frames,
    ) -> None:
        self.parameters = parameters
        self.size = size
        self.frames = frames
        self.cluster = Cluster(*size)
        self._folder = folder
        self._limit = limit
        self._closing = contextlib.ExitStack()
        self._talk: Talk | None = None
        self._nodes: list[Node] | None = None
        self._numbers = itertools.count()
        self._api: ApiServer | None = None
        self._moves = 0
        self._first_port = FIRST_PORT

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    @property
    def api(self) -> ApiServer:
        """The API server that everybody follows; it starts when it is needed."""
        if self._api is None:
            self._api = self._closing.enter_context(api_server(self.cluster, self._folder))
            self._api.put(*services())
        return self._api

    @property
    def talk(self) -> Talk:
        """Who calls over TCP; compiled when that is needed."""
        if self._talk is None:
            self._talk = Talk(self._folder)
        return self._talk

    @property
    def peers(self) -> Sequence[Peer]:
        """Those that were asked for and that can run here."""
        return [each for each in chosen(self.parameters) if not each.lacks()]

    @property
    def families(self) -> Sequence[Family]:
        """The IP families that were asked for."""
        return [Family(name) for name in self.parameters.families]

    @property
    def ways(self) -> Sequence[Way]:
        """The ways through a node that were asked for."""
        return [WAYS[path] for path in self.parameters.paths]

    def moves(self, number: int) -> range:
        """Return numbers of moves that nobody has used, or not for long."""
        if self._moves + number > MOST_MOVES:
            self._moves = 0
        self._moves += number
        return range(self._moves - number, self._moves)

    def first_port(self, number: int) -> int:
        """Return the first of so many source ports that nobody has used, or not for long.

        A datagram from a port that was used a moment ago belongs to a flow that is known.
        """
        if self._first_port + number - 1 > LAST_PORT:
            self._first_port = FIRST_PORT
        self._first_port += number
        return self._first_port - number

    def node(self, peer: Peer) -> contextlib.AbstractContextManager[Node]:
        """Return a fresh node for a peer, on which nothing runs yet."""
        folder = self._folder / f"node-{next(self._numbers)}"
        return built_node(peer, self.cluster, self.api, folder)

    @property
    def nodes(self) -> Sequence[Node]:
        """Nodes that forward, side by side, one for each peer: made when they are needed."""
        if self._nodes is None:
            self._nodes = []
            for peer in self.peers:
                with contextlib.ExitStack() as closing:
                    try:
                        node = closing.enter_context(self.node(peer))
                        node.start()
                        with answering(node.stage), node.stage.place.joined():
                            node.wait_until_ready()
                    except FAILURES as error:
                        self._limit(peer.name, f"it could not be measured: {reason(error)}")
                        continue
                    self._nodes.append(node)
                    self._closing.push(closing.pop_all())
        return self._nodes


def reason(failure: Exception) -> str:
    """Return what a failure says, with what the program said that failed."""
    said = None
    if isinstance(failure, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        said = failure.stderr or failure.output
    text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
    return " / ".join([str(failure), *text.strip().splitlines()[-_LINES:]])


def chosen(parameters: Parameters) -> list[Peer]:
    """Return whom the parameters name, in their order."""
    return [
        *(PEERS[name] for name in parameters.peers),
        *(KPROXY[name] for name in parameters.data_paths),
    ]
