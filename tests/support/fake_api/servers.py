"""A fake and a real API server behind one interface, for suites that both have to pass."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.cluster.api import Api, ApiError
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.relay import Relay
from tests.support.fake_api.resources import SERVICES, Resource
from tests.support.fake_api.server import FakeApi
from tests.support.fake_api.tls import Authority
from tests.support.waiting import LONGEST_S, until

Document = dict[str, Any]
STREAMING = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}

# What a cluster has of its own: a Service to reach the API server and the range it is from.
_OWN = "kubernetes"

ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "system:node-proxier"},
}
OUR_ROLE = {**ROLE, "metadata": {"name": "tests:node-proxier"}}
PROXY_ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-proxy, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "tests:node-proxier"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "tests:node-proxier"}
subjects: [{kind: ServiceAccount, name: kube-proxy, namespace: kube-system}]
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Document:
        document: Document = json.loads(self.body)
        return document


class Watch:
    """An open watch. A context manager."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._response = connection.getresponse()
        self.status = self._response.status

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()

    def next(self) -> Document | None:
        """Return the next event, None at the end of the stream."""
        line = self._response.readline()
        return json.loads(line) if line else None

    def is_quiet(self, for_s: float) -> bool:
        """Say whether nothing comes for some time; after that it is of no use any more."""
        self._connection.sock.settimeout(for_s)
        try:
            self.next()
        except TimeoutError:
            return True
        return False

    def take(self, count: int) -> list[Document]:
        """Return the next events."""
        events = [self.next() for _ in range(count)]
        assert None not in events, events
        return [event for event in events if event is not None]

    def until(self, last: Callable[[Document], bool]) -> list[Document]:
        """Return the events up to one, with that one."""
        events = self.take(1)
        while not last(events[-1]):
            events += self.take(1)
        return events


class Server:
    """An API server that a suite can ask, fill and trouble as far as a real one can be."""

    def __init__(self, port: int, tls: ssl.SSLContext, *, admin: Api, token: str) -> None:
        self.admin = admin
        self.token = token
        self.relay = Relay(port, port=0)
        self._port = port
        self._tls = tls

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        content_type: str = "application/json",
        within_s: float = LONGEST_S,
        **query: str,
    ) -> Reply:
        """Ask as the proxy does, or with another token; None is no token at all."""
        connection = self._connect(within_s)
        headers = {**self._login(token), "Content-Type": content_type}
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, f"{path}?{urlencode(query)}", content, headers)
            response = connection.getresponse()
            read = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, read, response.read())
        finally:
            connection.close()

    def watch(self, path: str, **query: str) -> Watch:
        """Open a watch as the proxy."""
        connection = self._connect(LONGEST_S)
        asked = urlencode({"watch": "true", **query})
        connection.request("GET", f"{path}?{asked}", headers=self._login(""))
        return Watch(connection)

    def put(self, *documents: Document) -> list[Document]:
        """Create or replace objects."""
        return [self._put(document) for document in documents]

    def _put(self, document: Document) -> Document:
        try:
            return self.admin.replace(document)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            return self.admin.create(document)

    def delete(self, *documents: Document) -> None:
        """Delete objects, of which no more than kind and name need be known."""
        for document in documents:
            self.admin.delete(document)

    def objects(self, collection: str, **query: str) -> list[Document]:
        """Return what there is, but for what a cluster has of its own."""
        listed = self.admin.list(collection, **query)
        return [each for each in listed if each["metadata"]["name"] != _OWN]

    def write_kubeconfig(self, file: Path) -> Path:
        """Write the file by which the proxy finds the server, through the relay."""
        raise NotImplementedError

    def forget_history(self) -> None:
        """Let nobody resume from a version or a page of before."""
        raise NotImplementedError

    def cut(self) -> None:
        """Break the connections of the proxy."""
        self.relay.cut()

    def leave(self) -> None:
        """Break the connections of the proxy, and refuse new ones."""
        self.relay.refuse()
        self.relay.cut()

    def come_back(self) -> None:
        """Take connections again."""
        self.relay.admit()

    def close(self) -> None:
        """Let go of everything."""
        self.relay.close()

    def forbid(self, resource: Resource) -> None:
        """Let the proxy read this no more; what it watches already goes on."""
        raise NotImplementedError

    def permit(self, resource: Resource) -> None:
        """Let the proxy read this again."""
        raise NotImplementedError

    def _connect(self, within_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._tls, timeout=within_s
        )

    def _login(self, token: str | None) -> dict[str, str]:
        if token is None:
            return {}
        return {"Authorization": f"Bearer {token or self.token}"}


class FakeServer(Server):
    """The fake, with the faults at hand."""

    def __init__(self, authority: Authority) -> None:
        self.fake = FakeApi(authority)
        tls = ssl.create_default_context(cadata=authority.ca_pem.decode())
        admin = Api(self.fake.port, tls, token=self.fake.admin_token)
        super().__init__(self.fake.port, tls, admin=admin, token=self.fake.token)
        own = {"metadata": {"name": _OWN}, "spec": {"cidrs": ["10.96.0.0/12"]}}
        self.fake.put("servicecidrs", own)

    def write_kubeconfig(self, file: Path) -> Path:
        return self.fake.write_kubeconfig(file, token=self.token, port=self.relay.port)

    def forget_history(self) -> None:
        self.fake.tick()
        self.fake.compact()

    def forbid(self, resource: Resource) -> None:
        self.fake.forbid(resource.name)

    def permit(self, resource: Resource) -> None:
        self.fake.permit(resource.name)

    def close(self) -> None:
        super().close()
        self.admin.close()
        self.fake.close()


class RealServer(Server):
    """The real one, with the proxy's account in it."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._rules = plane.api.get(ROLE)["rules"]
        plane.api.apply({**OUR_ROLE, "rules": self._rules})
        plane.apply(PROXY_ACCOUNT)
        token = plane.service_account_token("kube-system", "kube-proxy")
        super().__init__(plane.port, plane.identities.context(), admin=plane.api, token=token)
        self._wait_for(200, SERVICES)

    def write_kubeconfig(self, file: Path) -> Path:
        return self.plane.kubeconfig(file, token=self.token, port=self.relay.port)

    def forbid(self, resource: Resource) -> None:
        rules = [rule for rule in self._rules if resource.name not in rule["resources"]]
        self._allow(rules, resource, 403)

    def permit(self, resource: Resource) -> None:
        self._allow(self._rules, resource, 200)

    def _allow(self, rules: list[Document], resource: Resource, status: int) -> None:
        """Change the role, and wait until the API server has noticed."""
        self.admin.replace({**OUR_ROLE, "rules": rules})
        self._wait_for(status, resource)

    def _wait_for(self, status: int, resource: Resource) -> None:
        """Wait until the proxy gets this status, as the API server has noticed its role."""
        until(
            lambda: self.ask("GET", resource.collection()).status == status,
            within_s=LONGEST_S,
            what="the role has an effect",
        )

    def forget_history(self) -> None:
        """A server that has just started knows nothing of before, and neither does etcd."""
        self.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "passing"}})
        version = self.admin.call("GET", "/api/v1/nodes")["metadata"]["resourceVersion"]
        self._compact(version)
        self.plane.api_server.kill()
        self.plane.start_api_server()

    def _compact(self, version: str) -> None:
        url = f"http://127.0.0.1:{self.plane.etcd_port}/v3/kv/compaction"
        body = json.dumps({"revision": version, "physical": True}).encode()
        with urllib.request.urlopen(url, body, LONGEST_S) as answer:
            answer.read()
