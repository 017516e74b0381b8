"""The ipvs data path on a node of the tests, where the kernel has ipvs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from backends.ipvs.driver.link import LINK, TABLE
from backends.ipvs.path import IpvsPath
from backends.kernel.virtual_servers import VirtualServers
from backends.kernel.xtables.tools import Variant, program
from kproxy.core.addresses import Family
from kproxy.ports.data_path import Backend
from tests.support.commands import output_of
from tests.support.ipvs.options import PLAIN
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S, until

IS_HERE = Path("/proc/net/ip_vs").exists()
"""Whether this kernel has ipvs."""

FOREIGN = ("192.0.2.77", 9)
"""Where tests put the virtual servers that are somebody else's, as IPv4."""

_CONNECTIONS = re.compile(r" +\d+ +\d+ *$", re.MULTILINE)


class IpvsNode:
    """Virtual servers of the node's namespace, rules in one variant of iptables."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant

    def backend(self, family: Family) -> Backend:
        """Return a new backend, for which no connection is open.

        What was a frontend before would refuse new connections until its last one is forgotten.
        """
        with VirtualServers("ending connections") as kernel:
            kernel.delete_servers(each for each, _ in kernel.servers() if each.family is family)
        return IpvsPath(replace(PLAIN, variant=self._variant)).backend(family)

    def state(self, family: Family) -> list[str]:
        """Return what is in the kernel, as others see it: each line by itself."""
        saved = output_of(program(family, self._variant, "save"), timeout_s=LONGEST_S)
        rules = [line.split(" [")[0] for line in saved.splitlines() if "KPROXY-" in line]
        ip = "-4" if family is Family.IPV4 else "-6"
        asked = (
            ("ipset", "save"),
            ("ip", ip, "rule"),
            ("ip", ip, "route", "show", "table", "all", "dev", "kube-ipvs-kp"),
        )
        told = [output_of(*each, timeout_s=LONGEST_S).splitlines() for each in asked]
        servers = _CONNECTIONS.sub("", Path("/proc/thread-self/net/ip_vs").read_text())
        return sorted([*rules, *(line for lines in told for line in lines), *servers.splitlines()])

    def speaking(self, machines: Mapping[str, Namespace]) -> AbstractContextManager[object]:
        """Do nothing: the kernel meets packets, whoever sends them."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Do nothing: all of it goes with its namespace."""


def forget_connections() -> None:
    """Let ipvs forget all connections, in this thread's namespace.

    It does once their destinations are gone (sysctl expire_nodest_conn); these are back after that.
    """
    with VirtualServers("forgetting connections") as kernel:
        servers = kernel.servers()
        behind = [
            ((server, each), load.weight)
            for server, _ in servers
            for each, load in kernel.destinations(server)
        ]
        kernel.delete_servers(server for server, _ in servers)
        until(_has_no_connections, within_s=LONGEST_S, what="ipvs forgets all connections")
        kernel.put_servers(servers)
        for pair, weight in behind:
            kernel.put_destinations([pair], weight=weight)


def _has_no_connections() -> bool:
    _, *connections = Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()
    return not connections


def objects_of_ipvs() -> list[str]:
    """Return what our data path has besides rules in this thread's namespace, a line for each.

    Virtual servers of others count too, but for those at `FOREIGN`.
    """
    with VirtualServers("looking at virtual servers") as kernel:
        servers = [
            line
            for server, settings in kernel.servers()
            if server.port != FOREIGN[1]
            for line in (
                f"{server} {settings}",
                *(
                    f"{server} {each} weight {load.weight}"
                    for each, load in kernel.destinations(server)
                ),
            )
        ]
    sets = [line for line in _lines("ipset", "save") if " kproxy-" in line]
    around = [
        line
        for family in ("-4", "-6")
        for line in (
            *(each for each in _lines("ip", family, "rule") if f"lookup {TABLE}" in each),
            *(
                each
                for each in _lines("ip", family, "route", "show", "table", "all", "type", "local")
                if f"dev {LINK}" in each
            ),
        )
    ]
    return sorted([*servers, *sets, *around])


def _lines(*command: str) -> list[str]:
    return output_of(*command, timeout_s=LONGEST_S).splitlines()
