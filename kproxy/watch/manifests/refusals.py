"""Everything for which an object is refused, where the parser stops at the first reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from kproxy.core.objects import InvalidObject
from kproxy.core.parse import from_builtins

MAX_REFUSALS = 5  # of one object; who repaired these hears of the rest
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_LABELS = "metadata.labels"
_PORT = re.compile(r"spec\.ports\[(\d{1,4})\]\.port")


def refusals(document: Mapping[str, object], first: InvalidObject) -> Iterator[InvalidObject]:
    """Yield `first` and what else is wrong: what there is to say without each wrong field."""
    error: InvalidObject | None = first
    for _ in range(MAX_REFUSALS):
        if error is None:
            return
        yield error
        left = _without(document, error.field)
        if left is None:
            return
        document = left
        error = _refusal(document, error.field)


def _refusal(document: Mapping[str, object], already: str) -> InvalidObject | None:
    try:
        from_builtins(document)
    except InvalidObject as error:
        return None if error.field == already else error
    return None


def _without(document: Mapping[str, object], path: str) -> Mapping[str, object] | None:
    """Return a document that lacks the value at a path, None if that cannot be told.

    What must be there is replaced by what would be right.
    """
    port = _PORT.fullmatch(path)
    right: object = None
    if port:
        right = 1 + int(port[1])
    elif path == "metadata.name":
        right = "x"
    elif path == "addressType":
        right = "IPv4"
    elif path.startswith(f"{_LABELS}."):  # whose names have dots of their own
        path = _LABELS
    steps = [name or int(index) for name, index in _STEP.findall(path)]
    left = _changed(document, steps, right)
    return left if isinstance(left, Mapping) else None


def _changed(value: object, steps: Sequence[str | int], right: object) -> object:
    """Return a copy of a value with `right`, or nothing for None, where some steps lead to.

    Returns None if they lead nowhere.
    """
    if not steps:
        return None
    step, *further = steps
    inner = _changed(_at(value, step), further, right) if further else right
    if further and inner is None:
        return None
    if isinstance(value, dict) and isinstance(step, str):
        left = {name: each for name, each in value.items() if name != step}
        return left if inner is None else {**left, step: inner}
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return [*value[:step], *([] if inner is None else [inner]), *value[step + 1 :]]
    return None


def _at(value: object, step: str | int) -> object:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        element: object = value[step]
        return element
    return None
