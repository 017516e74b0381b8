"""What is followed of the API: the same objects, by the same selectors, as kube-proxy follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kproxy.core.objects import Kind
from kproxy.core.parse import HEADLESS_LABEL, OTHER_PROXY_LABEL


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it.

    `name` is the one that RBAC rules use, with the API group. `may_be_missing`: an API server
    without it, or one that does not let us see it, is as good as one that has no such object.
    """

    kind: Kind
    name: str
    path: str
    selector: Mapping[str, str]
    may_be_missing: bool = False


def followed(node_name: str) -> tuple[Resource, ...]:
    """Return what a proxy on this node follows."""
    return (
        Resource(
            Kind.SERVICE,
            "services",
            "/api/v1/services",
            {"labelSelector": f"!{OTHER_PROXY_LABEL}", "fieldSelector": "spec.clusterIP!=None"},
        ),
        Resource(
            Kind.ENDPOINT_SLICE,
            "endpointslices.discovery.k8s.io",
            "/apis/discovery.k8s.io/v1/endpointslices",
            {"labelSelector": f"!{HEADLESS_LABEL}"},
        ),
        Resource(
            Kind.NODE, "nodes", "/api/v1/nodes", {"fieldSelector": f"metadata.name={node_name}"}
        ),
        Resource(
            Kind.SERVICE_CIDR,
            "servicecidrs.networking.k8s.io",
            "/apis/networking.k8s.io/v1/servicecidrs",
            {},
            may_be_missing=True,  # v1 since Kubernetes 1.33, and older roles do not allow it
        ),
    )
