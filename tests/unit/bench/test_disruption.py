"""What happens to a proxy while clients are watched."""

from __future__ import annotations

import pytest

from bench.parts.disruption import EVENTS


class Node:
    """Notes what is done with its proxy."""

    def __init__(self):
        self.steps = []

    def __getattr__(self, step):
        return lambda: self.steps.append(step)


@pytest.mark.parametrize(
    ("event", "ends"), [("a restart of the proxy", "stop"), ("a kill -9", "kill")]
)
def test_a_proxy_is_there_again_only_when_it_has_written_its_rules(event, ends):
    node = Node()
    EVENTS[event](node, None)
    assert node.steps == [ends, "start", "wait_until_written"]
