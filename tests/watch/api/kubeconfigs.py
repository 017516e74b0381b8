"""Kubeconfig files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import yaml

Fields = dict[str, Any]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def kubeconfig(cluster: Fields, user: Fields | None = None, **fields: Any) -> Fields:
    """Return a file's content: one context of one cluster and one user."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        **fields,
    }


def write(file: Path, document: object) -> Path:
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return file
