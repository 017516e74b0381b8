"""The groups of the packet table, by subject.

Expected verdicts are written by hand from the specification: they are what `resolve()` and every
data path are held against.
"""

from __future__ import annotations

from tests.support.packets.groups import (
    balancing,
    cluster_ips,
    endpoints,
    external,
    intake,
    node_ports,
    policies,
    refusals,
    shared_ranges,
    source_ranges,
)
from tests.support.packets.table import Group

GROUPS: tuple[Group, ...] = (
    *balancing.GROUPS,
    *cluster_ips.GROUPS,
    *endpoints.GROUPS,
    *external.GROUPS,
    *intake.GROUPS,
    *node_ports.GROUPS,
    *policies.GROUPS,
    *refusals.GROUPS,
    *shared_ranges.GROUPS,
    *source_ranges.GROUPS,
)
