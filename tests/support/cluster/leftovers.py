"""Bringing an API server back to what it made itself."""

from __future__ import annotations

from tests.support.cluster.api import MERGE, Api, Object

_EVENTS = "/api/v1/events"

# Namespaces come last: they are to be empty, as nobody else empties them without a controller.
_COLLECTIONS = (
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/api/v1/pods",
    "/api/v1/nodes",
    _EVENTS,
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/apis/apps/v1/controllerrevisions",
    "/apis/apps/v1/daemonsets",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/networking.k8s.io/v1/servicecidrs",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/api/v1/namespaces",
)


def remove_leftovers(api: Api) -> None:
    """Delete Events and what the API server itself never wrote, whatever finalizers say."""
    for collection in _COLLECTIONS:
        for item in api.list(collection):
            writers = {entry["manager"] for entry in item["metadata"].get("managedFields", ())}
            if "kube-apiserver" not in writers or collection == _EVENTS:
                _remove(api, _path(collection, item))


def _remove(api: Api, path: str) -> None:
    left = api.call("DELETE", f"{path}?gracePeriodSeconds=0")
    if left["kind"] == "Namespace":
        api.call("PUT", f"{path}/finalize", {**left, "spec": {"finalizers": []}})
    elif left.get("metadata", {}).get("finalizers"):
        api.call("PATCH", path, {"metadata": {"finalizers": []}}, content_type=MERGE)


def _path(collection: str, item: Object) -> str:
    start, _, resources = collection.rpartition("/")
    meta = item["metadata"]
    namespace = f"/namespaces/{meta['namespace']}" if "namespace" in meta else ""
    return f"{start}{namespace}/{resources}/{meta['name']}"
