"""Clients and servers, compiled: an interpreter would be slower than any proxy."""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import ENDPOINT_PORT
from bench.stage import Stage
from bench.traffic import Target
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

# What sends and answers ends with us, also if we are killed, and is not made to wait by whatever
# else this machine does.
UNDISTURBED = ("setpriv", "--pdeathsig", "KILL", "chrt", "--fifo", "10")
FIRST_PORT, LAST_PORT = 10_000, 65_535
PORTS = LAST_PORT - FIRST_PORT + 1
_SOURCES = Path(__file__).parent
_WITHIN_S = 60.0 * SLOWER


@dataclass(frozen=True, slots=True)
class Opened:
    """How many connections were opened in how many seconds, and which errors others had."""

    connections: int
    seconds: float
    failed: Counter[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """Seconds until each answer, and why others had none: an error and how often."""

    answered_s: Sequence[float]
    unanswered: Counter[str]


class Talk:
    """The programs `talk` and `serve`."""

    def __init__(self, folder: Path) -> None:
        """Compile them into a folder. Raises CalledProcessError, with what gcc said above."""
        self._client, self._server = folder / "talk", folder / "serve"
        for program in (self._client, self._server):
            source = _SOURCES / f"{program.name}.c"
            command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source]
            subprocess.run(list(map(str, command)), check=True)

    @contextlib.contextmanager
    def serving(self, *namespaces: Namespace) -> Iterator[None]:
        """Answer at every endpoint of these."""
        with contextlib.ExitStack() as closing:
            for each in namespaces:
                closing.enter_context(self._serving(each, ENDPOINT_PORT))
            yield

    def connect(
        self, stage: Stage, client: Namespace, targets: Sequence[Target], *, seconds: float
    ) -> Opened:
        """Open connections one after the other.

        Raises CalledProcessError, also if none was opened, and TimeoutExpired.
        """
        connecting = self.begin(stage, client, targets, "connect", seconds, FIRST_PORT)
        *failures, opened = told(connecting)
        count, took_s = opened.split()
        return Opened(int(count), float(took_s), Counter(failures))

    def ask(
        self,
        stage: Stage,
        client: Namespace,
        targets: Sequence[Target],
        *,
        per_s: float,
        seconds: float,
        protocol: str = "TCP",
        first_port: int = FIRST_PORT,
    ) -> Asked:
        """Ask at an even pace. Raises CalledProcessError, TimeoutExpired."""
        asking = self.begin(stage, client, targets, "ask", protocol, per_s, seconds, first_port)
        return asked(asking)

    @contextlib.contextmanager
    def pod(self, far: Namespace, address: str, port: int) -> Iterator[subprocess.Popen[str]]:
        """Answer at one address; whoever kills the process ends the pod."""
        with self._serving(far, port, f"::ffff:{address}") as server:
            yield server

    def begin(
        self, stage: Stage, client: Namespace, targets: Sequence[Target], *arguments: object
    ) -> subprocess.Popen[str]:
        """Start a client and tell it whom to call; see `told` for what it says."""
        command = [*UNDISTURBED, str(self._client), *map(str, arguments)]
        if client is stage.client:
            command = stage.place.inside(*command)  # it is a pod of the node
        with client.entered():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write("".join(f"{each.address} {each.port}\n" for each in targets))
        process.stdin.flush()
        process.stdin.close()
        process.stdin = None
        return process

    @contextlib.contextmanager
    def _serving(self, namespace: Namespace, *where: object) -> Iterator[subprocess.Popen[str]]:
        command = [*UNDISTURBED, str(self._server), *map(str, where)]
        with (
            namespace.entered(),
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        ):
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            try:
                yield server
            finally:
                server.kill()


def told(client: subprocess.Popen[str]) -> list[str]:
    """Wait for a client, and return its lines. Raises CalledProcessError, TimeoutExpired."""
    with client:
        try:
            output, said = client.communicate(timeout=_WITHIN_S)
        except BaseException:
            client.kill()
            raise
    if client.returncode:
        raise subprocess.CalledProcessError(client.returncode, client.args, stderr=said)
    return output.splitlines()


def asked(client: subprocess.Popen[str]) -> Asked:
    """Wait for a client that asks. Raises CalledProcessError, TimeoutExpired."""
    answered_s, unanswered = [], Counter[str]()
    for line in told(client):
        if line.isdigit():
            answered_s.append(int(line) / 1e9)
        else:
            unanswered[line] += 1
    return Asked(answered_s, unanswered)
