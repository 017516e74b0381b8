"""What the feature gates of a configuration come to, by the rules of kube-proxy 1.37."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.config.known_gates import Stage, gate_dependencies, known_gates

EXTERNAL_IPS = "AllowServiceExternalIPs"
IPVS = "KubeProxyIPVS"
LOGGING_ALPHA = "LoggingAlphaOptions"
LOGGING_BETA = "LoggingBetaOptions"

_HONOURED = frozenset({EXTERNAL_IPS, IPVS, LOGGING_ALPHA, LOGGING_BETA})
_ALL = {"AllAlpha": Stage.ALPHA, "AllBeta": Stage.BETA}


def enabled_gates(chosen: Mapping[str, bool]) -> dict[str, bool]:
    """Return the state of every gate that kube-proxy knows; unknown names are left out."""
    gates = known_gates()
    enabled = {gate.name: gate.default for gate in gates.values()}
    for name, stage in _ALL.items():
        if name in chosen:
            members = (gate for gate in gates.values() if gate.stage is stage)
            enabled |= {gate.name: chosen[name] for gate in members}
    return enabled | {name: value for name, value in chosen.items() if name in gates}


def wrong_gates(chosen: Mapping[str, bool]) -> Iterator[tuple[str, str]]:
    """Yield the name of each gate that cannot be as chosen, and why not."""
    gates = known_gates()
    wrong = False
    for name, value in sorted(chosen.items()):
        gate = gates.get(name)
        if gate is None:
            yield name, "no feature gate of Kubernetes 1.37"
            wrong = True
        elif gate.locked and value is not gate.default:
            yield name, f"is locked to {str(gate.default).lower()}"
            wrong = True
    if wrong:
        return
    enabled = enabled_gates(chosen)
    for name, needed in gate_dependencies().items():
        missing = [each for each in needed if not enabled[each]]
        if enabled[name] and missing:
            yield name, f"is on, but needs {', '.join(missing)}"


def idle_gates(chosen: Mapping[str, bool]) -> list[str]:
    """Return the gates that were set to something else than their default and change nothing."""
    gates = known_gates()
    return sorted(
        name
        for name, value in chosen.items()
        if name in gates and value is not gates[name].default and name not in _HONOURED
    )
