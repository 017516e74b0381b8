"""Kubeconfig files, and what comes of them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from kproxy.watch.api.access import Access, Api, connect
from kproxy.watch.api.errors import ApiError

Fields = dict[str, Any]

SECRET = "very.secret-token"


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


def by(file: Path, **fields: Any) -> Api:
    return connect(Access(kubeconfig=str(file), **fields))


def tokens(fake: Any) -> list[str]:
    """Return the tokens with which Services were asked for."""
    return [request.bearer for request in fake.fake.asked("services")]


def refusal(file: Path, **fields: Any) -> str:
    """Return why a kubeconfig is refused."""
    with pytest.raises(ApiError) as caught:
        by(file, **fields)
    text = str(caught.value)
    assert text.isprintable()
    assert SECRET not in text
    return text
