"""The real kube-proxy, built and configured as the tests do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cluster import NODE_NAME, POD_RANGE
from bench.peers.kproxy import no_ipvs
from bench.peers.peer import Home, Peer
from tests.support.cluster import programs
from tests.support.fetched import Unavailable

MODES = ("iptables-legacy", "iptables-nft", "nftables", "ipvs")
_TOOLS = ("iptables", "ip6tables")


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
        config = home.folder / "config.json"
        config.write_text(json.dumps(self._configuration(home)))
        return [
            *(str(programs.find("kube-proxy")), f"--config={config}"),
            f"--hostname-override={NODE_NAME}",
        ]

    def environment(self, home: Home) -> Mapping[str, str]:
        """Let the plain names of iptables mean one variant."""
        usual = super().environment(home)
        if not self._variant:
            return usual
        return {**usual, "PATH": f"{_tools(home.folder, self._variant)}:{os.environ['PATH']}"}

    def _configuration(self, home: Home) -> dict[str, object]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": self._mode,
            "featureGates": {"KubeProxyIPVS": True},
            "clusterCIDR": POD_RANGE,
            "conntrack": {"maxPerCore": 0, "min": 0},  # read-only in a namespace
            "clientConnection": {
                "kubeconfig": str(home.kubeconfig),
                # The fake server speaks nothing else.
                "contentType": "application/json",
                "acceptContentTypes": "application/json",
            },
        }


def _tools(folder: Path, variant: str) -> Path:
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for stem in _TOOLS:
        for rest in ("", "-save", "-restore"):
            real = shutil.which(f"{stem}-{variant}{rest}")
            assert real is not None, f"{stem}-{variant}{rest} is not installed"
            link = tools / f"{stem}{rest}"
            link.unlink(missing_ok=True)
            link.symlink_to(real)
    return tools
