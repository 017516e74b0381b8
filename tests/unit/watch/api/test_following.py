"""Lists and watches of a healthy API server, and how they go on after an interruption."""

import pytest
from urllib3.util.connection import create_connection

from kproxy.core.objects import Kind
from kproxy.core.store import Replaced
from kproxy.ports.source import SourceState
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import HEADLESS, OTHER_PROXY, endpoint_slice, node, service

STREAMING = [Streaming.SERVED, Streaming.FORBIDDEN, Streaming.UNKNOWN, Streaming.BROKEN]


def address(following, name):
    return following.objects[name].cluster_ips


def queries(fake, resource, verb):
    return [request.query for request in fake.fake.asked(resource, verb)]


@pytest.mark.parametrize("streaming", STREAMING, ids=lambda each: each.name)
def test_what_there_is_comes_first_and_then_what_changes(fake, follow, streaming):
    fake.fake.serve_streaming_lists(streaming)
    fake.fake.put("services", service("a", "10.96.1.1"), service("b", "10.96.1.2"))

    services = follow(Kind.SERVICE)
    services.until_names("a", "b")
    assert [type(change) for change in services.batches[0]] == [Replaced]

    fake.fake.put("services", service("c", "10.96.1.3"), service("a", "10.96.1.4"))
    services.until_names("a", "b", "c")
    services.until(lambda each: address(each, "a") == ("10.96.1.4",))
    fake.fake.delete("services", "default", "b")
    services.until_names("a", "c")
    assert services.status.state is SourceState.FOLLOWING
    assert services.status.lists == 1
    assert services.status.reconnects == 0


@pytest.mark.parametrize("streaming", STREAMING, ids=lambda each: each.name)
def test_nothing_at_all_is_a_complete_list_too(fake, follow, streaming):
    fake.fake.serve_streaming_lists(streaming)

    slices = follow(Kind.ENDPOINT_SLICE)
    slices.until(lambda each: each.objects == {} and each.batches)

    assert slices.batches == [(Replaced(Kind.ENDPOINT_SLICE, ()),)]


def test_a_server_that_streams_lists_is_asked_once(fake, follow, requests):
    fake.fake.put("services", service("a"))
    follow(Kind.SERVICE).until_names("a")

    assert [seconds for *_, seconds in requests.seen] == [None], "what has no end takes no time"

    (request,) = fake.fake.asked("services")
    assert request.verb == "watch"
    assert request.query["sendInitialEvents"] == "true"


def test_a_server_that_does_not_is_asked_for_that_once(fake, follow):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    services = follow(Kind.SERVICE)
    services.until(lambda each: each.status.lists == 1)
    assert not services.abilities.streams_lists

    services.until(lambda each: fake.fake.watching("services") == 1)
    fake.forget_history()
    fake.fake.end("services")
    services.until(lambda each: each.status.lists == 2)
    assert len([q for q in queries(fake, "services", "watch") if "sendInitialEvents" in q]) == 1


def test_large_lists_come_in_pages(fake, follow):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    names = [f"s{number}" for number in range(1100)]
    fake.fake.put(
        "services", *(service(n, f"10.96.{i >> 8}.{i & 255}") for i, n in enumerate(names, 1))
    )

    services = follow(Kind.SERVICE)
    services.until_names(*names)

    listed = queries(fake, "services", "list")
    assert [query["limit"] for query in listed] == ["500"] * 3
    assert ["continue" in query for query in listed] == [False, True, True]
    assert len(services.batches) == 1
    assert not any("resourceVersion" in query for query in listed)


def test_only_what_concerns_this_node_is_asked_for(fake, follow):
    fake.fake.put(
        "services",
        service("plain", "10.96.1.1"),
        service("headless", "None"),
        service("other", "10.96.1.2", **{OTHER_PROXY: ""}),
    )
    fake.fake.put(
        "endpointslices", endpoint_slice("plain-1"), endpoint_slice("headless-1", **{HEADLESS: ""})
    )
    fake.fake.put("nodes", node("n1"), node("n2"))

    follow(Kind.SERVICE).until_names("plain")
    follow(Kind.ENDPOINT_SLICE).until_names("plain-1")
    follow(Kind.NODE).until_names("n1")


@pytest.mark.parametrize("how", ["ended", "cut", "reset", "cut within an object"])
def test_a_watch_that_ends_goes_on_after_its_last_event(fake, follow, how):
    services = follow(Kind.SERVICE)
    services.until(lambda each: each.status.lists == 1)
    fake.fake.put("services", service("a"))
    reached = str(fake.fake.version)
    services.until_names("a")

    match how:
        case "ended":
            fake.fake.end("services")
        case "cut":
            fake.fake.cut("services")
        case "reset":
            fake.fake.cut("services", reset=True)
        case _:
            fake.fake.cut("services", partial=b'{"type":"MODIFIED","object":{"kind":"Serv')
    services.until(lambda each: each.status.reconnects == 1)
    fake.fake.put("services", service("b", "10.96.1.2"))
    services.until_names("a", "b")

    assert queries(fake, "services", "watch")[-1]["resourceVersion"] == reached
    assert services.status.lists == 1
    assert services.status.state is SourceState.FOLLOWING
    assert services.status.detail == ""


def test_a_watch_that_ends_goes_on_after_its_last_bookmark(fake, follow):
    services = follow(Kind.SERVICE)
    services.until(lambda each: each.status.lists == 1)
    fake.fake.tick(5)
    reached = str(fake.fake.version)
    fake.fake.bookmark("services")
    fake.fake.end("services")

    services.until(lambda each: len(fake.fake.asked("services")) == 2)
    assert queries(fake, "services", "watch")[-1]["resourceVersion"] == reached


def test_watches_last_five_to_ten_minutes(fake, follow):
    services = follow(Kind.SERVICE, hasty_s=0.0)
    for ends in range(1, 8):
        services.until(lambda each: fake.fake.watching("services") == 1)
        fake.fake.end("services")
        services.until(lambda each, ends=ends: each.status.reconnects == ends)

    lasting = {int(query["timeoutSeconds"]) for query in queries(fake, "services", "watch")}
    assert all(300 <= seconds <= 600 for seconds in lasting)
    assert len(lasting) > 1


def test_each_watch_has_a_connection_of_its_own_and_ends_it(fake, follow, monkeypatch):
    made = []

    def connect_to(address, *rest, **options):
        made.append(create_connection(address, *rest, **options))
        return made[-1]

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect_to)
    services = follow(Kind.SERVICE, hasty_s=0.0)
    for ends in (1, 2, 3):
        services.until(lambda each: fake.fake.watching("services") == 1)
        fake.fake.end("services")
        services.until(lambda each, ends=ends: each.status.reconnects == ends)
    services.until(lambda each: fake.fake.watching("services") == 1)

    assert len(made) == 4


def test_an_interruption_is_worth_no_line_in_the_log(fake, follow, caplog):
    services = follow(Kind.SERVICE)
    services.until(lambda each: each.status.lists == 1)
    caplog.clear()
    for ends in (1, 2, 3):
        services.until(lambda each: fake.fake.watching("services") == 1)
        fake.fake.bookmark("services")
        fake.fake.end("services")
        services.until(lambda each, ends=ends: each.status.reconnects == ends)
    assert caplog.messages == []
