"""Requests to the API server as RBAC sees them: a verb and a resource, and who made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

# One line for every request of a ServiceAccount, written before the answer goes out.
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """What a rule of a role allows."""

    group: str
    resource: str
    verb: str


def rights(rules: Iterable[Mapping[str, Any]]) -> frozenset[Right]:
    """Return what rules of a role allow; those about URLs are left out."""
    return frozenset(
        Right(*each)
        for rule in rules
        for each in product(rule.get("apiGroups", ()), rule.get("resources", ()), rule["verbs"])
    )


class Audit:
    """The audit log of an API server, from here on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin = file.stat().st_size if file.exists() else 0

    def requested(self, user: str) -> frozenset[Right]:
        """Return what a user has asked for and was given."""
        return frozenset(
            Right(asked.get("apiGroup", ""), asked["resource"], line["verb"])
            for line in self._lines()
            if line["user"]["username"] == user
            and line.get("annotations", {}).get("authorization.k8s.io/decision") == "allow"
            and (asked := line.get("objectRef")) is not None
        )

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._file.open("rb") as log:
            log.seek(self._begin)
            whole, _, _ = log.read().rpartition(b"\n")
        return map(json.loads, whole.splitlines())
