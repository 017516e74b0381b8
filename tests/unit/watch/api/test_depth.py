"""Objects that nest as deeply as an API server takes them; nobody looks at what is down there."""

import pytest

from kproxy.core.objects import Kind
from tests.support.fake_api.faults import Edit
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import service
from tests.support.fake_api.watching import raw_event
from tests.support.recursion import recursion_limit

_HERE = b'"as deep as can be"'
_DEEP = b'{"f:a":' * 9_990 + b"{}" + b"}" * 9_990
_USUAL = 1000


@pytest.fixture(autouse=True)
def usual_limit():
    """Let Python recurse as it does from the start."""
    with recursion_limit(_USUAL):
        yield


def deep(name, address, **fields):
    made = service(name, address, **fields)
    made["metadata"]["managedFields"] = [{"fieldsV1": _HERE.decode().strip('"')}]
    return made


def deepened(text):
    return text.replace(_HERE, _DEEP)


@pytest.mark.parametrize("streaming", [Streaming.SERVED, Streaming.FORBIDDEN])
def test_a_deep_object_is_listed_like_any(fake, follow, streaming):
    fake.fake.serve_streaming_lists(streaming)
    fake.fake.put("services", deep("deep", "10.96.1.1"), service("flat", "10.96.1.2"))
    verb = "watch" if streaming is Streaming.SERVED else "list"
    edited = fake.fake.next("services", Edit(deepened), verb=verb, times=99)

    services = follow(Kind.SERVICE)
    services.until_names("deep", "flat")

    assert edited.used == services.status.lists == 1


def test_a_deep_object_is_watched_like_any(fake, follow):
    fake.fake.put("services", service("flat", "10.96.1.2"))
    services = follow(Kind.SERVICE)
    services.until_names("flat")

    fake.fake.say("services", deepened(raw_event("ADDED", deep("deep", "10.96.1.1"))))
    services.until_names("deep", "flat")

    assert services.status.lists == 1


def test_a_deep_object_that_is_invalid_is_refused_alone(fake, follow):
    fake.fake.put("services", deep("deep", "10.96.1.1", port="x"), service("flat", "10.96.1.2"))
    fake.fake.next("services", Edit(deepened), verb="watch", times=99)

    services = follow(Kind.SERVICE)
    services.until_names("flat")

    assert services.status.refused == 1
