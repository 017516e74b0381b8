"""The `Status` bodies with which an API server refuses, as a 1.37.1 was seen to send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tests.support.fake_api.resources import Resource


@dataclass(frozen=True, slots=True)
class Status:
    """A refusal: `retry_after_s` 0 means that the server does not say when to ask again."""

    code: int
    reason: str
    message: str
    details: Mapping[str, object] | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    retry_after_s: int = 0

    def document(self) -> dict[str, object]:
        details = dict(self.details or {})
        if self.retry_after_s:
            details["retryAfterSeconds"] = self.retry_after_s
        body: dict[str, object] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(self.metadata),
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None or details:
            body["details"] = details
        return {**body, "code": self.code}

    def body(self) -> bytes:
        return msgspec.json.encode(self.document()) + b"\n"


class Refusal(Exception):
    """Ends a request with a Status."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Cause:
    """What is wrong with one field; `type` is the API's word for it."""

    type: str
    field: str
    message: str


def required(name: str) -> Cause:
    return Cause("FieldValueRequired", name, "Required value")


def invalid_value(name: str, why: str, value: str = "") -> Cause:
    return Cause("FieldValueInvalid", name, f'Invalid value: "{value}": {why}')


def forbidden_field(name: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", name, f"Forbidden: {why}")


def invalid(kind: str, name: str, causes: Sequence[Cause], group: str = "") -> Status:
    """Return what a wrong object or wrong options are answered with."""
    listed = [f"{cause.field}: {cause.message}" for cause in causes]
    why = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    qualified = f"{kind}.{group}" if group else kind
    details = {
        **({"name": name} if name else {}),
        **({"group": group} if group else {}),
        "kind": kind,
        "causes": [{"reason": c.type, "message": c.message, "field": c.field} for c in causes],
    }
    return Status(422, "Invalid", f'{qualified} "{name}" is invalid: {why}', details)


def invalid_options(*causes: Cause) -> Status:
    return invalid("ListOptions", "", causes, group="meta.k8s.io")


def bad_request(message: str) -> Status:
    return Status(400, "BadRequest", message)


def unauthorized() -> Status:
    return Status(401, "Unauthorized", "Unauthorized")


def forbidden(resource: Resource, *, user: str, verb: str, namespace: str, name: str) -> Status:
    """Return what role-based access control answers."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f'{resource.qualified} "{name}"' if name else resource.qualified
    message = (
        f'{what} is forbidden: User "{user}" cannot {verb} resource "{resource.name}" '
        f'in API group "{resource.group}" {where}'
    )
    return Status(403, "Forbidden", message, _about(resource, name))


def not_found(resource: Resource, name: str) -> Status:
    return Status(
        404, "NotFound", f'{resource.qualified} "{name}" not found', _about(resource, name)
    )


def no_such_resource() -> Status:
    """Return what an API group answers for a resource that it does not have."""
    return Status(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(resource: Resource, name: str) -> Status:
    message = f'{resource.qualified} "{name}" already exists'
    return Status(409, "AlreadyExists", message, _about(resource, name))


def conflict(resource: Resource, name: str) -> Status:
    message = (
        f'Operation cannot be fulfilled on {resource.qualified} "{name}": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    return Status(409, "Conflict", message, _about(resource, name))


def unsupported_media_type(message: str, details: Mapping[str, object] | None = None) -> Status:
    return Status(415, "UnsupportedMediaType", message, details)


def expired(message: str, metadata: Mapping[str, object] | None = None) -> Status:
    return Status(410, "Expired", message, metadata=metadata or {})


def too_large_version(wanted: int, current: int) -> Status:
    """Return what a version is answered with that the server has not come to."""
    what = "Too large resource version"
    details = {"causes": [{"reason": "ResourceVersionTooLarge", "message": what}]}
    message = f"Timeout: {what}: {wanted}, current: {current}"
    return Status(504, "Timeout", message, details, retry_after_s=1)


def _about(resource: Resource, name: str) -> dict[str, object]:
    return {
        **({"name": name} if name else {}),
        **({"group": resource.group} if resource.group else {}),
        "kind": resource.name,
    }
