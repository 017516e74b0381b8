"""Events that the proxy posts, as either API server takes them."""

import logging
import time

import pytest

from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.events import SERIES_S, Events
from tests.support.fake_api.faults import Drop, Hang, html, too_many_requests, unavailable
from tests.support.fake_api.resources import EVENTS
from tests.support.fake_api.samples import service
from tests.support.fake_api.source import LOGGER, QUICK, log_lines
from tests.support.waiting import LONGEST_S

POSTED = EVENTS.collection()
STARTING = {"kind": "Node", "namespace": "", "name": "n1", "type": "Normal"}
STARTING |= {"reason": "Starting", "action": "StartKubeProxy", "note": ""}
LISTEN = {"kind": "Service", "namespace": "default", "name": "web", "type": "Warning"}
LISTEN |= {"reason": "FailedToStartServiceHealthcheck", "action": "Listen"}


class Clock:
    """The time of day, which a test moves."""

    def __init__(self):
        self.now_s = 1767323045.000006

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def post(server, tmp_path, clock):
    """Post events to either server."""
    api = connect(Access(kubeconfig=str(server.write_kubeconfig(tmp_path / "kubeconfig"))))
    log = logging.getLogger(LOGGER)
    events = Events(api, node_name="n1", log=log, now=clock, times=QUICK)
    yield events.post
    events.close()


def posted(server):
    """Return the events that are there, but for those of the cluster itself."""
    events = server.objects(POSTED)
    return [event for event in events if event.get("reportingController") == "kube-proxy"]


def eventually(condition):
    deadline = time.monotonic() + LONGEST_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_an_event_about_our_node_is_what_kube_proxy_posts(server, post):
    post(**STARTING)
    (event,) = eventually(lambda: posted(server))
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("n1.")
    assert (event["type"], event["reason"]) == ("Normal", "Starting")
    assert event["action"] == "StartKubeProxy"
    assert event["regarding"]["kind"] == "Node"
    assert event["regarding"]["name"] == "n1"
    assert event["eventTime"].startswith("2026-01-02T03:04:05.00000")
    assert event["reportingInstance"] == "kube-proxy-n1"


def test_an_event_about_a_service_is_beside_it(server, post):
    server.put(service("web"))
    post(**LISTEN, note="address in use \N{BLACK HEART SUIT}" * 100)
    (event,) = eventually(lambda: posted(server))
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"]["name"] == "web"
    assert 900 < len(event["note"].encode()) <= 1024
    assert event["note"].startswith("address in use \N{BLACK HEART SUIT}")


def test_what_repeats_itself_is_counted(server, post, clock):
    for _ in range(4):
        post(**STARTING)
        clock.now_s += 1
    (event,) = eventually(
        lambda: [e for e in posted(server) if (e.get("series") or {}).get("count") == 4]
    )
    assert len(posted(server)) == 1
    assert event["series"]["lastObservedTime"] > event["eventTime"]
    clock.now_s += SERIES_S + 1
    post(**STARTING)
    eventually(lambda: len(posted(server)) == 2)


def test_an_event_that_was_deleted_meanwhile_is_posted_anew(server, post):
    post(**STARTING)
    (event,) = eventually(lambda: posted(server))
    server.delete({"apiVersion": "events.k8s.io/v1", "kind": "Event", **event})
    post(**STARTING)
    (again,) = eventually(lambda: posted(server))
    assert again["metadata"]["name"] != event["metadata"]["name"]


@pytest.mark.parametrize(
    "fault", [Hang(), Drop(), unavailable(), html(502)], ids=["hang", "drop", "503", "page"]
)
@pytest.mark.parametrize("server", ["fake"], indirect=True)
def test_an_event_gets_through_in_the_end(server, post, fault, monkeypatch):
    monkeypatch.setattr("kproxy.watch.api.events.ANSWER_S", 0.2)
    server.fake.next("events", fault, times=2)
    post(**STARTING)
    (event,) = eventually(lambda: posted(server))
    assert event["reason"] == "Starting"
    assert len(server.fake.asked("events")) >= 3


@pytest.mark.parametrize("server", ["fake"], indirect=True)
def test_an_event_that_the_server_will_not_have_is_dropped_and_said(server, post, caplog):
    server.fake.forbid("events", ["create"])
    post(**STARTING)
    eventually(lambda: log_lines(caplog, logging.WARNING))
    post(**{**STARTING, "reason": "Other"})
    assert len(server.fake.asked("events")) == 1, "it would be refused again"
    assert "403" in log_lines(caplog, logging.WARNING)[0]


@pytest.mark.parametrize("server", ["fake"], indirect=True)
def test_nobody_waits_for_an_event(server, post):
    server.fake.next("events", Hang(), times=9)
    begin = time.monotonic()
    for number in range(500):
        post(**{**STARTING, "reason": f"Reason{number}"})
    assert time.monotonic() - begin < LONGEST_S, "the server never answers"


@pytest.mark.parametrize("server", ["fake"], indirect=True)
def test_a_server_that_has_too_much_to_do_is_left_alone(server, post):
    server.fake.next("events", too_many_requests(1))
    post(**STARTING)
    eventually(lambda: posted(server))
    first, second = server.fake.asked("events")
    assert second.at_s - first.at_s >= 1.0, "it asked us to wait for a second"


@pytest.mark.parametrize("server", ["fake"], indirect=True)
def test_an_event_whose_answer_is_lost_is_there_and_nothing_is_said(server, post, caplog):
    server.fake.next("events", Drop(late=True))
    post(**STARTING)
    eventually(lambda: len(server.fake.asked("events")) == 2)
    post(**LISTEN, note="")  # so that the first is done with
    eventually(lambda: len(posted(server)) == 2)
    assert log_lines(caplog, logging.WARNING) == []
