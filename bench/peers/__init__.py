"""Who is measured: kproxy by its data paths, and its peers. `peer` says how to add one."""

from __future__ import annotations

from bench.peers.kproxy import DATA_PATHS, Kproxy
from bench.peers.kube_proxy import MODES, KubeProxy
from bench.peers.peer import Peer
from bench.peers.routing import PlainRouting, Straight

KPROXY: dict[str, Peer] = {each: Kproxy(each) for each in DATA_PATHS}
"""kproxy by the name of the data path."""

PEERS: dict[str, Peer] = {
    "routing": PlainRouting(),
    "straight": Straight(),
    **{f"kube-proxy-{mode}": KubeProxy(mode) for mode in MODES},
}
"""Its peers as options name them."""
