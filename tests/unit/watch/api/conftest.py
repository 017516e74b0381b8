"""An API server, and the way to it."""

from __future__ import annotations

import logging

import pytest

from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.errors import Doing
from tests.support.fake_api.fixtures import fake
from tests.support.waiting import LONGEST_S
from tests.unit.watch.api.following import Following
from tests.unit.watch.api.kubeconfigs import encoded

__all__ = ["fake"]


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


@pytest.fixture
def cluster(fake):
    """What a kubeconfig says of the fake API server."""
    return {
        "server": fake.fake.url,
        "certificate-authority-data": encoded(fake.fake.ca_pem),
    }


@pytest.fixture
def at_once(monkeypatch):
    """Let a minute pass between any two requests."""
    monkeypatch.setattr("kproxy.watch.api.access.RELOAD_S", 0.0)


@pytest.fixture
def ask():
    """Ask for Services as somebody whose session ends with the test."""
    sessions = {}

    def ask(api):
        session = sessions.setdefault(id(api), api.session())
        with session.request(
            Doing("list", "services"), "/api/v1/services", answer_s=LONGEST_S
        ) as got:
            got.read()
            return got.status

    yield ask
    for session in sessions.values():
        session.close()
