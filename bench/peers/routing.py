"""Nodes without a proxy: what forwarding costs at least."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from bench.peers.peer import Home, Peer

_TRACKING = """
table inet bench {
    chain forward {
        type filter hook forward priority filter;
        ct state invalid counter
    }
}
"""


class PlainRouting(Peer):
    """A node that routes and does nothing else: clients call endpoints. The physical limit."""

    name = "plain routing"
    translates = False

    def command(self, home: Home) -> Sequence[str]:
        """Return nothing: the kernel does it."""
        return ()


class Straight(Peer):
    """A node that tracks connections, as each one does that filters: clients call endpoints.

    What a proxy by iptables, nftables or ipvs costs beyond this is its own.
    """

    name = "straight to the endpoint"
    translates = False

    def command(self, home: Home) -> Sequence[str]:
        """Return nothing, after one rule was made that asks for the state of connections."""
        with home.stage.node.entered():
            subprocess.run(["nft", "-f", "-"], input=_TRACKING, text=True, check=True)
        return ()
