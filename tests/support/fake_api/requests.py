"""A request as the API server understands it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.fake_api.resources import RESOURCES, Resource

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what was sent, and what it means.

    `resource` None: the server has none like that; `group` and `plural` are those of the path even
    then. `name` is that of the path, or of a field selector for one name. `at_s` is on the
    monotonic clock.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    resource: Resource | None
    group: str
    plural: str
    namespace: str
    name: str
    verb: str
    user: str = ""
    at_s: float = 0.0

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")

    @property
    def bearer(self) -> str | None:
        """Return the token that was sent, None if there was none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else None


def understand(method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
    """Return what a request means."""
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    group, version, rest = "", "", []
    if parts[0] == "api" and len(parts) > 1:
        version, rest = parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    namespace = ""
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    plural, name = (*rest, "", "")[:2]
    resource = RESOURCES.get(plural)
    if resource is not None and (resource.group, resource.version) != (group, version):
        resource = None
    return Request(
        method=method,
        path=url.path,
        query=query,
        headers=headers,
        body=body,
        resource=resource,
        group=group,
        plural=plural,
        namespace=namespace,
        name=name or _selected_name(query),
        verb=_VERBS.get(method) or _read_verb(query, name),
    )


def _read_verb(query: Mapping[str, str], name: str) -> str:
    if query.get("watch", "").lower() not in ("", "false", "0"):
        return "watch"
    return "get" if name else "list"


def _selected_name(query: Mapping[str, str]) -> str:
    """Return the name that a field selector asks for: access control looks at it."""
    selector = query.get("fieldSelector", "")
    key, _, name = selector.partition("=")
    return name.removeprefix("=") if key == "metadata.name" and "," not in name else ""
