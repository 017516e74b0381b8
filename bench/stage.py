"""A node under test between clients and everything behind it.

::

    client 10.254.0.2 ────┐
                          ├── [ node 192.0.2.1 ] ── far, which answers at every endpoint's address
    outside 203.0.113.2 ──┘

The client is a pod of the node: its connections to clusterIPs are not masqueraded, and its
processes are in the node's cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.cluster import ENDPOINT_RANGE, ENDPOINT_RANGE6, NODE_ADDRESS, NODE_ADDRESS6
from bench.links import forward_packets, ip, join, prepare, receive_by_polling
from tests.support.ebpf.on_node import inhabited
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

CLIENT, CLIENT6 = "10.254.0.2", "fd00:254::2"
OUTSIDE, OUTSIDE6 = "203.0.113.2", "2001:db8:113::2"
_GATEWAY = "10.254.0.1"
_FAR = "198.18.0.2"
_NODE_TO_FAR = "198.18.0.1"
_NODE_TO_OUTSIDE = "203.0.113.1"
_GATEWAY6 = "fd00:254::1"
_FAR6 = "fd00:198::2"
_NODE_TO_FAR6 = "fd00:198::1"
_NODE_TO_OUTSIDE6 = "2001:db8:113::1"
EBPF = "ebpf"
IPVS = "ipvs"  # on a kernel that has it
_SAMPLE_EVERY_S = 0.1  # a sample costs milliseconds, in which the proxy may get no memory
_ENDED_WITHIN_S = 30.0 * SLOWER
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stage:
    """Four namespaces, and where the node's eBPF programs live."""

    client: Namespace
    outside: Namespace
    node: Namespace
    far: Namespace
    place: Place

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All of them."""
        return (self.client, self.outside, self.node, self.far)


@contextlib.contextmanager
def built_stage() -> Iterator[Stage]:
    """Make the namespaces and connect them; take all of it away at the end."""
    with contextlib.ExitStack() as closing:
        scratch = closing.enter_context(tempfile.TemporaryDirectory(prefix="kproxy-bench-"))
        place = Place(Path(scratch))
        closing.callback(place.close)
        stage = Stage(
            client=_namespace("client", closing),
            outside=_namespace("outside", closing),
            node=_namespace("node", closing),
            far=_namespace("far", closing),
            place=place,
        )
        _connect(stage)
        closing.enter_context(inhabited(stage.client))
        yield stage


def _namespace(name: str, closing: contextlib.ExitStack) -> Namespace:
    made = Namespace(name)
    closing.callback(made.close)
    return made


def _connect(stage: Stage) -> None:
    for namespace in stage.namespaces:
        prepare(namespace)
        namespace.sysctl("net/core/somaxconn", 65535)
    forward_packets(stage.node)
    for name in ("client", "outside", "far"):
        join(stage.node, name, getattr(stage, name))
        receive_by_polling(stage.node, name)
    ip(
        stage.node,
        [
            f"addr add {NODE_ADDRESS}/32 dev lo",
            f"addr add {_GATEWAY}/30 dev client",
            f"addr add {_NODE_TO_OUTSIDE}/30 dev outside",
            f"addr add {_NODE_TO_FAR}/30 dev far",
            f"route add {ENDPOINT_RANGE} via {_FAR}",
            f"addr add {NODE_ADDRESS6}/128 dev lo",
            f"addr add {_GATEWAY6}/64 dev client",
            f"addr add {_NODE_TO_OUTSIDE6}/64 dev outside",
            f"addr add {_NODE_TO_FAR6}/64 dev far",
            f"route add {ENDPOINT_RANGE6} via {_FAR6}",
        ],
    )
    ip(
        stage.client,
        [
            f"addr add {CLIENT}/30 dev eth0",
            f"addr add {CLIENT6}/64 dev eth0",
            f"route add default via {_GATEWAY}",
            f"route add default via {_GATEWAY6}",
        ],
    )
    ip(
        stage.outside,
        [
            f"addr add {OUTSIDE}/30 dev eth0",
            f"addr add {OUTSIDE6}/64 dev eth0",
            f"route add default via {_NODE_TO_OUTSIDE}",
            f"route add default via {_NODE_TO_OUTSIDE6}",
        ],
    )
    # A datagram is answered from the address that it was sent to, which no device has.
    stage.far.sysctl("net/ipv6/ip_nonlocal_bind", 1)
    ip(
        stage.far,
        [
            f"addr add {_FAR}/30 dev eth0",
            f"route add default via {_NODE_TO_FAR}",
            f"route add local {ENDPOINT_RANGE} dev lo",
            f"addr add {_FAR6}/64 dev eth0",
            f"route add default via {_NODE_TO_FAR6}",
            f"route add local {ENDPOINT_RANGE6} dev lo",
        ],
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the agent alone, and at most with all its children together (proportional set size)."""

    steady_mb: float
    peak_with_children_mb: float


class Agent:
    """A running proxy, looked at from outside through /proc.

    Its peak of memory is known of the time in which it is `watched`, which costs CPU.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._most_kb = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Note the most memory that it and its children use during the body."""
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(over,))
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def cpu_s(self) -> float:
        """Return the CPU time of the agent and of its children that ended."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        ticks = text.rpartition(")")[2].split()[11:15]
        return sum(map(int, ticks)) / _TICKS_PER_S

    def memory(self) -> Memory:
        """Return what it uses now, and the most it used."""
        steady_kb = _pss_kb(self._process.pid)
        return Memory(_mb(steady_kb), _mb(max(steady_kb, self._most_kb)))

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it by SIGTERM; by SIGKILL if it takes too long."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self._process.send_signal(number)
        try:
            self._process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self, over: threading.Event) -> None:
        """Note the largest sum of resident memory, pages that several share counted once (PSS)."""
        while not over.wait(_SAMPLE_EVERY_S):
            self._most_kb = max(self._most_kb, _pss_with_children_kb(self._process.pid))


def _pss_with_children_kb(pid: int) -> int:
    """Return the memory of a process and its children.

    One that is only being started shares its parent's, all of it, until it has another command.
    """
    own = _command_line(pid)
    family = _family_of(pid)
    return _pss_kb(next(family)) + sum(_pss_kb(p) for p in family if _command_line(p) != own)


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _family_of(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family_of(int(child))


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):  # it may have ended meanwhile
        return _fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss", 0)
    return 0


def _fields(file: Path) -> dict[str, int]:
    """Return the numbers of a /proc file of `Name: number kB` lines."""
    fields = {}
    for line in file.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            fields[name] = int(words[0])
    return fields


def _mb(kilobytes: int) -> float:
    return round(kilobytes / 1024, 1)
