"""kproxy, by one of its data paths."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence

from backends.ebpf.compiler import CACHE
from bench.cluster import NODE_NAME, POD_RANGE, POD_RANGE6
from bench.peers.kernel import no_ipvs
from bench.peers.kube_proxy import KubeProxy
from bench.peers.peer import Home, Peer

_CONFIG = f"""\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: {POD_RANGE},{POD_RANGE6}
featureGates: {{KubeProxyIPVS: true}}
kproxy: {{takeOver: true}}  # as in the place of kube-proxy
"""
_IPVS, _IPTABLES = "ipvs", "iptables"
DATA_PATHS = ("iptables-legacy", "iptables-nft", "ipvs", "ebpf", "ebpf-compiling")
_COMPILING = "compiling"  # it finds no bytecode from an earlier start
_HIDDEN = f'mkdir -p {CACHE} && mount -t tmpfs tmpfs {CACHE} && exec "$@"'
_WITHOUT_CACHE = ("unshare", "--mount", "sh", "-c", _HIDDEN, "sh")


class Kproxy(Peer):
    """`kproxy run`, with the default periods."""

    def __init__(self, data_path: str) -> None:
        self._mode, _, self._variant = data_path.partition("-")
        self.name = f"kproxy {data_path}"
        self.predecessor = KubeProxy(_comes_from(self._mode, self._variant))

    @property
    def version(self) -> str:
        """The version of this tree."""
        return importlib.metadata.version("kproxy")

    def lacks(self) -> str:
        """Return the module of the kernel that is not there."""
        return no_ipvs() if self._mode == _IPVS else ""

    def command(self, home: Home) -> Sequence[str]:
        """Return the command line, with a configuration beside it."""
        config = home.folder / "config.yaml"
        config.write_text(_CONFIG)
        of_mode: Sequence[str] = home.stage.place.options
        if self._mode == _IPTABLES:
            of_mode = ("--iptables-variant", self._variant)
        return [
            *(_WITHOUT_CACHE if self._variant == _COMPILING else ()),
            *(sys.executable, "-m", "kproxy", "run", "--proxy-mode", self._mode, *of_mode),
            *("--kubeconfig", str(home.kubeconfig), "--config", str(config)),
            *("--node-name", NODE_NAME),
        ]

    def clean_up(self, home: Home) -> Sequence[str]:
        """Return the command line of the clean-up, which is that of all modes."""
        bpffs = ("--ebpf-bpffs", str(home.stage.place.bpffs))
        return [sys.executable, "-m", "kproxy", "cleanup", *bpffs]


def _comes_from(mode: str, variant: str) -> str:
    """Return kube-proxy's mode in clusters that change to a data path."""
    if mode == _IPVS:
        return _IPVS
    return f"iptables-{variant if mode == _IPTABLES else 'nft'}"
