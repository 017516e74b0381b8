"""Why a service port has no endpoint to forward to: which slice, port or label is the cause."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.core.objects import ObjectKey


class LeftOut(NamedTuple):
    """Something that would have endpoints if it was right.

    `service` is the Service that it would be of, None if it does not say. `where` it was found.
    """

    what: str
    key: ObjectKey
    service: ObjectKey | None
    why: str
    where: str = ""
