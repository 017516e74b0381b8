"""/flagz and /statusz, as text for people and as versioned objects for programs.

Formats: k8s.io/apiserver/pkg/server/flagz and statusz. Which one a client gets follows its Accept
header; an object has to be asked for by its kind, as in
`application/json;as=Statusz;v=v1beta1;g=config.k8s.io`.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import yaml

from kproxy.run.http.message import JSON, PLAIN_TEXT, Handler, Request, Response, go_time, to_json

_COMPONENT = "kube-proxy"
_GROUP = "config.k8s.io"
_VERSIONS = ("v1beta1", "v1alpha1")
_DEPRECATED = "v1alpha1"
_NS = 1_000_000_000
_WARNING = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility "
    "guarantees and is for debugging purposes only."
)


@dataclass(frozen=True, slots=True)
class About:
    """What this program is: its version, the Kubernetes version it is like, when it started."""

    version: str
    kubernetes: str
    started_ns: int
    wall_ns: Callable[[], int]

    @property
    def uptime_s(self) -> int:
        """How long it runs."""
        return max(0, self.wall_ns() - self.started_ns) // _NS


def flagz(flags: Callable[[], Mapping[str, str]]) -> Handler:
    """Return the page of command-line flags and their values."""

    def answer(request: Request) -> Response:
        values = dict(sorted(flags().items()))
        lines = [f"{name}: {value}\n" for name, value in values.items()]
        return _negotiate(request, "Flagz", "".join(lines), {"flags": values})

    return answer


def statusz(about: About, paths: Iterable[str]) -> Handler:
    """Return the page about the process; `paths` are the other pages of the server."""
    listed = sorted({"/" + path.split("/")[1] for path in paths})

    def answer(request: Request) -> Response:
        return _negotiate(request, "Statusz", _status_text(about, listed), _status(about, listed))

    return answer


def _status(about: About, listed: list[str]) -> dict[str, object]:
    return {
        "startTime": go_time(about.started_ns // _NS * _NS),
        "uptimeSeconds": about.uptime_s,
        "binaryVersion": about.version,
        "emulationVersion": about.kubernetes,
        "paths": listed,
    }


def _status_text(about: About, listed: list[str]) -> str:
    started = time.strftime("%a %b %e %H:%M:%S UTC %Y", time.gmtime(about.started_ns // _NS))
    up = about.uptime_s
    lines = (
        "",
        f"Started: {started}",
        f"Up: {up // 3600} hr {up // 60 % 60:02d} min {up % 60:02d} sec",
        f"Python version: {platform.python_version()}",
        f"Binary version: {about.version}",
        f"Emulation version: {about.kubernetes}",
        f"Paths: {' '.join(listed)}",
    )
    return "\n".join(lines) + "\n"


def _negotiate(request: Request, kind: str, text: str, fields: Mapping[str, object]) -> Response:
    """Answer in the first form that the client accepts."""
    for media_type, parameters in _accepted(request.accept or "text/plain"):
        wish = {name: parameters[name] for name in ("as", "g", "v") if name in parameters}
        if not wish and media_type in ("text/plain", "text/*", "*/*"):
            page = f"\n{_COMPONENT} {kind.lower()}\n{_WARNING}\n{text}"
            return Response(200, (PLAIN_TEXT,), page.encode(errors="replace"))
        version = wish.get("v", "")
        if version not in _VERSIONS or wish != {"as": kind, "g": _GROUP, "v": version}:
            continue
        if media_type in ("application/json", "application/*", "*/*"):
            return _object("application/json", kind, version, fields)
        if media_type == "application/yaml":
            return _object("application/yaml", kind, version, fields)
    return _not_acceptable()


def _accepted(header: str) -> list[tuple[str, dict[str, str]]]:
    """Return the media ranges of an Accept header with their parameters, the best first."""
    ranges = []
    for clause in header.split(","):
        media_type, *pieces = (piece.strip() for piece in clause.split(";"))
        parameters = dict(piece.split("=", 1) for piece in pieces if "=" in piece)
        ranges.append((media_type, parameters))
    return sorted(ranges, key=lambda each: -_quality(each[1].get("q", "1")))


def _quality(text: str) -> float:
    """Return a weight (RFC 9110, section 12.4.2); what is none counts as 0."""
    digits = text.replace(".", "", 1)
    return min(float(text), 1.0) if digits.isascii() and digits.isdigit() else 0.0


def _object(media_type: str, kind: str, version: str, fields: Mapping[str, object]) -> Response:
    value = {
        "kind": kind,
        "apiVersion": f"{_GROUP}/{version}",
        "metadata": {"name": _COMPONENT},
        **fields,
    }
    if media_type == "application/yaml":
        body = yaml.safe_dump(value).encode()
    else:
        body = to_json(value) + b"\n"
    headers = [("Content-Type", f"{media_type};g={_GROUP};v={version};as={kind}")]
    if version == _DEPRECATED:
        headers.append(("Warning", f'299 - "{kind} {version} is deprecated, use {_VERSIONS[0]}"'))
    return Response(200, tuple(headers), body)


def _not_acceptable() -> Response:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "only the following media types are accepted: "
        "application/json, application/yaml, text/plain",
        "reason": "NotAcceptable",
        "code": 406,
    }
    return Response(406, (JSON,), json.dumps(status, indent=2).encode())
