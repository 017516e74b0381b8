"""What the host offers to this data path."""

from __future__ import annotations

from backends.iptables.driver import parts
from backends.iptables.driver.ours import OURS
from backends.kernel import node
from backends.kernel.xtables import findings
from backends.kernel.xtables.findings import Needs
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Finding


def check(family: Family, *, wanted: Variant | None = None) -> list[Finding]:
    """Return what was found, one line for each subject; a miss comes with its remedy."""
    needs = Needs(OURS, parts.parts(family), parts.make_trial_set, parts.CONSEQUENCES)
    return [
        *findings.findings(family, needs, wanted),
        node.forwarding(family),
        findings.bridge(family),
        node.default_route(family),
    ]
