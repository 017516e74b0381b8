"""Clients of the bench that call Services until the right endpoint answers each."""

from __future__ import annotations

import subprocess
import time

import pytest

from bench.answers import Calling, answering
from bench.stage import built_stage
from tests.support.waiting import LONGEST_S, SLOWER

pytestmark = pytest.mark.kernel

_ONE, _OTHER = "10.97.1.1", "10.97.1.2"
_HERE, _THERE = "10.128.0.5", "10.128.0.6"
_LOST = "600 bytes"  # the first ten calls of a Service
_RULES = f"""\
add table ip made
add chain ip made lossy {{ type filter hook prerouting priority mangle; }}
add chain ip made services {{ type nat hook prerouting priority dstnat; }}
add rule ip made lossy ip daddr {_OTHER} quota until {_LOST} drop
add rule ip made services ip daddr {_ONE} tcp dport 80 dnat to {_HERE}:8080
add rule ip made services ip daddr {_OTHER} tcp dport 80 dnat to {_THERE}:8080
"""


@pytest.fixture
def stage():
    with built_stage() as made, answering(made):
        with made.node.entered():
            subprocess.run(["nft", "-f", "-"], input=_RULES, text=True, check=True)
        yield made


def until_answered(calling):
    (answer,) = calling.answers(until_s=time.monotonic() + LONGEST_S)
    return answer


def test_calls_without_an_answer_delay_none_of_the_next(stage):
    began_s = time.monotonic()
    with Calling(stage) as calling:
        calling.expect(_OTHER)
        answer = until_answered(calling)
    assert answer.cluster_ip == _OTHER
    assert answer.heard_s - began_s < 0.9 * SLOWER, "TCP tries again after a second"


def test_only_the_expected_endpoint_counts(stage):
    with Calling(stage) as calling:
        calling.expect(_ONE, by=_THERE)
        assert calling.answers(until_s=time.monotonic() + 0.1) == []
        assert calling.waits
        calling.expect(_OTHER, by=_THERE)
        assert until_answered(calling).cluster_ip == _OTHER, "beside one that never answers so"
        calling.expect(_ONE, by=_HERE)
        assert until_answered(calling).cluster_ip == _ONE
        assert not calling.waits
