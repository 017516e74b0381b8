"""The feature gates, held against the real kube-proxy."""

import json
import re

import pytest

from kproxy.config.gates import wrong_gates
from kproxy.config.known_gates import Stage, gate_dependencies, known_gates
from tests.cluster.config.upstream import ours, run, theirs
from tests.support.cluster import programs
from tests.support.config.samples import HEADER

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def program():
    """Return the real kube-proxy."""
    return programs.find("kube-proxy")


@pytest.fixture
def complaints(program, tmp_path):
    """Return which of these gates the real kube-proxy complains of."""

    def ask(gates):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**HEADER, "featureGates": gates}))
        outcome = theirs(program, tmp_path, [f"--config={path}"])
        assert outcome.code == bool(outcome.said.count("command failed"))
        return set(
            re.findall(r"(?:set feature gate |\[|, |: )(\w+) (?:to|is enabled)", outcome.said)
        )

    return ask


def test_the_gates_in_the_making_are_those_of_the_help(program):
    listed = re.findall(
        r"^ +(\w+)=true\|false \((ALPHA|BETA) - default=(true|false)\)",
        run(program, "--help").stdout,
        re.MULTILINE,
    )
    assert set(listed) == {
        (gate.name, gate.stage.value, str(gate.default).lower())
        for gate in known_gates().values()
        if gate.stage in (Stage.ALPHA, Stage.BETA)
    }


def test_every_gate_may_be_set_to_its_default_and_is_written_in_the_same_order(program, tmp_path):
    chosen = {gate.name: gate.default for gate in known_gates().values()}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**HEADER, "featureGates": chosen}))
    their = theirs(program, tmp_path, [f"--config={path}"])
    our = ours(tmp_path, [f"--config={path}"])
    assert (their.code, our.code) == (0, 0)
    assert our.written == their.written


def test_the_locked_gates_are_those_of_kube_proxy(complaints):
    gates = known_gates().values()
    turned = {
        gate.name: not gate.default for gate in gates if gate.name not in ("AllAlpha", "AllBeta")
    }
    assert complaints(turned) == {gate.name for gate in gates if gate.locked}


@pytest.mark.parametrize(
    "chosen",
    [
        {"AllAlpha": True},
        {"AllBeta": True},
        {"AllAlpha": True, "AllBeta": True},
        {"AllBeta": False},
        {needed: False for each in gate_dependencies().values() for needed in each},
        {"GenericWorkload": True, "WorkloadWithJob": True},
    ],
)
def test_what_a_gate_needs_is_what_it_needs_upstream(complaints, chosen):
    known = known_gates()
    allowed = {name: v for name, v in chosen.items() if not known[name].locked}
    assert complaints(allowed) == {name for name, _ in wrong_gates(allowed)}
