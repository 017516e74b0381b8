"""kube-proxy's names stand for what they stand for there: same type, labels and bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kproxy.config.fields import Mode
from tests.unit.metrics.pages import Shape
from tests.unit.metrics.shown import shapes

TABLE = Path(__file__).with_name("upstream.txt")

# Of the other data paths, which tell them through their counters once they are there.
OF_DATA_PATHS_TO_COME = {
    Mode.NFTABLES: {
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
        "kubeproxy_nftables_localhost_nodeport_listeners",
        "kubeproxy_nftables_localhost_nodeport_listener_creation_failures_total",
        "kubeproxy_nftables_localhost_nodeport_rejected_packets_total",
    },
    Mode.IPVS: {"kubeproxy_sync_proxy_rules_iptables_restore_failures_total"},
}


def written_down(mode):
    """Return the shapes that a mode's page has to show."""
    bounds, found = {"-": ()}, {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("# bounds "):
            name, _, numbers = line.removeprefix("# bounds ").partition(" = ")
            bounds[name] = tuple(numbers.split())
        elif line and not line.startswith("#"):
            name, kind, labels, of, modes = (part.strip() for part in line.split("|"))
            needed = {"iptables", "nftables"} if mode is Mode.EBPF else {mode.value}
            if needed <= set(modes.split()):
                found[name] = Shape(kind, frozenset(labels.split()) - {"-"}, bounds[of])
    return found


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_shows_what_kube_proxy_shows_in_it_and_nothing_of_another_mode(mode):
    wanted, shown = written_down(mode), shapes(mode)
    assert {name: shape for name, shape in shown.items() if not name.startswith("kproxy_")} == {
        name: shape
        for name, shape in wanted.items()
        if name not in OF_DATA_PATHS_TO_COME.get(mode, ())
    }


def test_the_table_covers_every_mode():
    assert len(written_down(Mode.IPTABLES)) == 34
    assert {*written_down(Mode.NFTABLES)} - {*written_down(Mode.EBPF)} == {
        *OF_DATA_PATHS_TO_COME[Mode.NFTABLES],
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
    }
