"""What this data path tells the metrics, under kube-proxy's names where the meaning is the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backends.iptables.driver import accounting
from backends.iptables.render.rules import TABLES, Account
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family
from kproxy.core.image import Key
from kproxy.ports.data_path import BackendError, Metric, Sample

VARIANT = Metric(
    "kproxy_iptables_info", "1, with the variant that rules are written in.", labels=("variant",)
)
RULES = Metric(
    "kubeproxy_sync_proxy_rules_iptables_total", "Rules of ours, by table.", labels=("table",)
)
WRITTEN = Metric(
    "kubeproxy_sync_proxy_rules_iptables_last",
    "Rules that the last write of anything wrote, by table.",
    labels=("table",),
)


PACKETS = {
    Account.INVALID: Metric(
        "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
        "Forwarded packets dropped because connection tracking could not place them.",
        total=True,
        by_family=False,
    ),
    Account.LOCALHOST: Metric(
        "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
        "First packets of connections that a NodePort accepted on loopback.",
        total=True,
        by_family=False,
    ),
}


class RuleCounts:
    """Keeps count of rules, from the images that pass by."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._rules: dict[Key, int] = {}
        self._total = dict.fromkeys(TABLES, 0)
        self._last: dict[str, int] | None = None

    def rendered(self, patch: Mapping[Key, bytes | None]) -> None:
        """Take in what becomes of the image."""
        for key, value in patch.items():
            table = _table(key)
            if table is None:
                continue
            count = 0 if value is None else _count(value)
            self._total[table] += count - self._rules.pop(key, 0)
            if count:
                self._rules[key] = count

    def written(self, put: Mapping[Key, bytes]) -> None:
        """Take in what a commit wrote."""
        self._last = dict.fromkeys(TABLES, 0)
        for key, value in put.items():
            table = _table(key)
            if table is not None:
                self._last[table] += _count(value)

    def samples(self) -> Iterator[Sample]:
        """Return the counts; those of the last write only once there was one."""
        yield Sample(VARIANT, (self._variant.value,), 1.0)
        for table, count in self._total.items():
            yield Sample(RULES, (table,), float(count))
        for table, count in (self._last or {}).items():
            yield Sample(WRITTEN, (table,), float(count))


def packet_samples(family: Family) -> Iterator[Sample]:
    """Return what the kernel counted for our rules; nothing if it cannot be asked."""
    try:
        counted = accounting.packets(family)
    except BackendError:
        return
    for account, number in counted.items():
        yield Sample(PACKETS[account], (), float(number))


def _table(key: Key) -> str | None:
    """Return the table that an object is in; ipsets and settings are in none."""
    place = split_key(key)
    table = place[1] if place[0] == "jump" else place[0]
    return table if table in TABLES else None


def _count(fingerprint: bytes) -> int:
    return int(fingerprint.rpartition(b":")[2])
