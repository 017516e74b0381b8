"""An API server, and the way to it."""

from __future__ import annotations

import logging

import pytest

from kproxy.watch.api.access import Access, connect
from tests.fake_api.fixtures import fake, server
from tests.watch.api.following import Following

__all__ = ["fake", "server"]


class Requests:
    """What the hook for metrics is told."""

    def __init__(self):
        self.seen = []

    def __call__(self, verb, code, host, seconds):
        self.seen.append((verb, code, host, seconds))


@pytest.fixture
def requests():
    return Requests()


@pytest.fixture
def api(fake, tmp_path, requests):
    """The fake API server as the proxy reaches it."""
    file = fake.fake.write_kubeconfig(tmp_path / "kubeconfig")
    return connect(Access(kubeconfig=str(file)), requested=requests)


@pytest.fixture
def follow(api, caplog):
    """Start following one kind; ends with the test."""
    caplog.set_level(logging.INFO, "test")
    started = []

    def start(kind, **times):
        following = Following(api, kind, **times)
        started.append(following)
        return following

    yield start
    for following in started:
        following.close()
