"""Events about this proxy, as they arrive at the API server."""

import logging
import time

import pytest

from kproxy.watch.api.events import MAX_NOTE_BYTES, MAX_WAITING, SERIES_S, Events
from kproxy.watch.api.times import Times
from tests.support.fake_api import faults
from tests.support.waiting import LONGEST_S

STARTING = {
    "kind": "Node",
    "namespace": "",
    "name": "n1",
    "type": "Normal",
    "reason": "Starting",
    "action": "StartKubeProxy",
    "note": "",
}
NOT_LISTENING = {
    "kind": "Service",
    "namespace": "default",
    "name": "web",
    "uid": "6a1b2c3d-0000-4000-8000-000000000000",
    "type": "Warning",
    "reason": "FailedToStartServiceHealthcheck",
    "action": "Listen",
    "note": "port 30000 is taken",
}


class Clock:
    def __init__(self):
        self.now = 1767322800.5

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def events(api, clock, caplog):
    caplog.set_level(logging.INFO, "test")
    times = Times(backoff_first_s=0.01, backoff_most_s=0.02)
    poster = Events(api, node_name="n1", log=logging.getLogger("test"), now=clock, times=times)
    yield poster
    poster.close()


def posted(fake, count):
    """Wait for so many events, and return them in their order."""
    wait(lambda: len(fake.fake.objects("events")) >= count)
    return sorted(fake.fake.objects("events"), key=lambda each: each["metadata"]["uid"])


def wait(true):
    deadline = time.monotonic() + LONGEST_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_event_of_a_node_is_that_of_kube_proxy(fake, events):
    events.post(**STARTING)

    (event,) = posted(fake, 1)
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("n1.")
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1"}
    assert event["eventTime"] == "2026-01-02T03:00:00.500000Z"
    assert event["type"] == "Normal"
    assert event["reason"] == "Starting"
    assert event["action"] == "StartKubeProxy"
    assert event["reportingController"] == "kube-proxy"
    assert event["reportingInstance"] == "kube-proxy-n1"


def test_an_event_of_a_service_is_in_its_namespace(fake, events):
    events.post(**NOT_LISTENING)

    (event,) = posted(fake, 1)
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"]["namespace"] == "default"
    assert event["regarding"]["uid"] == NOT_LISTENING["uid"]
    assert event["note"] == "port 30000 is taken"


def test_what_happens_again_is_counted_at_the_second_time_the_fourth_and_so_on(fake, events, clock):
    for _ in range(9):
        clock.now += 1
        events.post(**NOT_LISTENING)
    events.post(**STARTING)

    first, _ = posted(fake, 2)
    assert first["series"]["count"] == 8
    assert first["series"]["lastObservedTime"] == "2026-01-02T03:00:08.500000Z"
    assert [request.verb for request in fake.fake.asked("events")] == [
        "create",
        "patch",
        "patch",
        "patch",
        "create",
    ]


def test_what_happens_again_much_later_is_new(fake, events, clock):
    events.post(**NOT_LISTENING)
    clock.now += SERIES_S + 1
    events.post(**NOT_LISTENING)

    assert len(posted(fake, 2)) == 2


def test_a_series_that_nobody_remembers_is_posted_anew(fake, events):
    events.post(**NOT_LISTENING)
    (event,) = posted(fake, 1)
    fake.fake.delete("events", "default", event["metadata"]["name"])
    events.post(**NOT_LISTENING)

    (newer,) = posted(fake, 1)
    assert newer["metadata"]["name"] != event["metadata"]["name"]


@pytest.mark.parametrize("letter", ["x", "ä", "\ud800"])
def test_a_note_is_as_long_as_the_api_takes(fake, events, letter):
    events.post(**{**NOT_LISTENING, "note": letter * 2000})

    (event,) = posted(fake, 1)
    assert MAX_NOTE_BYTES - 2 < len(event["note"].encode()) <= MAX_NOTE_BYTES


def test_a_long_name_still_makes_an_event(fake, events):
    events.post(**{**STARTING, "name": "a" * 229 + "." + "b" * 20})

    (event,) = posted(fake, 1)
    assert len(event["metadata"]["name"]) <= 253
    assert ".." not in event["metadata"]["name"]


def test_a_server_in_trouble_is_asked_again(fake, events):
    rule = fake.fake.next("events", faults.unavailable(), times=3)
    events.post(**STARTING)

    posted(fake, 1)
    assert rule.used == 3


def test_an_event_that_arrived_without_a_word_is_not_posted_twice(fake, events, caplog):
    dropped = fake.fake.next("events", faults.Drop())
    events.post(**STARTING)
    wait(lambda: len(fake.fake.asked("events")) == 2)
    events.post(**NOT_LISTENING)

    assert len(posted(fake, 2)) == 2
    assert dropped.used == 1
    assert caplog.messages == []


def test_but_not_for_ever(fake, events, caplog):
    rule = fake.fake.next("events", faults.unavailable(), times=5)
    events.post(**STARTING)
    wait(lambda: rule.used == 5)
    events.post(**NOT_LISTENING)

    (event,) = posted(fake, 1)
    assert event["reason"] == NOT_LISTENING["reason"]
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith("event Starting of Node n1 is dropped: cannot create events")


def test_an_event_that_is_refused_is_dropped_at_once(fake, events, caplog):
    events.post(**{**STARTING, "reason": ""})
    events.post(**STARTING)

    assert len(posted(fake, 1)) == 1
    assert len(fake.fake.asked("events")) == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("how", ["forbid", "remove"])
def test_a_refusal_is_a_pause_and_not_the_end(fake, events, caplog, monkeypatch, how):
    monkeypatch.setattr("kproxy.watch.api.events.PAUSE_S", 0.3)
    if how == "forbid":
        fake.fake.forbid("events", ("create", "patch"))
    else:
        fake.fake.remove("events")
    events.post(**STARTING)
    wait(lambda: caplog.records)
    if how == "forbid":
        fake.fake.permit("events", ("create", "patch"))
    else:
        fake.fake.restore("events")
    events.post(**NOT_LISTENING)
    (event,) = posted(fake, 1)

    assert event["reason"] == NOT_LISTENING["reason"]
    first, second = fake.fake.asked("events")
    assert second.at_s - first.at_s >= 0.3
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith("event Starting of Node n1 is dropped, and none is posted for 0 s: ")


def test_a_namespace_that_is_gone_is_no_reason_to_stop(fake, events):
    events.post(**{**NOT_LISTENING, "namespace": "gone"})
    events.post(**STARTING)

    (event,) = posted(fake, 1)
    assert event["reason"] == "Starting"


def test_a_flood_is_dropped_and_keeps_nobody_waiting(fake, events, caplog):
    with fake.fake.during("events", faults.Hang()) as rule:
        events.post(**STARTING)
        wait(lambda: rule.used == 1)
        started = time.monotonic()
        for number in range(MAX_WAITING + 50):
            events.post(**{**NOT_LISTENING, "name": f"s{number}"})
        assert time.monotonic() - started < LONGEST_S, "it never answers"
        said = [r.getMessage() for r in caplog.records]
        assert len(said) == 1
        assert said[0].endswith("is dropped: too many are waiting")
        events.close()


def test_closing_does_not_wait_for_the_server(fake, events):
    with fake.fake.during("events", faults.Hang()) as rule:
        events.post(**STARTING)
        wait(lambda: rule.used == 1)
        started = time.monotonic()
        events.close()
        assert time.monotonic() - started < LONGEST_S, "it never answers"
    events.post(**STARTING)
    assert len(fake.fake.asked("events")) == 1
