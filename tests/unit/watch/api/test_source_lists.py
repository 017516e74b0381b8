"""How the source lists: what it asks for, and what it does where a server cannot stream."""

import pytest

from kproxy.core.objects import Kind
from tests.support.fake_api.faults import Edit
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import service
from tests.support.fake_api.source import SELECTORS, own_node, run

PLURALS = {
    Kind.SERVICE: "services",
    Kind.ENDPOINT_SLICE: "endpointslices",
    Kind.NODE: "nodes",
    Kind.SERVICE_CIDR: "servicecidrs",
}


@pytest.fixture(autouse=True)
def cluster(fake):
    """Give the server more than a page."""
    fake.put(own_node())
    fake.fake.put("services", *(_service(i) for i in range(1100)))


def _service(number):
    return service(f"s{number:04}", f"10.97.{number >> 8}.{number & 255}")


def test_lists_are_streamed_and_watched_in_one_request(fake, tmp_path):
    async def story(follower):
        await follower.same()
        await follower.following()
        for kind, plural in PLURALS.items():
            (request,) = fake.fake.asked(plural)
            assert request.verb == "watch"
            assert request.query["sendInitialEvents"] == "true"
            assert request.query["allowWatchBookmarks"] == "true"
            assert "resourceVersion" not in request.query, "as new as the data"
            assert 300 <= int(request.query["timeoutSeconds"]) <= 600
            selectors = ("labelSelector", "fieldSelector")
            asked = {name: request.query[name] for name in selectors if name in request.query}
            assert asked == SELECTORS[kind]
            assert request.user_agent.startswith("kproxy/")

    run(fake, tmp_path, story)


@pytest.mark.parametrize("streaming", [Streaming.FORBIDDEN, Streaming.UNKNOWN, Streaming.BROKEN])
def test_a_server_that_cannot_stream_is_asked_for_pages(fake, tmp_path, streaming):
    fake.fake.serve_streaming_lists(streaming)

    async def story(follower):
        await follower.same()
        await follower.following()
        pages = fake.fake.asked("services", "list")
        assert [page.query["limit"] for page in pages] == ["500"] * 3
        assert ["continue" in page.query for page in pages] == [False, True, True]
        assert all("resourceVersion" not in page.query for page in pages)
        watch = fake.fake.asked("services", "watch")[-1]
        assert "sendInitialEvents" not in watch.query
        assert watch.query["allowWatchBookmarks"] == "true"
        fake.put(service("s0000", "10.97.0.0", port=81))
        await follower.until(lambda: follower.ports()["s0000"] == 81)

    run(fake, tmp_path, story)


def test_what_changes_between_the_pages_is_not_missed(fake, tmp_path):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)

    def meanwhile(page):
        fake.fake.delete("services", "default", "s1000")
        fake.fake.put("services", service("s0000", "10.97.0.0", port=81))
        return page

    fake.fake.next("services", Edit(meanwhile), verb="list")

    async def story(follower):
        await follower.same()
        assert follower.ports()["s0000"] == 81
        assert "s1000" not in follower.ports()
        assert follower.status().lists == 1

    run(fake, tmp_path, story)


def test_pages_that_expire_half_way_are_no_list(fake, tmp_path):
    """The server offers to go on with the rest as it is now; s0000 would come back to life so."""
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)

    def expire(page):
        fake.fake.delete("services", "default", "s0000")
        fake.fake.compact()
        return page

    rule = fake.fake.next("services", Edit(expire), verb="list")

    async def story(follower):
        await follower.same()
        assert rule.used == 1
        assert "s0000" not in follower.history[0]
        assert len(follower.history[0]) == 1099

    run(fake, tmp_path, story)


def test_a_list_that_never_stays_long_enough_for_pages_comes_in_one(fake, tmp_path):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)

    def expire(page):
        fake.fake.tick()
        fake.fake.compact()
        return page

    async def story(follower):
        with fake.fake.during("services", Edit(expire), verb="list"):
            await follower.same()
        assert len(follower.ports()) == 1100

    run(fake, tmp_path, story)


def test_a_server_that_learns_to_stream_is_believed_to_be_as_before(fake, tmp_path):
    """An upgraded control plane is only asked in the old way: that works for ever."""
    fake.fake.serve_streaming_lists(Streaming.UNKNOWN)

    async def story(follower):
        await follower.same()
        fake.fake.serve_streaming_lists(Streaming.SERVED)
        fake.fake.compact()
        fake.cut()
        fake.put(service("s0000", "10.97.0.0", port=81))
        await follower.same()

    run(fake, tmp_path, story)


def test_a_server_that_forgets_how_to_stream_is_asked_for_pages(fake, tmp_path):
    """One of several API servers may be older than the others, for hours of an upgrade."""

    async def story(follower):
        await follower.same()
        await follower.following()
        fake.fake.serve_streaming_lists(Streaming.UNKNOWN)
        fake.leave()
        fake.fake.delete("services", "default", "s0000")
        fake.fake.compact()
        fake.come_back()
        await follower.same()
        assert follower.status().lists == 2

    run(fake, tmp_path, story)
