"""Clients of the bench: what they say became of their connections."""

from __future__ import annotations

import subprocess

import pytest

from bench.load.talk import FIRST_PORT, Talk, told
from bench.stage import built_stage
from bench.traffic import Target, pod_address
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

_PORT, _HELD = 8090, 4
_SILENCE = """\
add table ip made
add chain ip made silence { type filter hook forward priority filter; }
"""


@pytest.fixture
def talk(tmp_path):
    return Talk(tmp_path)


@pytest.fixture
def stage():
    with built_stage() as made:
        yield made


def established(stage):
    with stage.far.entered():
        command = ["ss", "-Htn", "state", "established", f"( sport = :{_PORT} )"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return len(done.stdout.splitlines())


def silence(stage, *rules):
    lines = _SILENCE + "".join(f"add rule ip made silence {rule}\n" for rule in rules)
    with stage.node.entered():
        subprocess.run(["nft", "-f", "-"], input=lines, text=True, check=True)


def test_what_was_silenced_a_moment_before_the_end_is_not_held(stage, talk):
    address = pod_address(0)
    with talk.pod(stage.far, address, _PORT):
        target = Target(address, _PORT)
        held = talk.begin(stage, stage.client, [target], "hold", _HELD, LONGEST_S, FIRST_PORT)
        until(lambda: established(stage) == _HELD, within_s=LONGEST_S, what="connections")
        silence(stage, f"tcp sport {{ {FIRST_PORT}, {FIRST_PORT + 2} }} drop")
        held.terminate()
        lines = told(held)
    assert lines == ["Connection timed out", "held", "Connection timed out", "held"]


def test_a_connection_that_fails_costs_no_other(stage, talk):
    address = pod_address(0)
    silence(stage, f"tcp sport {FIRST_PORT + 1} reject with tcp reset")
    with talk.pod(stage.far, address, _PORT):
        opened = talk.connect(stage, stage.client, [Target(address, _PORT)], seconds=0.2)
    assert opened.connections > 2
    assert opened.failed == {"Connection refused": 1}


def test_a_client_that_opens_nothing_fails(stage, talk):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        talk.connect(stage, stage.client, [Target(pod_address(0), _PORT)], seconds=0.05)
    assert "Connection refused" in failed.value.stderr
