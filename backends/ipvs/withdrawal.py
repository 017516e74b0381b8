"""What an earlier run of this data path left, and this process does not use."""

from __future__ import annotations

from collections.abc import Mapping

from backends.ipvs import cleanup
from backends.ipvs.driver.draining import Kernel
from backends.ipvs.driver.link import SharedLink
from backends.ipvs.driver.ours import FOR_OPEN_CONNECTIONS, OURS
from backends.ipvs.driver.sets import Sets
from backends.ipvs.render import rules
from backends.kernel.virtual_servers import Destination, Load, Server, VirtualServers, passage
from backends.kernel.xtables import removal, rulesets, tools
from backends.kernel.xtables.restore import RestoreInput, TableEdit
from backends.kernel.xtables.tools import Variant
from backends.kernel.xtables.wording import split_key
from kproxy.core.addresses import Family


class FormerServers:
    """One family's virtual servers, with all around them: they stay for open connections alone."""

    def __init__(self, family: Family, link: SharedLink) -> None:
        self._family = family
        self._link = link
        self._serving: list[Server] | None = None  # None: they may take new connections

    @property
    def name(self) -> str:
        """What the log calls it."""
        return "ipvs"

    def withdraw(self) -> bool:
        """Take no new connections; say whether no open one needs this any more.

        The work after the first call is bounded, whatever is open. Raises BackendError.
        """
        if not cleanup.is_here(self._family):
            return True
        if self._serving is None:
            for variant in Variant:
                _reduce(self._family, variant)
            self._serving = self._drained()
        with VirtualServers("looking for open connections") as kernel:
            forget_idle(kernel, self._serving)
        return not self._serving

    def clean_up(self) -> int:
        """Remove what is left; return how many kernel objects. Raises BackendError."""
        return cleanup.clean_up(self._family, self._link)

    def _drained(self) -> list[Server]:
        """Let no endpoint take connections; return the virtual servers that may have open ones.

        What the node itself sends comes to ipvs before any program sees it, and a server without
        destinations would refuse it: so it passes, for whoever serves it now.
        """
        sets = Sets(self._family)
        sets.observe()
        with VirtualServers("draining our virtual servers") as kernel:
            found = {
                server: kernel.destinations(server)
                for server in cleanup.own_servers(kernel, self._family, sets)
            }
            kernel.let_pass(
                server
                for server, destinations in found.items()
                if not server.mark and not _lets_pass(server, dict(destinations))
            )
            kernel.drain(
                (server, destination)
                for server, destinations in found.items()
                for destination, load in destinations
                if load.weight and destination != passage(server)
            )
        return list(found)


def forget_idle(kernel: Kernel, serving: list[Server]) -> None:
    """Take those that serve nobody out of a list, from its end up to one that does.

    None of them takes new connections. May raise BackendError.
    """
    while serving and not _serves(kernel, serving[-1]):
        serving.pop()


def _serves(kernel: Kernel, server: Server) -> bool:
    return any(
        load.active or load.inactive
        for destination, load in kernel.destinations(server)
        if destination != passage(server)
    )


def _lets_pass(server: Server, destinations: Mapping[Destination, Load]) -> bool:
    load = destinations.get(passage(server))
    return load is not None and load.weight > 0 and not load.translated


class FormerRules:
    """One family's rules in a variant that this process does not write in.

    Those of its own variant do all that they did, for open connections too.
    """

    def __init__(self, family: Family, variant: Variant) -> None:
        self._family = family
        self._variant = variant

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"ipvs {self._variant.value}"

    def withdraw(self) -> bool:
        """Return True: no connection needs them."""
        return True

    def clean_up(self) -> int:
        """Remove them; return how many kernel objects. Raises BackendError."""
        return cleanup.clean_up_variant(self._family, self._variant)


def _reduce(family: Family, variant: Variant) -> None:
    """Leave those rules that open connections need. Raises BackendError."""
    chains = rules.withdrawn()
    edit = TableEdit("mangle", write=list(chains))
    if {split_key(key)[-1] for key in chains} <= {
        *rulesets.chain_names(family, variant, ("mangle",))
    }:
        text = RestoreInput(edit, chains.__getitem__, str, old_jumps={}, numbers={})
        tools.restore(family, variant, text)
    removal.reduce(family, variant, OURS, kept=FOR_OPEN_CONNECTIONS)
