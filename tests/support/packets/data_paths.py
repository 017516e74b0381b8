"""The data paths that the packet table is run against, each on a node of its own."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from backends.ebpf.options import SocketHooks
from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.render.renderer import Renderer
from backends.iptables.render.rules import Options
from backends.kernel.transactions import Transactions
from backends.kernel.xtables.tools import Variant, program
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Backend
from tests.support.commands import output_of
from tests.support.ebpf.on_node import EbpfNode
from tests.support.ipvs.on_node import IS_HERE, IpvsNode
from tests.support.net.namespace import Namespace
from tests.support.net.network import Pods
from tests.support.net.observed import Observed
from tests.support.packets.table import Flow
from tests.support.waiting import LONGEST_S


class OnNode(Protocol):
    """A data path on one node; who calls has entered the node's namespace, save for `close`."""

    def backend(self, family: Family) -> Backend:
        """Return a new backend, as a process that was just started has."""

    def state(self, family: Family) -> list[str]:
        """Return what is in the kernel, as others than the data path itself see it."""

    def speaking(self, machines: Mapping[str, Namespace]) -> AbstractContextManager[object]:
        """Surround what clients on these machines do, the node among them; in any namespace."""

    def close(self) -> None:
        """Take away what is not the namespace's."""


def _never(flow: Flow, seen: Observed) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class DataPath:
    """How a data path comes to a node, and how pods are joined to that node.

    - `differs` says whether something is known to be otherwise in this data path.
    - `loopback`: it can serve NodePorts there.
    - `forgets`: a client's affinity ends whether or not its last connection is still remembered.
    """

    on: Callable[[], OnNode]
    pods: Pods = Pods.ROUTED
    differs: Callable[[Flow, Observed], bool] = _never
    loopback: bool = True
    forgets: bool = True


class IptablesNode:
    """One variant of iptables."""

    def __init__(self, variant: Variant, options: Options) -> None:
        self._variant = variant
        self._options = options

    def backend(self, family: Family) -> Backend:
        """Return a new backend."""
        return IptablesBackend(
            family=family,
            variant=self._variant,
            renderer=Renderer(family, self._options),
            transactions=Transactions(),
        )

    def state(self, family: Family) -> list[str]:
        """Return our chains, jumps and sets as the tools print them, in an order of its own.

        The rules of a chain keep theirs; that of chains, and of jumps in a chain, means nothing.
        """
        saved = output_of(program(family, self._variant, "save"), timeout_s=LONGEST_S)
        ours = [line.split(" [")[0] for line in saved.splitlines() if "KPROXY-" in line]
        chains = itertools.groupby(sorted(ours, key=_chain), key=_chain)
        rules = [
            line
            for chain, found in chains
            for line in (found if chain.startswith("KPROXY-") else sorted(found))
        ]
        sets = output_of("ipset", "list", "-n", timeout_s=LONGEST_S)
        return rules + sorted(sets.splitlines())

    def speaking(self, machines: Mapping[str, Namespace]) -> AbstractContextManager[object]:
        """Do nothing: rules meet packets, whoever sends them."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Do nothing: rules go with their namespace."""


def iptables(variant: Variant, options: Options | None = None) -> DataPath:
    """Return one variant of iptables."""
    return DataPath(functools.partial(IptablesNode, variant, options or Options(counts=True)))


def ebpf(hooks: SocketHooks, pods: Pods = Pods.ROUTED) -> DataPath:
    """Return eBPF programs, with or without those in sockets."""
    return DataPath(
        functools.partial(EbpfNode, hooks), pods, functools.partial(EbpfNode.differs, hooks)
    )


def ipvs(variant: Variant) -> DataPath:
    """Return virtual servers, with rules in one variant of iptables."""
    return DataPath(functools.partial(IpvsNode, variant), loopback=False, forgets=False)


_OF_IPVS = {f"ipvs-{variant.value}": ipvs(variant) for variant in Variant}

DATA_PATHS: dict[str, DataPath] = {
    **{f"iptables-{variant.value}": iptables(variant) for variant in Variant},
    "ebpf": ebpf(SocketHooks.ALL),
    "ebpf-tc": ebpf(SocketHooks.OFF),
    "ebpf-tc-bridge": ebpf(SocketHooks.OFF, Pods.BRIDGED),
    **(_OF_IPVS if IS_HERE else {}),
}


def _chain(line: str) -> str:
    return line.removeprefix("-A ").removeprefix(":").split()[0]
