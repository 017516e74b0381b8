"""What an operator's day costs clients: how many of their connections are refused, lost or cut.

While clients open connections at an even pace and talk over others that they hold, through a
clusterIP and through a NodePort at once, something happens on the node:

- *a rolling restart*: pod after pod is replaced: a new one is ready, the old one is terminating and
  exits at once, as a process does that knows no SIGTERM. Held connections to it are cut by that.
- *a restart of the proxy*: SIGTERM, and a new process once the old one has ended: an update.
- *a kill -9*: the same by SIGKILL.
- *flushed tables*: somebody flushes all rules of iptables, both variants, and of nftables.
- *a swap from kube-proxy*: on a fresh node where the real one runs, in ipvs mode for that data
  path, else in iptables mode, it is ended by SIGTERM, and kproxy takes over.
- *a swap back to kube-proxy*: kproxy is ended, kube-proxy started, and `kproxy cleanup` run once
  kube-proxy has written its rules. In mode ebpf that cuts what programs at devices translate, as
  deploy/ebpf.md says of the way in a hurry; the way by iptables mode cuts nothing.

A connection is *refused* if it is told so at once, *cut* if it was open and is reset, and *lost* if
there is no answer within two seconds, or no way. Clients are watched until the new proxy has
written its rules, and new connections have been answered for half a second: for seconds, if they
are not; if they are not then, the losses go on, and a limit says so.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from bench.answers import answering
from bench.bed import Bed
from bench.load.quantiles import quantiles
from bench.load.talk import FIRST_PORT, Asked, asked, told
from bench.load.tracking import forget
from bench.model import Value
from bench.node import Node, PeerFailed
from bench.parameters import Parameters, Size
from bench.part import Finding, Found, Limited, Measure, Part, Spread, Visit, circumstances
from bench.peers.peer import Peer
from bench.traffic import (
    MOST_PODS,
    POD_PORT,
    Way,
    ends,
    pod_address,
    pods_service,
    pods_target,
)
from tests.support.waiting import LONGEST_S, until

REFUSED = Measure("new connections refused", "1", "less")
LOST = Measure("new connections lost", "1", "less")
CUT = Measure("new connections cut", "1", "less")
HELD_CUT = Measure("held connections cut", "1", "less")
LATENCY = Measure("request latency meanwhile", "ms", "less")
_WAYS = (Way.CLUSTER_IP, Way.NODE_PORT)
_PODS = 4
HELD = 40  # connections, of each way
_PER_S = 500
_BEFORE_S, _BETWEEN_PODS_S = 0.5, 0.4
_WATCHED_S = 4.0  # after an event, as long as connections fail
_ANSWERED_S, _LOOKS_PER_S = 0.5, 100
_HELD_FROM, _LOOKS_FROM = FIRST_PORT + 40_000, FIRST_PORT + 45_000  # new ones do not come so far
_MOST_S = 40_000 / _PER_S
_MOST_SERVICES = 1_000  # with more a restart takes longer than clients are watched
_TABLES = ("nat", "filter", "mangle", "raw")
_REFUSAL, _RESET = "Connection refused", "Connection reset by peer"


class Disruption(Part):
    """Connections that an event costs."""

    name = "disruption"
    about = (
        "connections refused, lost or cut: rolling restart, restart, kill and swap of the proxy, "
        "flush"
    )
    measures = (REFUSED, LOST, CUT, HELD_CUT, LATENCY)
    warms_up = False

    def sizes(self, parameters: Parameters) -> Sequence[Size]:
        """Return the largest at which a proxy is there again while clients are watched."""
        return [max(parameters.sizes, key=lambda size: (size.services <= _MOST_SERVICES, size))]

    def repeats(self, parameters: Parameters) -> int:
        """Return how often each event happens."""
        return parameters.slow_repeats

    @contextlib.contextmanager
    def visits(self, bed: Bed) -> Iterator[Sequence[Visit]]:
        """Let each event happen on each node that has a proxy, and swaps on fresh ones."""
        numbers = itertools.cycle(range(MOST_PODS))
        nodes = [node for node in bed.nodes if node.peer.translates]
        yield [
            Visit(
                node.peer.name,
                _circumstances(bed.size, event),
                functools.partial(_watched, bed, node, happens, numbers),
            )
            for node in nodes
            for event, happens in EVENTS.items()
        ] + [
            Visit(
                node.peer.name,
                _circumstances(bed.size, event),
                functools.partial(_swapped, bed, *swap, numbers),
            )
            for node in nodes
            for event, swap in swaps(node.peer).items()
        ]


def _circumstances(size: Size, event: str) -> dict[str, Value]:
    connections = {"connections_per_s": len(_WAYS) * _PER_S, "held": len(_WAYS) * HELD}
    return circumstances(size, event=event, protocol="TCP", **connections)


class _Pods:
    """The pods of a Service of its own, on one node. A context manager."""

    def __init__(self, bed: Bed, node: Node, numbers: Iterator[int]) -> None:
        self._bed = bed
        self._node = node
        self._numbers = numbers
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> _Pods:
        for _ in range(_PODS):
            self._start()
        self._bed.api.put(*pods_service(list(self._running)))
        try:
            until(lambda: self.answer(0.01), within_s=LONGEST_S, what="the pods answer")
        except AssertionError as error:
            self._closing.close()
            raise PeerFailed(str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def replace_all(self) -> None:
        """Replace pod after pod: the new one is ready before the old one is told to go."""
        for old in list(self._running):
            process = self._running.pop(old)
            self._start()
            self._bed.api.put(*pods_service(list(self._running), terminating=[old]))
            process.kill()
            time.sleep(_BETWEEN_PODS_S)
        self._bed.api.put(*pods_service(list(self._running)))

    def _start(self) -> None:
        address = pod_address(next(self._numbers))
        far = self._node.stage.far
        pod = self._bed.talk.pod(far, address, POD_PORT)
        self._running[address] = self._closing.enter_context(pod)

    def answer(self, seconds: float) -> bool:
        """Say whether every way leads to a pod, again and again for so long."""
        stage = self._node.stage
        asking = [
            self._bed.talk.begin(
                stage,
                ends(way, stage).sender,
                [pods_target(way)],
                *("ask", "TCP", _LOOKS_PER_S, seconds, _LOOKS_FROM),
            )
            for way in _WAYS
        ]
        return not any(asked(client).unanswered for client in asking)


def _replace_pods(_: Node, pods: _Pods) -> None:
    pods.replace_all()


def _restart(node: Node, _: _Pods) -> None:
    node.stop()
    node.start()
    node.wait_until_written()


def _kill(node: Node, _: _Pods) -> None:
    node.kill()
    node.start()
    node.wait_until_written()


def _flush(node: Node, _: _Pods) -> None:
    """Flush what others than the owner can flush by their usual tools."""
    with node.stage.node.entered():
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        for tool, table in itertools.product(("iptables-legacy", "ip6tables-legacy"), _TABLES):
            subprocess.run([tool, "-w", "-t", table, "-F"], check=True)


EVENTS: dict[str, Callable[[Node, _Pods], None]] = {
    "a rolling restart": _replace_pods,
    "a restart of the proxy": _restart,
    "a kill -9": _kill,
    "flushed tables": _flush,
}


FROM_KUBE_PROXY, BACK = "a swap from kube-proxy", "a swap back to kube-proxy"


def swaps(peer: Peer) -> dict[str, tuple[Peer, Peer]]:
    """Return by event who goes and who comes where a peer takes another one's place."""
    before = peer.predecessor
    if before is None or before.lacks():
        return {}
    return {FROM_KUBE_PROXY: (before, peer), BACK: (peer, before)}


