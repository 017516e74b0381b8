"""The real kube-proxy, built and configured as the tests do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.cluster import NODE_NAME, POD_RANGE, POD_RANGE6
from bench.peers.kernel import no_ipvs
from bench.peers.peer import Home, Peer
from tests.support.cluster import original, programs
from tests.support.fetched import Unavailable

MODES = ("iptables-legacy", "iptables-nft", "nftables", "ipvs")


class KubeProxy(Peer):
    """kube-proxy in one mode; of iptables, with the tools of one variant."""

    def __init__(self, mode: str) -> None:
        self._mode, _, self._variant = mode.partition("-")
        self.name = f"kube-proxy {mode}"

    @property
    def version(self) -> str:
        """The release that the module names."""
        return programs.version()

    def lacks(self) -> str:
        """Return the program or the module that is not there."""
        try:
            programs.find("kube-proxy")
        except Unavailable as error:
            return str(error)
        return no_ipvs() if self._mode == "ipvs" else ""

    def command(self, home: Home) -> Sequence[str]:
        """Return the command line, with a configuration beside it."""
        pods = f"{POD_RANGE},{POD_RANGE6}"
        document = original.configuration(home.kubeconfig, mode=self._mode, clusterCIDR=pods)
        return original.command(document, home.folder, NODE_NAME)

    def environment(self, home: Home) -> Mapping[str, str]:
        """Let the plain names of iptables mean one variant."""
        usual = super().environment(home)
        if not self._variant:
            return usual
        return {**usual, "PATH": original.path(home.folder, self._variant)}
