"""Clients and servers over TCP, compiled: an interpreter would be slower than any proxy."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import ENDPOINT_PORT
from bench.stage import Stage
from bench.traffic import Target
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

# What sends and answers is not made to wait by whatever else this machine does.
UNDISTURBED = ("chrt", "--fifo", "10")
FIRST_PORT, LAST_PORT = 10_000, 65_535
_SOURCE = Path(__file__).with_name("talk.c")
_WITHIN_S = 60.0 * SLOWER


@dataclass(frozen=True, slots=True)
class Opened:
    """How many connections were opened in how many seconds."""

    connections: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Seconds until each answer, and why others had none: an error and how often."""

    answered_s: Sequence[float]
    unanswered: dict[str, int]


class Talk:
    """The program."""

    def __init__(self, folder: Path) -> None:
        """Compile it into a folder. Raises CalledProcessError, with what gcc said above."""
        self._program = folder / "talk"
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self._program, _SOURCE]
        subprocess.run(list(map(str, command)), check=True)

    @contextlib.contextmanager
    def serving(self, *namespaces: Namespace) -> Iterator[None]:
        """Answer at every endpoint of these."""
        with contextlib.ExitStack() as closing:
            for each in namespaces:
                closing.enter_context(self._serving(each))
            yield

    def connect(
        self, stage: Stage, client: Namespace, targets: Sequence[Target], *, seconds: float
    ) -> Opened:
        """Open connections one after the other. Raises CalledProcessError, TimeoutExpired."""
        said = self._run(stage, client, targets, "connect", seconds, FIRST_PORT).split()
        return Opened(int(said[0]), float(said[1]))

    def ask(
        self,
        stage: Stage,
        client: Namespace,
        targets: Sequence[Target],
        *,
        per_s: float,
        seconds: float,
    ) -> Asked:
        """Ask at an even pace. Raises CalledProcessError, TimeoutExpired."""
        answered_s, unanswered = [], dict[str, int]()
        said = self._run(stage, client, targets, "ask", per_s, seconds, FIRST_PORT)
        for line in said.splitlines():
            if line.isdigit():
                answered_s.append(int(line) / 1e9)
            else:
                unanswered[line] = unanswered.get(line, 0) + 1
        return Asked(answered_s, unanswered)

    def _run(
        self, stage: Stage, client: Namespace, targets: Sequence[Target], *arguments: object
    ) -> str:
        command = [*UNDISTURBED, str(self._program), *map(str, arguments)]
        if client is stage.client:
            command = stage.place.inside(*command)  # it is a pod of the node
        with client.entered():
            done = subprocess.run(
                command,
                input="".join(f"{each.address} {each.port}\n" for each in targets),
                check=True,
                capture_output=True,
                text=True,
                timeout=_WITHIN_S,
            )
        return done.stdout

    @contextlib.contextmanager
    def _serving(self, namespace: Namespace) -> Iterator[None]:
        command = [*UNDISTURBED, str(self._program), "serve", str(ENDPOINT_PORT)]
        with (
            namespace.entered(),
            subprocess.Popen(command, stdout=subprocess.PIPE) as server,
        ):
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            try:
                yield
            finally:
                server.kill()