def _swapped(bed: Bed, before: Peer, after: Peer, numbers: Iterator[int]) -> Iterator[Finding]:
    """Let one proxy take another one's place on a node of their own."""
    with bed.node(before) as node:
        node.start()
        _wait_until_ready(node)
        yield from _watched(bed, node, lambda node, _: node.become(after), numbers)


def _watched(
    bed: Bed, node: Node, happens: Callable[[Node, _Pods], None], numbers: Iterator[int]
) -> Iterator[Finding]:
    """Let something happen under new and held connections; return what it cost."""
    forget(node.stage.node)  # the ports of an earlier visit
    with _Pods(bed, node, numbers) as pods, contextlib.ExitStack() as closing:
        begin = functools.partial(_begun, closing, bed, node)
        began_s = time.monotonic()
        asking = [begin(way, "ask", "TCP", _PER_S, _MOST_S, FIRST_PORT) for way in _WAYS]
        holding = [begin(way, "hold", HELD, _MOST_S, _HELD_FROM) for way in _WAYS]
        time.sleep(_BEFORE_S)
        happens(node, pods)
        happened_s = time.monotonic()
        while not (is_over := pods.answer(_ANSWERED_S)):
            if time.monotonic() - happened_s > _WATCHED_S:
                break
        if not is_over:
            yield Limited(f"clients still failed when the watch of {_WATCHED_S:.0f} s ended")
        if time.monotonic() - began_s > _MOST_S:
            yield Limited("it was not over yet when clients ended")
        for client in (*asking, *holding):
            client.terminate()
        answers = [asked(client) for client in asking]
        kept = [line for client in holding for line in told(client)]
    yield from _counted(answers, kept)
    if happens is _flush:
        _repair(node)


def _begun(
    closing: contextlib.ExitStack, bed: Bed, node: Node, way: Way, *arguments: object
) -> subprocess.Popen[str]:
    """Start a client; it does not outlive `closing`."""
    sender = ends(way, node.stage).sender
    client = bed.talk.begin(node.stage, sender, [pods_target(way)], *arguments)
    closing.enter_context(client)
    closing.callback(client.kill)
    return client


def _counted(answers: Sequence[Asked], kept: Sequence[str]) -> Iterator[Finding]:
    why = Counter[str]()
    for each in answers:
        why.update(each.unanswered)
    yield Found(REFUSED, why[_REFUSAL])
    yield Found(CUT, why[_RESET])
    yield Found(LOST, why.total() - why[_REFUSAL] - why[_RESET])
    yield Found(HELD_CUT, sum(line != "held" for line in kept))
    if latencies := [1000 * each for answer in answers for each in answer.answered_s]:
        yield Spread(LATENCY, quantiles(latencies))


def _repair(node: Node) -> None:
    """Have the node forward again: a proxy may notice after minutes that its rules are gone."""
    node.stop()
    node.start()
    _wait_until_ready(node)


def _wait_until_ready(node: Node) -> None:
    with answering(node.stage), node.stage.place.joined():
        node.wait_until_ready()
