"""A node of a real cluster, where kube-proxy's command line is started."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.relay import Relay
from tests.support.net import plan
from tests.support.node.cluster import CONFIGURATION, NODE
from tests.support.node.node import Node
from tests.support.node.proxy import Proxy
from tests.support.packets.objects import ApiObject
from tests.support.packets.table import NODE_NAME
from tests.support.waiting import LONGEST_S, until

API_PORT = 6443
ACCOUNT = "kube-proxy"
_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
# Upstream's own role for the proxy, which every cluster has.
_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "end-to-end"},
    "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "system:node-proxier",
    },
    "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": ACCOUNT}],
}


class Place:
    """The node, the API server behind a relay, and a configuration that names both."""

    def __init__(self, folder: Path, variant: str, plane: ControlPlane) -> None:
        folder.mkdir(exist_ok=True)
        self.plane = plane
        self.node = Node(folder / "node", variant)
        try:
            self.relay = Relay(plane.port, port=API_PORT, entered=self.node.network.node.entered)
        except BaseException:
            self.node.close()
            raise
        self.config = folder / "config.conf"
        plane.api.apply(_account())
        plane.api.apply(_BINDING)
        plane.api.apply(dict(NODE))
        self.token = plane.service_account_token("kube-system", ACCOUNT)
        until(self.is_allowed, within_s=LONGEST_S, what="the role is in force")
        self.put_token(self.token)
        self.configure()

    @property
    def kubeconfig(self) -> Path:
        """The file that tells the proxy where the API server is."""
        return self.config.with_name("kubeconfig.conf")

    def is_allowed(self) -> bool:
        """Say whether the API server lets the proxy see what its role says."""
        return self.plane.allows(self.token, _SLICES)

    def put_token(self, token: str) -> None:
        """Let the proxy be who has this token."""
        self.plane.kubeconfig(self.kubeconfig, token=token, port=API_PORT)

    def configure(self, **fields: object) -> None:
        """Write the configuration file anew, with these fields besides the usual ones."""
        document: Mapping[str, object] = {
            **CONFIGURATION,
            "clientConnection": {"kubeconfig": str(self.kubeconfig)},
            "conntrack": {"maxPerCore": 0},
            "kproxy": {"iptables": {"variant": self.node.variant}},
            **fields,
        }
        self.config.write_text(json.dumps(document))

    def start(self, *flags: str) -> Proxy:
        """Start kproxy as the DaemonSet of kubeadm starts kube-proxy."""
        return self.node.kproxy(
            "kube-proxy", f"--config={self.config}", f"--hostname-override={NODE_NAME}", *flags
        )

    def ready(self, *flags: str) -> Proxy:
        """Start it and wait until it is ready."""
        proxy = self.start(*flags)
        proxy.wait_for("ready: ")
        return proxy

    def apply(self, objects: Iterable[ApiObject]) -> None:
        """Create objects in the cluster, or change them."""
        for each in objects:
            self.plane.api.apply(dict(each))

    def delete(self, objects: Iterable[ApiObject]) -> None:
        """Delete objects from the cluster."""
        for each in objects:
            self.plane.api.delete(dict(each))

    def asked(self, port: int, path: str) -> str:
        """Return what one of the node's HTTP servers says, headers first."""
        return self.node.run(f"curl -s -i http://{plan.LOOPBACK}:{port}{path}")

    def health(self) -> dict[str, object]:
        """Return what the health server tells in full."""
        head, _, body = self.asked(10256, "/healthz?verbose").partition("\n\n")
        return {"code": head.split()[1], **json.loads(body)}

    def close(self) -> None:
        """End what was started and take the network down."""
        self.relay.close()
        self.node.close()


def _account() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"namespace": "kube-system", "name": ACCOUNT},
    }
