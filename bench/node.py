"""A node with what makes it forward: kproxy, or a peer."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.answers import Calling
from bench.api_server import ApiServer
from bench.cluster import Cluster
from bench.peers.peer import Home, Peer
from bench.stage import Agent, built_stage
from tests.support.cluster.relay import Relay
from tests.support.waiting import LONGEST_S

API_PORT = 6443
_METRICS_PORT = 10249
_WRITTEN = re.compile(
    r'^kubeproxy_sync_proxy_rules_last_timestamp_seconds\{ip_family="IPv4"\} [1-9]', re.MULTILINE
)
READY_WITHIN_S = 5 * LONGEST_S
_METRICS_PAUSE_S = 0.1
CHECKED_EVERY_S = 0.1
_NEVER_ALONE = ("setpriv", "--pdeathsig", "KILL")  # it ends with us, also if we are killed


class PeerFailed(Exception):
    """A peer did not do its work; the text says which, and the end of its log."""


class Node:
    """One node of its own; the process of its peer runs between `start` and `stop`."""

    def __init__(self, peer: Peer, home: Home, cluster: Cluster) -> None:
        self.peer = peer
        self.stage = home.stage
        self.cluster = cluster
        self._home = home
        self._log = home.folder / "log"
        self._agent: Agent | None = None

    def start(self) -> Agent | None:
        """Start the process, if the peer has one."""
        command = self.peer.command(self._home)
        if not command:
            return None
        with self._log.open("wb") as output, self.stage.node.entered():
            process = subprocess.Popen(
                [*_NEVER_ALONE, *command],
                env=self.peer.environment(self._home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._agent = Agent(process, self._log)
        return self._agent

    def wait_until_ready(self) -> None:
        """Wait until the first, the middle and the last Service answer. Raises PeerFailed."""
        if not self.peer.translates:
            return
        for number in sorted({0, self.cluster.services // 2, self.cluster.services - 1}):
            self._wait_for_answer(number)

    def _wait_for_answer(self, number: int) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        with Calling(self.stage) as calling:
            calling.expect(self.cluster.cluster_ip(number))
            while not calling.answers(until_s=time.monotonic() + CHECKED_EVERY_S):
                self.check(deadline_s, f"Service {number} does not answer")

    def wait_until_written(self) -> None:
        """Wait until its metrics say that rules were written. Raises PeerFailed.

        Clients cannot tell whose rules they meet while another proxy's are there.
        """
        deadline_s = time.monotonic() + READY_WITHIN_S
        while not _WRITTEN.search(self._metrics()):
            self.check(deadline_s, "it writes no rules")
            time.sleep(_METRICS_PAUSE_S)

    def _metrics(self) -> str:
        with self.stage.node.entered():
            server = http.client.HTTPConnection("127.0.0.1", _METRICS_PORT, timeout=LONGEST_S)
            with contextlib.closing(server), contextlib.suppress(ConnectionRefusedError):
                server.request("GET", "/metrics")
                return server.getresponse().read().decode()
        return ""  # nobody listens yet

    def become(self, peer: Peer) -> None:
        """End the process by SIGTERM, start another peer's in its place, and clean up after it.

        Returns when the new one's rules are written and the old one's are gone, as far as it is the
        old one's to remove them. Raises PeerFailed, CalledProcessError.
        """
        former = self.peer
        self.stop()
        self.peer = peer
        self.start()
        self.wait_until_written()
        if command := former.clean_up(self._home):
            environment = former.environment(self._home)
            with self.stage.node.entered():
                subprocess.run(command, env=environment, check=True, capture_output=True)

    def check(self, deadline_s: float, missing: str) -> None:
        """Raise PeerFailed if the process has ended by itself, or if the time is up."""
        if self._agent is not None and not self._agent.is_running():
            raise PeerFailed(f"{self.peer.name} has ended: {self._end()}")
        if time.monotonic() > deadline_s:
            raise PeerFailed(f"{self.peer.name}: {missing}: {self._end()}")

    def stop(self) -> None:
        """End the process by SIGTERM, as kubelet does."""
        if self._agent is not None:
            self._agent.stop()
            self._agent = None

    def kill(self) -> None:
        """End the process by SIGKILL."""
        if self._agent is not None:
            self._agent.kill()
            self._agent = None

    def _end(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return " / ".join(lines[-3:])


@contextlib.contextmanager
def built_node(peer: Peer, cluster: Cluster, api: ApiServer, folder: Path) -> Iterator[Node]:
    """Make a node whose API server is within reach; nothing runs on it yet."""
    folder.mkdir(parents=True)
    with (
        built_stage() as stage,
        Relay(api.port, port=API_PORT, entered=stage.node.entered),
    ):
        node = Node(peer, Home(stage, api.kubeconfig(API_PORT), folder), cluster)
        try:
            yield node
        finally:
            node.stop()
