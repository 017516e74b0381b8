"""Feature gates: what is on, what is refused, what means nothing here."""

from kproxy.config.gates import enabled_gates, idle_gates, wrong_gates
from kproxy.config.known_gates import Stage, gate_dependencies, known_gates


def test_no_name_is_there_twice():
    names = [name for name in known_gates()]
    gates = [gate for gate in known_gates().values()]
    assert len(names) == len(set(names)) == len(gates) == 254


def test_without_a_choice_each_gate_is_at_its_default_and_none_is_wrong():
    assert enabled_gates({}) == {gate.name: gate.default for gate in known_gates().values()}
    assert list(wrong_gates({})) == []


def test_every_gate_that_something_needs_exists():
    needed = {name for each in gate_dependencies().values() for name in each}
    assert needed | set(gate_dependencies()) <= set(known_gates())


def test_all_alpha_turns_on_what_was_not_chosen_by_name():
    enabled = enabled_gates({"AllAlpha": True, "NodeLifecycleConditions": False})
    alpha = {gate.name for gate in known_gates().values() if gate.stage is Stage.ALPHA}
    assert {name for name in alpha if not enabled[name]} == {"NodeLifecycleConditions"}
    assert enabled["CoordinatedLeaderElection"] is False, "beta, and off"


def test_an_unknown_gate_hides_what_it_would_need():
    assert list(wrong_gates({"Nobody": True, "WorkloadWithJob": True})) == [
        ("Nobody", "no feature gate of Kubernetes 1.37")
    ]


def test_a_gate_names_what_it_needs():
    assert list(wrong_gates({"WorkloadWithJob": True})) == [
        ("WorkloadWithJob", "is on, but needs GenericWorkload")
    ]


def test_a_locked_gate_may_be_set_to_what_it_is():
    assert list(wrong_gates({"NFTablesProxyMode": True})) == []
    assert list(wrong_gates({"NFTablesProxyMode": False})) == [
        ("NFTablesProxyMode", "is locked to true")
    ]


def test_only_what_was_changed_and_means_nothing_is_idle():
    chosen = {"NFTablesNetlink": False, "NativeHistograms": True, "LoggingAlphaOptions": True}
    assert idle_gates(chosen) == ["NFTablesNetlink"]
