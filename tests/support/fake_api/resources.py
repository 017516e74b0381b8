"""The resources that the fake API server has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: its place in the API and what its kind looks like.

    - `fields`: the field selectors that the server knows, besides metadata.name and .namespace,
      with the value of an object that lacks the field.
    - `empty`: what an object of this kind holds besides its metadata when it holds nothing, as
      bookmarks show it.
    """

    name: str
    group: str
    version: str
    kind: str
    namespaced: bool
    fields: Mapping[str, str] = field(default_factory=dict)
    empty: Mapping[str, object] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Return the name as the server's messages spell it."""
        return f"{self.name}.{self.group}" if self.group else self.name

    def collection(self, namespace: str = "") -> str:
        """Return the path of the objects of a namespace, of all without one."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.name}" if namespace else f"{root}/{self.name}"

    def path(self, namespace: str, name: str) -> str:
        """Return the path of one object."""
        return f"{self.collection(namespace)}/{name}"


_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)

SERVICES = Resource(
    "services",
    "",
    "v1",
    "Service",
    namespaced=True,
    fields={"spec.clusterIP": "", "spec.type": ""},
    empty={"spec": {}, "status": {"loadBalancer": {}}},
)
ENDPOINT_SLICES = Resource(
    "endpointslices",
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    namespaced=True,
    empty={"addressType": "", "endpoints": None, "ports": None},
)
NODES = Resource(
    "nodes",
    "",
    "v1",
    "Node",
    namespaced=False,
    fields={"spec.unschedulable": "false"},
    empty={
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(_NODE_INFO, ""),
        },
    },
)
SERVICE_CIDRS = Resource(
    "servicecidrs",
    "networking.k8s.io",
    "v1",
    "ServiceCIDR",
    namespaced=False,
    empty={"spec": {}, "status": {}},
)
EVENTS = Resource("events", "events.k8s.io", "v1", "Event", namespaced=True)

RESOURCES = {r.name: r for r in (SERVICES, ENDPOINT_SLICES, NODES, SERVICE_CIDRS, EVENTS)}

NAME_OF = {each.kind: name for name, each in RESOURCES.items()}
"""The name of a resource by the kind of its objects."""
