"""Watches that say what makes no sense, or what is no valid object."""

import pytest

from tests.support.fake_api.samples import endpoint_slice, service
from tests.support.fake_api.source import log_lines, own_node, run
from tests.support.fake_api.watching import raw_event


@pytest.fixture(autouse=True)
def cluster(fake):
    """Give the server a little to deliver."""
    fake.put(own_node(), service("web", "10.96.1.1"), endpoint_slice("web-1"))


SAYINGS = {
    "garbage": b"garbage\n",
    "an empty object": b"{}\n",
    "a list": b"[]\n",
    "another type": raw_event("RENAMED", service("web", "10.96.1.1")),
    "another kind": raw_event(
        "MODIFIED", {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}}
    ),
    "the deletion of another kind": raw_event(
        "DELETED", {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}}
    ),
    "an object without a name": raw_event("ADDED", {"kind": "Service", "metadata": {}}),
    "a deletion of nothing": raw_event("DELETED", {"kind": "Service", "metadata": {}}),
    "an error": raw_event("ERROR", {"kind": "Status", "code": 500, "message": "no"}),
    "410": raw_event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"}),
    "410 by another name": raw_event("ERROR", {"kind": "Status", "code": 410, "reason": "Gone"}),
    "an error that is none": raw_event("ERROR", service("web")),
    "a bookmark of nowhere": raw_event("BOOKMARK", {"kind": "Service"}),
    "invalid UTF-8": b'{"type":"ADDED","object":{"kind":"\xff"}}\n',
    "a line that does not end": b"x" * (17 << 20),
}


@pytest.mark.parametrize("said", SAYINGS.values(), ids=SAYINGS)
def test_nonsense_in_a_watch_does_no_harm(fake, tmp_path, said):
    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.say("services", said)
        fake.put(service("new", "10.96.1.2"))
        await follower.same()
        fake.put(service("newer", "10.96.1.3"))
        await follower.same()
        assert follower.never_lost("web")

    run(fake, tmp_path, story)


def test_events_that_no_server_sends_are_taken_as_they_are_meant(fake, tmp_path):
    async def story(follower):
        await follower.listed()
        await follower.following()
        (old,) = fake.fake.objects("services")
        fake.put(service("web", "10.96.1.1", port=81))
        (new,) = fake.fake.objects("services")
        unknown = service("unknown", "10.96.1.9")
        unknown["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"]
        fake.fake.say(
            "services",
            raw_event("ADDED", new),  # it is there already
            raw_event("DELETED", unknown),  # it never was
            raw_event("MODIFIED", unknown),  # it was not added
            raw_event("MODIFIED", new),
            raw_event("MODIFIED", new),
        )
        await follower.until(lambda: follower.ports() == {"web": 81, "unknown": 80})
        fake.fake.say("services", raw_event("MODIFIED", old))  # late
        fake.put(service("web", "10.96.1.1", port=82))
        await follower.until(lambda: follower.ports() == {"web": 82, "unknown": 80})
        assert follower.status().lists == 1, "no reason to list again"

    run(fake, tmp_path, story)


def test_an_invalid_object_is_refused_alone_and_said_once(fake, tmp_path, caplog):
    fake.put(service("bad", "10.96.1.256"))

    async def story(follower):
        await follower.listed()
        assert follower.ports() == {"web": 80}
        assert follower.status().refused == 1
        fake.put(service("bad", "10.96.1.2"))
        await follower.until(lambda: follower.ports() == {"web": 80, "bad": 80})
        assert follower.status().refused == 0
        fake.put(service("bad", "10.96.1.256", port=81), service("web", "10.96.1.1", port=82))
        await follower.until(lambda: follower.ports() == {"web": 82})
        fake.fake.cut("services")
        fake.fake.compact()
        fake.put(service("web", "10.96.1.1", port=83))
        await follower.until(lambda: follower.ports() == {"web": 83})
        assert follower.status().refused == 1
        fake.delete(service("bad"))
        await follower.until(lambda: follower.status().refused == 0)

    run(fake, tmp_path, story)
    said = [line for line in log_lines(caplog) if "10.96.1.256" in line]
    assert len(said) == 2, "each time it turned invalid"


def test_an_object_may_be_as_large_as_a_server_stores_it(fake, tmp_path):
    large = service("large", "10.96.1.2")
    large["metadata"]["annotations"] = {"x": "y" * (2 << 20)}
    fake.put(large)

    async def story(follower):
        await follower.same()
        assert follower.names() == {"web", "large"}

    run(fake, tmp_path, story)
