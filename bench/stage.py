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
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.ebpf.compiler import CACHE
from bench.cluster import ENDPOINT_RANGE, NODE_ADDRESS, NODE_NAME, POD_RANGE
from bench.links import forward_packets, ip, join, prepare, receive_by_polling
from tests.support.ebpf.on_node import inhabited
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace
from tests.support.waiting import SLOWER

CLIENT = "10.254.0.2"
OUTSIDE = "203.0.113.2"
_GATEWAY = "10.254.0.1"
_FAR = "198.18.0.2"
_NODE_TO_FAR = "198.18.0.1"
_NODE_TO_OUTSIDE = "203.0.113.1"
IPTABLES = ("iptables-legacy", "iptables-nft")
EBPF = "ebpf"
IPVS = "ipvs"  # on a kernel that has it
COMPILING = "ebpf-compiling"  # it finds no bytecode from an earlier start
DATA_PATHS = (*IPTABLES, EBPF)
_HIDDEN = f'mkdir -p {CACHE} && mount -t tmpfs tmpfs {CACHE} && exec "$@"'
_WITHOUT_CACHE = ("unshare", "--mount", "sh", "-c", _HIDDEN, "sh")
_SAMPLE_EVERY_S = 0.02
_WITHIN_S = 120.0 * SLOWER
_ENDED_WITHIN_S = 30.0 * SLOWER
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CONFIG = f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: {POD_RANGE}
featureGates: {{KubeProxyIPVS: true}}
"""


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
        stage = Stage(
            client=Namespace("client"),
            outside=Namespace("outside"),
            node=Namespace("node"),
            far=Namespace("far"),
            place=Place(Path(scratch)),
        )
        closing.callback(stage.place.close)
        for each in stage.namespaces:
            closing.callback(each.close)
        _connect(stage)
        closing.enter_context(inhabited(stage.client))
        yield stage


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
        ],
    )
    ip(stage.client, [f"addr add {CLIENT}/30 dev eth0", f"route add default via {_GATEWAY}"])
    ip(
        stage.outside,
        [f"addr add {OUTSIDE}/30 dev eth0", f"route add default via {_NODE_TO_OUTSIDE}"],
    )
    ip(
        stage.far,
        [
            f"addr add {_FAR}/30 dev eth0",
            f"route add default via {_NODE_TO_FAR}",
            f"route add local {ENDPOINT_RANGE} dev lo",
        ],
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the agent alone, and at most with all its children together (proportional set size)."""

    steady_rss_mb: float
    steady_pss_mb: float
    peak_rss_mb: float
    peak_with_children_pss_mb: float


class Agent:
    """A running proxy, looked at from outside through /proc.

    Its peak of memory is known if it is `watched`, which costs CPU.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, *, watched: bool) -> None:
        self._process = process
        self._log = log
        self._most_kb = 0
        self._watching = watched
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def cpu_s(self) -> float:
        """Return the CPU time of the agent and of its children that ended."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        ticks = text.rpartition(")")[2].split()[11:15]
        return sum(map(int, ticks)) / _TICKS_PER_S

    def said(self) -> str:
        """Return all that it has logged so far."""
        return self._log.read_text()

    def wait_for(self, words: str, *, times: int = 1) -> float:
        """Wait until it has logged these words so often; return the seconds that it took."""
        began_s = time.monotonic()
        while self.said().count(words) < times:
            self.check()
            if time.monotonic() - began_s > _WITHIN_S:
                raise TimeoutError(f"never said {words!r}:\n{self.said()}")
            time.sleep(0.002)
        return time.monotonic() - began_s

    def check(self) -> None:
        """Raise RuntimeError with its log if the agent has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"kproxy ended:\n{self._log.read_text()}")

    def memory(self) -> Memory:
        """Return what it uses now, and the most it used."""
        pid = self._process.pid
        status = _fields(Path(f"/proc/{pid}/status"))
        rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
        return Memory(
            _mb(status["VmRSS"]),
            _mb(rollup["Pss"]),
            _mb(status["VmHWM"]),
            _mb(self._most_kb),
        )

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
        self._watching = False
        self._watcher.join()
        self._process.send_signal(number)
        try:
            self._process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self) -> None:
        """Note the largest sum of resident memory, pages that several share counted once (PSS)."""
        while self._watching:
            self._most_kb = max(self._most_kb, _pss_with_children_kb(self._process.pid))
            time.sleep(_SAMPLE_EVERY_S)


def of_manifests(manifests: Path) -> list[str]:
    """Return the options that make a folder of manifests the source."""
    return ["--manifests", str(manifests)]


def of_cluster(kubeconfig: Path) -> list[str]:
    """Return the options that make an API server the source."""
    return ["--kubeconfig", str(kubeconfig)]


@contextlib.contextmanager
def running_agent(stage: Stage, source: Sequence[str], data_path: str) -> Iterator[Agent]:
    """Run kproxy on the node; `source` are the options that say where its objects come from."""
    with (
        tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch,
        running(_command(stage, source, data_path, scratch), stage.node, scratch) as agent,
    ):
        yield agent


@contextlib.contextmanager
def running(command: Sequence[str], where: Namespace | None, scratch: str) -> Iterator[Agent]:
    """Run a program in a namespace, or just here, and watch what it uses."""
    log = Path(scratch) / "log"
    with log.open("wb") as output, where.entered() if where else contextlib.nullcontext():
        process = subprocess.Popen(
            command,
            env=_environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    agent = Agent(process, log, watched=True)
    try:
        yield agent
    finally:
        agent.stop()


def apply_once(stage: Stage, source: Sequence[str], data_path: str) -> None:
    """Program the node and leave the rules without an agent. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as scratch, stage.node.entered():
        command = [*_command(stage, source, data_path, scratch), "--once"]
        subprocess.run(command, env=_environment(scratch), check=True, stderr=subprocess.DEVNULL)


def _command(stage: Stage, source: Sequence[str], data_path: str, scratch: str) -> list[str]:
    config = Path(scratch) / "config.yaml"
    config.write_text(_CONFIG)
    mode, _, variant = data_path.partition("-")
    return [
        *(_WITHOUT_CACHE if data_path == COMPILING else ()),
        *(sys.executable, "-m", "kproxy", "run", "--proxy-mode", mode),
        *(*source, "--config", str(config), "--node-name", NODE_NAME),
        *(("--iptables-variant", variant) if mode == "iptables" else stage.place.options),
    ]


def _environment(scratch: str) -> dict[str, str]:
    # The legacy tools lock one file for the whole host, whatever the namespace.
    return {**os.environ, "XTABLES_LOCKFILE": f"{scratch}/xtables.lock"}


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
