"""Thousands of Services and EndpointSlices, written past the API server into its etcd.

At every allocation of a clusterIP the API server counts all of them anew for its metrics (1.37.1,
`createIPAddress` in pkg/registry/core/service/ipallocator): 10,000 Services cost it 110 s of CPU
time. Written directly they are there within seconds.
"""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain

from tests.support.cluster.api import Api, Object
from tests.support.waiting import LONGEST_S

_CONNECTIONS = 4

_FROM_SERVER = ("creationTimestamp", "generation", "managedFields")

# In the order of writing: a Service whose address is not known as its own would be "repaired".
_FOLDERS = {
    "IPAddress": "ipaddresses",
    "EndpointSlice": "endpointslices",
    "Service": "services/specs",
}


def seed(api: Api, etcd_port: int, objects: Iterable[Object]) -> None:
    """Write Services, whose clusterIPs are given, and EndpointSlices as if they had been created.

    None may be headless. The first of each kind is created by the API server, and what that puts
    into its metadata the others get too.
    NodePorts are not entered into the API server's list of those that are taken.
    """
    first: dict[str, Object] = {}
    values: dict[str, list[tuple[str, Object]]] = {kind: [] for kind in _FOLDERS}
    for wanted in objects:
        kind = wanted["kind"]
        if kind not in first:
            first[kind] = api.create(wanted)
            continue
        values[kind].append(_stored(wanted, first[kind]))
        if kind == "Service":
            if "IPAddress" not in first:
                first["IPAddress"] = api.get(next(_ip_addresses(first[kind])))
            values["IPAddress"] += [
                _stored(each, first["IPAddress"]) for each in _ip_addresses(wanted)
            ]
    with closing(_Etcd(etcd_port)) as etcd, ThreadPoolExecutor(_CONNECTIONS) as pool:
        for _ in pool.map(lambda each: etcd.put(*each), chain(*values.values())):
            pass


def _ip_addresses(service: Object) -> Iterator[Object]:
    """Yield the objects by which the API server remembers whose the clusterIPs are."""
    meta = service["metadata"]
    owner = {"group": "", "resource": "services", "namespace": meta["namespace"]}
    for ip in service["spec"]["clusterIPs"]:
        labels = {
            "ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in ip else "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        }
        yield {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {"name": ip, "labels": labels},
            "spec": {"parentRef": {**owner, "name": meta["name"]}},
        }


def _stored(wanted: Object, like: Object) -> tuple[str, Object]:
    """Return the key and the value of an object; defaults are filled in when it is read."""
    from_server = {key: like["metadata"][key] for key in _FROM_SERVER if key in like["metadata"]}
    meta = {**from_server, **wanted["metadata"], "uid": str(uuid.uuid4())}
    place = f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else meta["name"]
    return f"/registry/{_FOLDERS[wanted['kind']]}/{place}", {**wanted, "metadata": meta}


class _Etcd:
    """Writes over the JSON gateway of etcd, on the connections of as many threads."""

    def __init__(self, port: int) -> None:
        self._idle = [
            http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST_S)
            for _ in range(_CONNECTIONS)
        ]

    def put(self, key: str, value: Object) -> None:
        """Write one value."""
        body = json.dumps({"key": _encoded(key), "value": _encoded(json.dumps(value))})
        connection = self._idle.pop()
        connection.request("POST", "/v3/kv/put", body)
        answer = connection.getresponse()
        text = answer.read()
        self._idle.append(connection)
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"etcd did not take {key}: {text.decode(errors='replace')}")

    def close(self) -> None:
        """Close the connections."""
        for each in self._idle:
            each.close()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
