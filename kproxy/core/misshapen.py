"""What is wrong with a document of the wrong shape: which object, which field, which value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from kproxy.core.objects import InvalidObject, Kind, ObjectKey
from kproxy.core.words import mismatch, quoted

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises: msgspec leaves invalid UTF-8 and deep nesting to Python's own errors."""

_PATH_IN_MESSAGE = re.compile(r" - at (?:key in )?`\$\.?(.*)`$", re.DOTALL)
_MISSING_IN_MESSAGE = re.compile(r"Object missing required field `(\w+)`")
_PATH_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_ANY_LABEL = "metadata.labels[...]"
_MOST_LABELS = 3  # named beside the first
_OUTLINE_LEVELS = 12  # no field that is read here lies deeper
_NAMESPACED = (Kind.SERVICE, Kind.ENDPOINT_SLICE)


def reported_key(kind: Kind, namespace: object, name: object) -> ObjectKey:
    """Return the key of an invalid object, the same that it has once it is valid."""
    if kind not in _NAMESPACED:
        namespace = ""
    elif namespace is None:
        namespace = "default"
    return ObjectKey(
        namespace if isinstance(namespace, str) else "?",
        name if isinstance(name, str) and name else "?",
    )


def outline(raw: bytes | msgspec.Raw, levels: int = _OUTLINE_LEVELS) -> object:
    """Return what JSON holds down to some levels, None for what is no JSON at all.

    Values of the levels below are left out: anybody may nest them so deeply that to build them up
    takes more stack than a thread has.
    """
    try:
        match bytes(raw).lstrip()[:1]:
            case b"{":
                fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
                return {k: outline(v, levels - 1) for k, v in fields.items()} if levels else {}
            case b"[":
                items = msgspec.json.decode(raw, type=list[msgspec.Raw])
                return [outline(item, levels - 1) for item in items] if levels else []
            case _:
                return msgspec.json.decode(raw)
    except UNDECODABLE:
        return None


def misshapen(kind: Kind, document: object, error: msgspec.ValidationError) -> InvalidObject:
    """Turn msgspec's message into field, value and reason.

    That the document is of another kind comes first: it explains all else.
    """
    other = document.get("kind") if isinstance(document, Mapping) else None
    if other not in (None, kind.value):
        return of_other_kind(kind, _key_of(kind, document), other)
    text = str(error)
    found = _PATH_IN_MESSAGE.search(text)
    path = found.group(1) if found else ""
    why = text[: found.start()] if found else text
    missing = _MISSING_IN_MESSAGE.match(why)
    if missing is not None:
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
    labels = _wrong_labels(document) if path == _ANY_LABEL else {}
    key = _key_of(kind, document)
    if labels:
        (name, value), *others = labels.items()
        field = f"metadata.labels.{name}"
        return InvalidObject(kind.value, key, field, _plain(value), _label(value, others))
    if missing is not None:
        return InvalidObject(kind.value, key, path, None, "is missing")
    value = _value_at(document, path)
    said = mismatch(why, value) or why.replace("`", "")
    return InvalidObject(kind.value, key, path or "(all)", value, said)


def _wrong_labels(document: object) -> dict[str, object]:
    """Return the labels that are no text."""
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    items = labels.items() if isinstance(labels, Mapping) else ()
    return {name: value for name, value in items if not isinstance(value, str)}


def _label(value: object, others: Sequence[tuple[str, object]]) -> str:
    """Return what is wrong with a label's value, and which other labels are wrong too."""
    why = "must be text; " + ('write ""' if value is None else "put it in quotes")
    if others:
        why += f", and so {', '.join(quoted(name) for name, _ in others[:_MOST_LABELS])}"
    if len(others) > _MOST_LABELS:
        why += f" and {len(others) - _MOST_LABELS} more"
    return why


def of_other_kind(kind: Kind, key: ObjectKey, said: object) -> InvalidObject:
    """Refuse a document that says it is of another kind than the one asked for."""
    return InvalidObject(kind.value, key, "kind", said, f"must be {kind.value}")


def unencodable(kind: Kind, document: object, error: UnicodeEncodeError) -> InvalidObject:
    """Refuse a document with a text that no UTF-8 can hold; JSON and YAML can escape one."""
    why = "holds half a pair of surrogates, which is no character"
    return InvalidObject(kind.value, _key_of(kind, document), "(all)", error.object, why)


def _key_of(kind: Kind, document: object) -> ObjectKey:
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    if not isinstance(metadata, Mapping):
        return ObjectKey("", "?")
    return reported_key(kind, metadata.get("namespace"), metadata.get("name"))


def _value_at(document: object, path: str) -> object:
    value = document
    for step in _PATH_STEP.finditer(path):
        name, index = step.groups()
        if name is not None and isinstance(value, Mapping):
            value = value.get(name)
        elif index is not None and isinstance(value, Sequence) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return _plain(value)


def _plain(value: object) -> object:
    """Return a value that can be shown, None for what is no scalar."""
    return value if isinstance(value, str | int | float | bool) else None
