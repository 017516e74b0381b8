"""Data paths by name, each with its options made from the configuration.

Only here and in `host` is anything of `backends` imported, and not before it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kproxy.config.fields import Configuration, IptablesVariant, Mode
from kproxy.core.addresses import canonical_network
from kproxy.ports.data_path import DataPath

if TYPE_CHECKING:
    from backends.kernel.xtables.tools import Variant


class NotAvailable(Exception):
    """The data path does not exist in this version; the text names those that do."""


def data_path(configuration: Configuration) -> DataPath:
    """Return the data path that a configuration names. Raises NotAvailable."""
    make = DATA_PATHS.get(configuration.mode)
    if make is None:
        available = ", ".join(mode.value for mode in DATA_PATHS)
        raise NotAvailable(
            f"proxy mode {configuration.mode.value} is not available yet in this version; "
            f"available: {available}"
        )
    return make(configuration)


def others(configuration: Configuration) -> list[DataPath]:
    """Return the data paths that a configuration does not name: each once, for all families.

    Of ebpf, which is the most to import, only if it left anything.
    """
    from backends.ebpf import places

    nothing_left = places.is_empty(Path(configuration.kproxy.ebpf.bpffs))
    return [
        data_path(msgspec.structs.replace(configuration, mode=mode))
        for mode in DATA_PATHS
        if mode is not configuration.mode and not (mode is Mode.EBPF and nothing_left)
    ]


def _iptables(configuration: Configuration) -> DataPath:
    from backends.iptables.options import IptablesOptions
    from backends.iptables.path import IptablesPath

    return IptablesPath(
        IptablesOptions(
            masquerade_bit=configuration.iptables.masquerade_bit,
            variant=_variant(configuration),
            take_over=configuration.kproxy.take_over,
        )
    )


def _ebpf(configuration: Configuration) -> DataPath:
    from backends.ebpf.options import EbpfOptions, SocketHooks
    from backends.ebpf.path import EbpfPath

    own = configuration.kproxy.ebpf
    caches = os.environ.get("XDG_CACHE_HOME", "/var/cache")
    return EbpfPath(
        EbpfOptions(
            bpffs=Path(own.bpffs),
            cache=Path(caches, "kproxy", "ebpf"),
            cgroup=Path(own.cgroup) if own.cgroup else None,
            socket_hooks=SocketHooks(own.socket_hooks.value),
            service_entries=own.service_entries,
            flow_entries=own.flow_entries,
            affinity_entries=own.affinity_entries,
            masquerade_bit=configuration.iptables.masquerade_bit,
            take_over=configuration.kproxy.take_over,
        )
    )


def _ipvs(configuration: Configuration) -> DataPath:
    from backends.ipvs.options import DEFAULT_SCHEDULER, IpvsOptions, timeouts
    from backends.ipvs.path import IpvsPath

    section = configuration.ipvs
    return IpvsPath(
        IpvsOptions(
            scheduler=section.scheduler or DEFAULT_SCHEDULER,
            strict_arp=section.strict_arp,
            timeouts=timeouts(
                tcp_s=section.tcp_timeout_s,
                tcp_fin_s=section.tcp_fin_timeout_s,
                udp_s=section.udp_timeout_s,
            ),
            excluded=tuple(map(canonical_network, section.exclude_cidrs or ())),
            variant=_variant(configuration),
            take_over=configuration.kproxy.take_over,
        )
    )


def _variant(configuration: Configuration) -> Variant | None:
    from backends.kernel.xtables.tools import Variant

    wanted = configuration.kproxy.iptables.variant
    return None if wanted is IptablesVariant.AUTO else Variant(wanted.value)


DATA_PATHS: Mapping[Mode, Callable[[Configuration], DataPath]] = {
    Mode.IPTABLES: _iptables,
    Mode.IPVS: _ipvs,
    Mode.EBPF: _ebpf,
}
