"""A small client of the API server: JSON objects in, JSON objects out."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from tests.support.waiting import LONGEST_S

Object = dict[str, Any]

_OF_THE_CLUSTER = frozenset(
    [
        "Namespace",
        "Node",
        "ServiceCIDR",
        "IPAddress",
        "ClusterRole",
        "ClusterRoleBinding",
        "PriorityClass",
    ]
)
MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML too
_NAME_OF_OURS = "fieldManager=tests&force=true"
_SHORT_ANSWER = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, doing: str, status: int, answer: Mapping[str, Any]) -> None:
        self.status = status
        self.reason = str(answer.get("reason", ""))
        super().__init__(f"{doing}: {status} {self.reason}: {answer.get('message', answer)}")


class Api:
    """Calls of one user, from any thread. A context manager that keeps connections."""

    def __init__(self, port: int, tls: ssl.SSLContext, *, token: str | None = None) -> None:
        self._port = port
        self._tls = tls
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._idle: list[http.client.HTTPSConnection] = []

    def create(self, wanted: Mapping[str, Any]) -> Object:
        """Create an object; its status is left out by the API server, but for Nodes."""
        return self.call("POST", collection(wanted), wanted)

    def apply(self, wanted: Mapping[str, Any]) -> Object:
        """Create an object or change it to this, its status too where one is given."""
        path = f"{address(wanted)}?{_NAME_OF_OURS}"
        done = self.call("PATCH", path, wanted, content_type=_APPLY)
        if "status" in wanted:
            path = f"{address(wanted)}/status?{_NAME_OF_OURS}"
            done = self.call("PATCH", path, wanted, content_type=_APPLY)
        return done

    def replace(self, wanted: Mapping[str, Any]) -> Object:
        """Replace an object."""
        return self.call("PUT", address(wanted), wanted)

    def patch(self, which: Mapping[str, Any], changes: Mapping[str, Any]) -> Object:
        """Merge changes into an object; `which` need not be more than its kind and name."""
        return self.call("PATCH", address(which), changes, content_type=MERGE)

    def get(self, which: Mapping[str, Any]) -> Object:
        """Return an object as the API server has it."""
        return self.call("GET", address(which))

    def delete(self, which: Mapping[str, Any]) -> None:
        """Delete an object, at once; it is no error if there is none."""
        try:
            self.call("DELETE", f"{address(which)}?gracePeriodSeconds=0")
        except ApiError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def list(self, path: str, **query: str) -> Sequence[Object]:
        """Return the objects of a collection, such as `/api/v1/services`."""
        answer = self.call("GET", f"{path}?{urlencode(query)}")
        items: Sequence[Object] = answer["items"]
        return items

    def watch(self, path: str, *, within_s: float, **query: str) -> Iterator[Object]:
        """Yield watch events, those that tell of what exists first, until the time is up."""
        query = {"watch": "1", "timeoutSeconds": str(max(1, round(within_s))), **query}
        with closing(self.connect(within_s + 1)) as connection:
            connection.request("GET", f"{path}?{urlencode(query)}", headers=self._headers)
            with connection.getresponse() as response:
                if response.status != http.HTTPStatus.OK:
                    raise ApiError(f"watch {path}", response.status, _decode(response.read()))
                for line in response:
                    yield json.loads(line)

    def create_all(self, objects: Iterable[Object], *, connections: int = 16) -> None:
        """Create many objects, over several connections at once."""

        def create(wanted: Object) -> None:
            self.call("POST", collection(wanted), wanted, accept=_SHORT_ANSWER)

        with ThreadPoolExecutor(connections) as pool:
            for _ in pool.map(create, objects):
                pass

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Object:
        """Make one request and return the answer. Raises ApiError, OSError, HTTPException."""
        content = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": content_type, "Accept": accept}
        status, answer = self._exchange(method, path, content, headers)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(f"{method} {path}", status, _decode(answer))
        return _decode(answer)

    def close(self) -> None:
        """Close the connections; the next call opens another."""
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        kept = self._idle.pop() if self._idle else None
        connection = kept or self.connect(LONGEST_S)
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            answer = response.read()
        except (ConnectionError, ssl.SSLError):
            connection.close()
            if kept is None:
                raise
            return self._exchange(method, path, content, headers)  # it was closed while idle
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, answer

    def connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        """Return a connection of its own; it is the caller's to close."""
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, context=self._tls, timeout=timeout_s
        )


def collection(which: Mapping[str, Any]) -> str:
    """Return the path of the collection that an object lives in."""
    version, kind = which["apiVersion"], which["kind"]
    start = f"/apis/{version}" if "/" in version else f"/api/{version}"
    resources = kind.lower() + ("es" if kind.endswith("s") else "s")
    if kind in _OF_THE_CLUSTER:
        return f"{start}/{resources}"
    namespace = which["metadata"].get("namespace", "default")
    return f"{start}/namespaces/{quote(namespace, safe='')}/{resources}"


def address(which: Mapping[str, Any]) -> str:
    """Return the path of an object."""
    return f"{collection(which)}/{quote(which['metadata']['name'], safe='')}"


def _decode(answer: bytes) -> Object:
    """Return the object in an answer; what is no JSON (`ok`) becomes its message."""
    try:
        decoded = json.loads(answer)
    except ValueError:
        decoded = None
    return decoded if isinstance(decoded, dict) else {"message": answer.decode(errors="replace")}
