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
from multiprocessing.connection import Connection
from pathlib import Path

import click

from examples.demo import traffic
from examples.demo.board import Board
from examples.demo.network import build
from examples.demo.plan import CONFIG, NODE_A, SHOP, Pod, read_pods
from examples.demo.rollout import ENDS_AFTER_S, NEW, OLD, Rollout, events
from examples.demo.screen import Screen
from tests.support.ebpf.place import Place
from tests.support.net.namespace import Namespace

_READY_WITHIN_S = 60.0
# One of each family: they are programmed apart.
_SIGNS_OF_LIFE = (("10.96.10.1", 80), ("fd00:10:96::a03", 80))
_ASKED_FROM = "orders-1"  # a pod with addresses of both families
_TITLE = "kproxy: a shop on two nodes, node-a forwards with {mode}"


class AgentFailed(Exception):
    """kproxy ended, or did not get ready in time."""


@click.command()
@click.option("--mode", type=click.Choice(["iptables", "ebpf"]), default="iptables")
def main(mode: str) -> None:
    """Show what kproxy does with a rollout, by one of its data paths."""
    sys.exit(show(mode))


def show(mode: str) -> int:
    """Build, run and tear down; return the exit code."""
    if os.geteuid() != 0:
        print("demo: making network namespaces needs root: sudo make demo", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="kproxy-demo-") as folder:
        # The legacy tools lock one file for the whole host: this network is none of its business.
        os.environ["XTABLES_LOCKFILE"] = f"{folder}/xtables.lock"
        manifests = Path(folder) / "shop"
        shutil.copytree(SHOP, manifests)
        try:
            with _place(mode, Path(folder)) as place:
                return _show(mode, place, manifests, Path(folder) / "kproxy.log")
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


def _show(mode: str, place: Place | None, manifests: Path, log: Path) -> int:
    pods = read_pods(manifests)
    everybody = pods | {pod.name: pod for pod in NEW}
    board = Board()
    rollout = Rollout(manifests, pods, board)
    screen = Screen(board, everybody, _TITLE.format(mode=mode))
    with screen.waiting(f"{len(everybody) + 4} network namespaces"):
        machines = build(everybody.values())
    command = [sys.executable, "-m", "kproxy", "run", "--manifests", str(manifests)]
    command += ["--config", str(CONFIG), "--proxy-mode", mode, "--node-name", NODE_A]
    command += place.options if place else ()
    with _traffic(machines, place) as orders, _agent(command, machines[NODE_A], log) as agent:
        for pod in pods.values():
            orders.send(traffic.Start(pod))
        with screen.waiting("kproxy run, until the first packets pass"):
            _wait_until_ready(agent, machines[_ASKED_FROM], log)
        orders.send(traffic.Ask())
        with screen:
            screen.begin()
            _play(rollout, pods, board, screen, orders)
    screen.finish(log.read_text())
    return 1 if board.failed or not board.sent else 0


def _play(
    rollout: Rollout, pods: dict[str, Pod], board: Board, screen: Screen, orders: Connection
) -> None:
    """Let the rollout happen on time while requests are counted."""
    began_s = time.monotonic()
    ahead = list(events({name: pods[name] for name in OLD}))
    next_frame_s = began_s
    while (after_s := time.monotonic() - began_s) < ENDS_AFTER_S:
        if ahead and ahead[0].after_s <= after_s:
            event = ahead.pop(0)
            for order in rollout.carry_out(event):
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
def _traffic(machines: dict[str, Namespace], place: Place | None) -> Iterator[Connection]:
    """Run the traffic process, in the cgroup of the place; yield the line to it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_traffic, args=(machines, ours, theirs))
    with place.joined() if place else contextlib.nullcontext():
        process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _run_traffic(machines: dict[str, Namespace], ours: Connection, theirs: Connection) -> None:
    ours.close()  # else this process would never see the parent's end of the line go away
    traffic.run(machines, theirs)


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


def _wait_until_ready(agent: subprocess.Popen[bytes], machine: Namespace, log: Path) -> None:
    """Return when kproxy says so, and packets pass. Raises AgentFailed."""
    signs = [
        functools.partial(_says, log, "ready: "),
        *(functools.partial(_passes, machine, *sign) for sign in _SIGNS_OF_LIFE),
    ]
    deadline_s = time.monotonic() + _READY_WITHIN_S
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


def _passes(machine: Namespace, address: str, port: int) -> bool:
    with machine.entered():
        try:
            socket.create_connection((address, port), timeout=0.2).close()
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
