"""A rollout of `web` as a Deployment does it: one new pod comes, one old pod drains and goes.

Only the manifest file changes, by an atomic rename; kproxy has to notice by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from examples.demo.board import Board, Step
from examples.demo.plan import NODE_A, NODE_B, Pod, documents
from examples.demo.traffic import Order, Start, Stop

SERVICE = "web"
_PORTS = (("TCP", 8080),)
OLD = ("web-v1-1", "web-v1-2", "web-v1-3")
NEW = (
    Pod("web-v2-1", NODE_A, ("10.244.1.14",), _PORTS),
    Pod("web-v2-2", NODE_B, ("10.244.2.15",), _PORTS),
    Pod("web-v2-3", NODE_B, ("10.244.2.16",), _PORTS),
)

_FIRST_STEP_S = 2.0
_POD_EVERY_S = 4.5
STARTING, READY, DRAINING, GONE = "starting", "ready", "draining", "gone"
_CONDITIONS = {
    STARTING: {"ready": False, "serving": False, "terminating": False},
    READY: {"ready": True, "serving": True, "terminating": False},
    DRAINING: {"ready": False, "serving": True, "terminating": True},
}
# When, since its pair's turn came, something happens: to the new pod (True) or to the old one.
_TURN = ((0.0, True, STARTING), (1.0, True, READY), (2.2, False, DRAINING), (4.0, False, GONE))
ENDS_AFTER_S = _FIRST_STEP_S + len(NEW) * _POD_EVERY_S + 1.5


@dataclass(frozen=True, slots=True)
class Event:
    """`pod` gets `state` so many seconds after the beginning."""

    after_s: float
    pod: Pod
    state: str


def events(pods: dict[str, Pod], slower: float) -> Iterator[Event]:
    """Return every step of the rollout, in order; each so many times later than written above."""
    for turn, (old, new) in enumerate(zip(OLD, NEW, strict=True)):
        begins_s = _FIRST_STEP_S + turn * _POD_EVERY_S
        for after_s, is_new, state in _TURN:
            yield Event(slower * (begins_s + after_s), new if is_new else pods[old], state)


class Rollout:
    """Carries out the events; owns the manifest of `web`."""

    def __init__(self, manifests: Path, pods: dict[str, Pod], board: Board) -> None:
        self._file = manifests / f"{SERVICE}.yaml"
        self._pods = {name: pods[name] for name in OLD} | {pod.name: pod for pod in NEW}
        self._board = board
        board.states.update(dict.fromkeys(OLD, READY))
        board.states.update({pod.name: "" for pod in NEW})

    def carry_out(self, event: Event) -> list[Order]:
        """Write the manifest as it is from now on; return what the traffic has to be told."""
        states = self._board.states
        states[event.pod.name] = event.state
        if event.state in (READY, DRAINING):
            leaving = event.state == DRAINING
            self._board.steps.append(Step(time.monotonic(), event.pod.name, leaving))
        self._write()
        if event.state == STARTING:
            return [Start(event.pod)]
        return [Stop(event.pod)] if event.state == GONE else []

    def _write(self) -> None:
        shown = {name: state for name, state in self._board.states.items() if state in _CONDITIONS}
        objects = documents(self._file)
        for item in objects:
            if item["kind"] == "EndpointSlice":
                item["endpoints"] = [
                    _endpoint(self._pods[name], state) for name, state in shown.items()
                ]
        new = self._file.with_name(f".{self._file.name}.new")
        new.write_text(yaml.safe_dump_all(objects, sort_keys=False))
        os.replace(new, self._file)


def _endpoint(pod: Pod, state: str) -> dict[str, Any]:
    return {
        "addresses": list(pod.addresses),
        "nodeName": pod.node,
        "conditions": _CONDITIONS[state],
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": "shop"},
    }
