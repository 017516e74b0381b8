"""Lists that do not come, come in part, or make no sense."""

import json
import re

import pytest

from kproxy.core.objects import Kind
from kproxy.ports.source import SourceState
from tests.support.fake_api import faults
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.samples import service


@pytest.mark.parametrize("streaming", [Streaming.SERVED, Streaming.FORBIDDEN])
def test_a_server_that_does_not_answer_is_asked_again(fake, follow, streaming, caplog):
    fake.fake.serve_streaming_lists(streaming)
    fake.fake.put("services", service("a"))
    hung = fake.fake.next("services", faults.Hang(), times=2)

    services = follow(Kind.SERVICE, answer_s=0.2)
    services.until_state(SourceState.FAILING)
    assert services.status.detail.endswith(" does not answer")
    services.until_names("a")
    assert hung.used == 2
    services.until_state(SourceState.FOLLOWING)
    assert "Service: in touch again after" in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        faults.Silence(after=50),
        faults.Cut(after=50),
        faults.Cut(after=50, reset=True),
        faults.Trickle(pause_s=0.1),
    ],
    ids=lambda fault: type(fault).__name__,
)
@pytest.mark.parametrize("streaming", [Streaming.SERVED, Streaming.FORBIDDEN])
def test_a_list_that_comes_in_part_is_no_list(fake, follow, fault, streaming):
    fake.fake.serve_streaming_lists(streaming)
    fake.fake.put("services", service("a"), service("b", "10.96.1.2"))
    verb = "watch" if streaming is Streaming.SERVED else "list"
    rule = fake.fake.next("services", fault, verb=verb)

    services = follow(Kind.SERVICE, answer_s=0.3, idle_s=0.3)
    services.until_names("a", "b")

    assert rule.used == 1
    assert len(services.batches) == 1, "and nothing was told before"
    assert services.status.lists == 1


def test_pages_that_go_out_of_date_are_asked_for_in_one(fake, follow):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    fake.fake.put(
        "services", *(service(f"s{n}", f"10.96.{n >> 8}.{n & 255}") for n in range(1, 700))
    )
    fake.fake.next("services", faults.Edit(lambda body: body), verb="list")
    expired = fake.fake.next("services", faults.gone(), verb="list")

    services = follow(Kind.SERVICE)
    services.until(lambda each: len(each.objects) == 699)

    assert expired.used == 1
    listed = [request.query.get("limit") for request in fake.fake.asked("services", "list")]
    assert listed == ["500", "500", None]


def test_after_a_failure_pages_are_tried_again(fake, follow):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    fake.fake.next("services", faults.gone(), verb="list")
    fake.fake.next("services", faults.internal_error(), verb="list")

    follow(Kind.SERVICE).until(lambda each: each.status.lists == 1)

    listed = [request.query.get("limit") for request in fake.fake.asked("services", "list")]
    assert listed == ["500", None, "500"]


def test_a_page_that_repeats_itself_is_garbage(fake, follow):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    page = {
        "kind": "ServiceList",
        "metadata": {"resourceVersion": "5", "continue": "again"},
        "items": [],
    }
    rule = fake.fake.next(
        "services", faults.Answer(200, json.dumps(page).encode()), verb="list", times=2
    )
    services = follow(Kind.SERVICE)

    services.until(lambda each: each.status.lists == 1)
    assert rule.used == 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b'{"kind":"ServiceList","metadata":{"resourceVersion":"5"},"items":[{"kind"',
        b'{"kind":"PodList","metadata":{"resourceVersion":"5"},"items":[]}',
        b'{"kind":"ServiceList","metadata":{},"items":[]}',
        b'{"kind":"ServiceList","metadata":{"resourceVersion":"5"},"items":{}}',
        b'{"kind":"ServiceList","metadata":{"resourceVersion":"5"},"items":[{"kind":"Pod",'
        b'"metadata":{"name":"a"},"spec":{}}]}',
        b'{"kind":"Status","code":200}',
    ],
)
def test_a_list_that_makes_no_sense_is_asked_for_again(fake, follow, body):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    fake.fake.put("services", service("a"))
    fake.fake.next("services", faults.Answer(200, body), verb="list")

    services = follow(Kind.SERVICE)
    services.until_names("a")
    assert len(services.batches) == 1


def test_a_server_that_takes_no_notice_of_streaming_is_asked_for_pages(fake, follow):
    def without_mark(text):
        return text.replace(b'"annotations":{"k8s.io/initial-events-end":"true"},', b"").replace(
            b',"annotations":{"k8s.io/initial-events-end":"true"}', b""
        )

    fake.fake.put("services", service("a"))
    rule = fake.fake.next("services", faults.Edit(without_mark), verb="watch")
    services = follow(Kind.SERVICE)
    services.until_names("a")

    assert rule.used == 1
    assert len(fake.fake.asked("services", "list")) == 1
    assert not services.abilities.streams_lists


def test_a_streamed_list_without_a_version_is_garbage(fake, follow):
    def without_version(text):
        return re.sub(rb'("BOOKMARK".*"resourceVersion":)"\d+"', rb'\1""', text)

    fake.fake.put("services", service("a"))
    rule = fake.fake.next("services", faults.Edit(without_version), verb="watch")
    services = follow(Kind.SERVICE)
    services.until_names("a")

    assert rule.used == 1
    assert len(fake.fake.asked("services")) == 2
    assert services.status.lists == 1


def test_pages_that_are_too_large_are_asked_for_in_halves(fake, follow, monkeypatch):
    monkeypatch.setattr("kproxy.watch.api.stream.MAX_PAGE_BYTES", 64 << 10)
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    for number in range(1, 41):
        large = service(f"s{number}", f"10.96.0.{number}")
        large["metadata"]["annotations"] = {"x": "y" * (8 << 10)}
        fake.fake.put("services", large)

    services = follow(Kind.SERVICE)
    services.until(lambda each: len(each.objects) == 40)

    listed = [request.query["limit"] for request in fake.fake.asked("services", "list")]
    assert listed[:7] == ["500", "250", "125", "62", "31", "15", "7"]
    assert set(listed[7:]) == {"7"}
    assert services.status.lists == 1


def test_an_object_that_is_too_large_alone_is_garbage(fake, follow, monkeypatch):
    monkeypatch.setattr("kproxy.watch.api.stream.MAX_PAGE_BYTES", 4 << 10)
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    large = service("large", "10.96.0.1")
    large["metadata"]["annotations"] = {"x": "y" * (8 << 10)}
    fake.fake.put("services", large)

    services = follow(Kind.SERVICE)
    services.until_state(SourceState.FAILING)

    assert services.status.detail.endswith("sends no list (more than 4096 bytes)")
