"""Run the demo: about twenty seconds, then everything is gone. Exit code 1 if a request failed."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import click

from examples.demo import machine, traffic
from examples.demo.board import Board
from examples.demo.network import build
from examples.demo.plan import CONFIG, NODE_A, SHOP, Pod, callers, read_pods
from examples.demo.rollout import ENDS_AFTER_S, NEW, OLD, Rollout, events
from examples.demo.screen import Screen
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace

_MODES = ("iptables", "ipvs", "ebpf")
_READY_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 1.0
_SIGN_WITHIN_S = 0.2
# One of each family: they are programmed apart.
_SIGNS_OF_LIFE = (("10.96.10.1", 80), ("fd00:10:96::a03", 80))
_ASKED_FROM = "orders-1"  # a pod with addresses of both families
_TITLE = "kproxy: a shop on two nodes, node-a forwards with {mode}"


class AgentFailed(Exception):
    """kproxy ended, or did not get ready in time."""


class Pace(NamedTuple):
    """How many times as long everything takes, and how many times fewer requests a second."""

    slower: float
    fewer: float


@dataclass(frozen=True, slots=True)
class Play:
    """A rollout, `slower` times as slow, and who counts and shows what becomes of requests."""

    rollout: Rollout
    pods: dict[str, Pod]
    board: Board
    screen: Screen
    slower: float


@click.command()
@click.option("--mode", type=click.Choice(_MODES), default="iptables")
@click.option("--slower", default=1.0, help="Let everything take so many times as long.")
@click.option("--fewer", default=1.0, help="Let so many times fewer requests be sent a second.")
def main(mode: str, slower: float, fewer: float) -> None:
    """Show what kproxy does with a rollout, by one of its data paths."""
    sys.exit(show(mode, slower, fewer))


def show(mode: str, slower: float, fewer: float) -> int:
    """Build, run and tear down; return the exit code."""
    if os.geteuid() != 0:
        print("demo: making network namespaces needs root: sudo make demo", file=sys.stderr)
        return 2
    if machine.is_needed(mode):
        return machine.run(mode)
    with tempfile.TemporaryDirectory(prefix="kproxy-demo-") as folder:
        # The legacy tools lock one file for the whole host: this network is none of its business.
        os.environ["XTABLES_LOCKFILE"] = f"{folder}/xtables.lock"
        try:
            with _place(mode, Path(folder)) as place:
                return _show(mode, Pace(slower, fewer), place, Path(folder))
        except KeyboardInterrupt:
            return 130
        except AgentFailed as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1


@contextlib.contextmanager
def _place(mode: str, folder: Path) -> Iterator[Place | None]:
    """Yield where the programs of the eBPF data path live, None for one that has none."""
    if mode != "ebpf":
        yield None
        return
    with contextlib.closing(Place(folder)) as place:
        yield place


def _show(mode: str, pace: Pace, place: Place | None, folder: Path) -> int:
    manifests, log = folder / "shop", folder / "kproxy.log"
    shutil.copytree(SHOP, manifests)
    pods = read_pods(manifests)
    everybody = pods | {pod.name: pod for pod in NEW}
    board = Board(callers(mode, pace.fewer))
    rollout = Rollout(manifests, pods, board)
    screen = Screen(board, everybody, _TITLE.format(mode=mode))
    with screen.waiting(f"{len(everybody) + 4} network namespaces"):
        machines = build(everybody.values())
    command = [sys.executable, "-m", "kproxy", "run", "--manifests", str(manifests)]
    command += ["--config", str(CONFIG), "--proxy-mode", mode, "--node-name", NODE_A]
    command += place.options if place else ()
    plan = traffic.Plan(board.callers, pace.slower * _ANSWER_WITHIN_S)
    agent_there = _agent(command, machines[NODE_A], log)
    with _traffic(machines, plan, place) as orders, agent_there as agent:
        for pod in pods.values():
            orders.send(traffic.Start(pod))
        with screen.waiting("kproxy run, until the first packets pass"):
            _wait_until_ready(agent, machines[_ASKED_FROM], log, pace.slower)
        orders.send(traffic.Ask())
        with screen:
            screen.begin()
            _play(Play(rollout, pods, board, screen, pace.slower), orders)
    screen.finish(log.read_text())
    return 1 if board.failed or not board.sent else 0


def _play(play: Play, orders: Connection) -> None:
    """Let the rollout happen on time while requests are counted."""
    board, screen = play.board, play.screen
    began_s = time.monotonic()
    ahead = list(events({name: play.pods[name] for name in OLD}, play.slower))
    next_frame_s = began_s
    while (after_s := time.monotonic() - began_s) < play.slower * ENDS_AFTER_S:
        if ahead and ahead[0].after_s <= after_s:
            event = ahead.pop(0)
            for order in play.rollout.carry_out(event):
                orders.send(order)
            screen.happened(event)
        if orders.poll(0.01):
            board.take(orders.recv())
        if time.monotonic() >= next_frame_s:
            screen.refresh()
            next_frame_s = time.monotonic() + screen.frame_s
    orders.send(traffic.End())
    with contextlib.suppress(EOFError):
        while True:
            board.take(orders.recv())


@contextlib.contextmanager
def _traffic(
    machines: dict[str, Namespace], plan: traffic.Plan, place: Place | None
) -> Iterator[Connection]:
    """Run the traffic process, in the cgroup of the place; yield the line to it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_traffic, args=(machines, plan, ours, theirs))
    with place.joined() if place else contextlib.nullcontext():
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _run_traffic(
    machines: dict[str, Namespace], plan: traffic.Plan, ours: Connection, theirs: Connection
) -> None:
    ours.close()  # else this process would never see the parent's end of the line go away
    traffic.run(machines, plan, theirs)


@contextlib.contextmanager
def _agent(command: list[str], node: Namespace, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run kproxy on node-a, as an operator would; end it by SIGTERM."""
    with log.open("wb") as output, node.entered():
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield agent
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait()


def _wait_until_ready(
    agent: subprocess.Popen[bytes], client: Namespace, log: Path, slower: float
) -> None:
    """Return when kproxy says so, and packets pass. Raises AgentFailed."""
    signs = [
        functools.partial(_says, log, "ready: "),
        *(
            functools.partial(_passes, client, *sign, within_s=slower * _SIGN_WITHIN_S)
            for sign in _SIGNS_OF_LIFE
        ),
    ]
    deadline_s = time.monotonic() + slower * _READY_WITHIN_S
    while signs:
        if signs[0]():
            signs.pop(0)
            continue
        if agent.poll() is not None:
            said = log.read_text()
            raise AgentFailed(f"kproxy ended with exit code {agent.returncode}:\n{said}")
        if time.monotonic() > deadline_s:
            raise AgentFailed(f"it is not ready, or nothing passes:\n{log.read_text()}")
        time.sleep(0.02)


def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


def _passes(client: Namespace, address: str, port: int, *, within_s: float) -> bool:
    with client.entered():
        try:
            socket.create_connection((address, port), timeout=within_s).close()
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
