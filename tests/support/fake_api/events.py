"""What an API server demands of an `events.k8s.io/v1` Event (apis/core/validation/events.go)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.support.fake_api.statuses import (
    Cause,
    Refusal,
    bad_request,
    invalid,
    invalid_value,
    required,
)

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(?:Z|[-+]\d\d:\d\d)")
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_LONGEST = {"reportingInstance": 128, "action": 128, "reason": 128, "note": 1024}
_WRITTEN_ONCE = (
    "regarding",
    "related",
    "reason",
    "note",
    "type",
    "eventTime",
    "action",
    "reportingController",
    "reportingInstance",
)


def check_new(document: Mapping[str, object]) -> None:
    """Raise Refusal if the server would not store this event."""
    _check_times(document)
    causes = [
        required(name)
        for name in ("reportingController", "reportingInstance", "action", "reason", "eventTime")
        if not document.get(name)
    ]
    for name, limit in _LONGEST.items():
        if len(str(document.get(name, ""))) > limit:
            field = "message" if name == "note" else name
            causes.append(invalid_value(field, f"can have at most {limit} characters"))
    name, namespace = _key(document)
    if not _NAME.fullmatch(name) or len(name) > 253:
        causes.append(invalid_value("metadata.name", "a lowercase RFC 1123 subdomain", name))
    causes += _namespace_causes(document, namespace)
    kind = document.get("type", "")
    if kind not in ("Normal", "Warning"):
        causes.append(invalid_value("type", f"has invalid value: {kind}"))
    _refuse(name, [*causes, *_series_causes(document)])


def check_change(old: Mapping[str, object], new: Mapping[str, object]) -> None:
    """Raise Refusal if the server would not let an event become this."""
    _check_times(new)
    causes = [
        invalid_value("message" if name == "note" else name, "field is immutable")
        for name in _WRITTEN_ONCE
        if old.get(name) != new.get(name)
    ]
    _refuse(_key(new)[0], [*causes, *_series_causes(new)])


def _namespace_causes(document: Mapping[str, object], namespace: str) -> list[Cause]:
    regarding = document.get("regarding")
    about = regarding.get("namespace", "") if isinstance(regarding, dict) else ""
    if not about and namespace not in ("default", "kube-system"):
        return [invalid_value("involvedObject.namespace", "does not match event.namespace")]
    return []


def _series_causes(document: Mapping[str, object]) -> list[Cause]:
    series = document.get("series")
    if not isinstance(series, dict):
        return []
    causes = []
    if series.get("count", 0) < 2:
        causes.append(invalid_value("series.count", "should be at least 2"))
    if not series.get("lastObservedTime"):
        causes.append(required("series.lastObservedTime"))
    return causes


def _check_times(document: Mapping[str, object]) -> None:
    series = document.get("series")
    last = series.get("lastObservedTime") if isinstance(series, dict) else None
    for text in (document.get("eventTime"), last):
        if text and not _TIME.fullmatch(str(text)):
            why = (
                'Event in version "v1" cannot be handled as a Event: parsing time '
                f'"{text}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse'
            )
            raise Refusal(bad_request(why))


def _key(document: Mapping[str, object]) -> tuple[str, str]:
    metadata = document.get("metadata")
    assert isinstance(metadata, dict)
    return str(metadata.get("name", "")), str(metadata.get("namespace", ""))


def _refuse(name: str, causes: list[Cause]) -> None:
    if causes:
        raise Refusal(invalid("Event", name, causes))
