"""What an API server does on bad days, and what is made of it."""

import gc
import json
import logging

import pytest

from kproxy.core.objects import Kind
from kproxy.core.store import Replaced
from kproxy.ports.source import SourceState
from tests.support.fake_api import faults
from tests.support.fake_api.resources import SERVICES
from tests.support.fake_api.samples import node, service
from tests.support.fake_api.watching import bookmark, raw_event
from tests.support.open_files import open_files

GARBAGE = [
    b"garbage\n",
    b'{"type":"MODIFIED","object":{"kind":"Service"\n',
    b'{"type":"MODIFIED"}\n',
    b'{"type":"EXPLODED","object":{"kind":"Service","metadata":{"name":"a"}}}\n',
    b'{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"a"},"spec":{}}}\n',
    b'{"type":"MODIFIED","object":{"kind":"Service","metadata":{"name":7},"spec":{}}}\n',
    b'{"type":"MODIFIED","object":{"kind":"Service","spec":{}}}\n',
    b'{"type":"DELETED","object":[]}\n',
    b'{"type":"BOOKMARK","object":"late"}\n',
    b'{"type":"ERROR","object":{"kind":"Service"}}\n',
    b"\xff\xfe\n",
    b"[" * 100_000 + b"\n",
]

TOO_LARGE = faults.Answer(
    504,
    json.dumps(
        {
            "kind": "Status",
            "message": "Timeout: Too large resource version: 9, current: 2",
            "reason": "Timeout",
            "details": {"causes": [{"reason": "ResourceVersionTooLarge", "message": "..."}]},
            "code": 504,
        }
    ).encode(),
)


@pytest.fixture
def services(fake, follow):
    """Services a and b, listed and watched."""
    fake.fake.put("services", service("a"), service("b", "10.96.1.2"))
    following = follow(Kind.SERVICE)
    following.until_names("a", "b")
    following.until(lambda each: fake.fake.watching("services") == 1)
    return following


def miss_something(fake, *more):
    """Let the watch break, b go and c come, and more, before it is opened again."""

    def happen():
        fake.fake.cut("services")
        fake.fake.delete("services", "default", "b")
        fake.fake.put("services", service("c", "10.96.1.3"))
        for each in more:
            each()

    fake.fake.at_once(happen)


def answer_next_watch(fake, answer):
    return lambda: fake.fake.next("services", answer, verb="watch")


def test_a_version_that_is_too_old_makes_a_new_list_that_replaces(fake, services):
    miss_something(fake, fake.forget_history)

    services.until_names("a", "c")
    assert isinstance(services.batches[-1][0], Replaced)
    assert services.status.lists == 2
    assert services.status.state is SourceState.FOLLOWING, "nothing has failed"


def test_a_version_that_is_refused_by_status_makes_a_new_list_too(fake, services):
    miss_something(fake, answer_next_watch(fake, faults.gone()))

    services.until_names("a", "c")
    assert services.status.lists == 2


def test_a_version_of_the_future_makes_a_new_list(fake, services):
    """That is what a server says whose etcd was restored from a backup."""
    miss_something(fake, answer_next_watch(fake, TOO_LARGE))

    services.until_names("a", "c")
    assert services.status.lists == 2


@pytest.mark.parametrize("how", ["silence", "end", "cut"])
def test_a_server_restored_from_a_backup_is_listed_again(fake, follow, how):
    """It says nothing to who asks for what comes after a version that it has not come to yet."""
    services = follow(Kind.SERVICE, mute_s=0.2)
    services.until(lambda each: fake.fake.watching("services") == 1)
    if how == "silence":
        services.times.idle_s = 0.4
    fake.fake.say("services", bookmark(SERVICES, 10**6))
    fake.fake.end("services")
    services.until(lambda each: each.status.reconnects > 0 and fake.fake.watching("services") == 1)
    fake.fake.put("services", service("new"))
    services.until_quiet(0.3)
    match how:
        case "end":
            fake.fake.end("services")
        case "cut":
            fake.fake.cut("services")

    services.until_names("new")
    if how == "silence":  # more follow, as nothing happens
        assert services.status.lists > 1
    else:
        assert services.status.lists == 2


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: line[:60].decode(errors="replace"))
def test_garbage_makes_a_new_list_after_a_pause(fake, services, line, caplog):
    fake.fake.say("services", line)

    services.until(lambda each: each.status.lists == 2)
    assert services.objects.keys() == {"a", "b"}
    (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "forwarding goes on with what is known, trying again in" in said
    assert "\n" not in said


def test_what_was_said_before_an_error_is_not_lost(fake, services):
    good = raw_event("ADDED", {"apiVersion": "v1", "kind": "Service", **service("c", "10.96.1.3")})
    error = {"kind": "Status", "message": "try again", "reason": "ServiceUnavailable", "code": 503}
    fake.fake.say("services", good + raw_event("ERROR", error))

    services.until_names("a", "b", "c")
    services.until(lambda each: fake.fake.asked("services")[-1].query.get("resourceVersion"))
    assert services.status.lists == 1


def test_a_line_without_end_is_not_waited_for(fake, services):
    fake.fake.say("services", b'{"type":"MODIFIED","object":{"x":"' + b"x" * (17 << 20))

    services.until(lambda each: each.status.lists == 2)


def test_the_order_of_the_server_counts_not_the_version(fake, services):
    (newest,) = fake.fake.put("services", service("a", "10.96.1.7"))
    services.until(lambda each: each.objects["a"].cluster_ips == ("10.96.1.7",))
    older = {**newest, "spec": service("a", "10.96.1.8")["spec"]}
    older["metadata"] = {**newest["metadata"], "resourceVersion": "1"}
    older = {"kind": "Service", "apiVersion": "v1", **older}

    fake.fake.say("services", raw_event("MODIFIED", older))
    services.until(lambda each: each.objects["a"].cluster_ips == ("10.96.1.8",))


def test_what_is_deleted_without_ever_being_seen_does_no_harm(fake, services):
    gone = {"kind": "Service", "apiVersion": "v1", **service("never")}
    fake.fake.say("services", raw_event("DELETED", gone))
    fake.fake.delete("services", "default", "a")

    services.until_names("b")
    assert services.status.lists == 1


def test_a_watch_that_hangs_is_opened_again(fake, follow, caplog):
    services = follow(Kind.SERVICE, idle_s=1.0)
    services.until(lambda each: each.status.lists == 1)

    def happen():
        fake.fake.freeze("services")
        fake.fake.put("services", service("late"))

    fake.fake.at_once(happen)

    services.until_names("late")
    assert services.status.lists == 1
    assert "Service: the API server has said nothing for 1 s" in caplog.text


def test_a_watch_that_trickles_hangs(fake, follow):
    services = follow(Kind.SERVICE, idle_s=0.3)
    services.until(lambda each: each.status.lists == 1)
    fake.fake.next("services", faults.Trickle(pause_s=0.05), verb="watch")
    fake.fake.end("services")
    services.until(lambda each: each.status.reconnects > 0 and fake.fake.watching("services") == 1)
    fake.fake.put("services", service("slow"))

    services.until(lambda each: each.status.reconnects > 1)
    services.until_names("slow")


def test_bookmarks_keep_a_quiet_watch_open(fake, follow):
    idle_s, pause_s = 4.0, 0.1
    services = follow(Kind.SERVICE, idle_s=idle_s)
    services.until(lambda each: fake.fake.watching("services") == 1)
    for _ in range(round(1.2 * idle_s / pause_s)):
        services.until_quiet(pause_s)
        fake.fake.bookmark("services")

    assert services.status.reconnects == 0


@pytest.mark.parametrize("fault", [faults.too_many_requests(1), faults.unavailable(1)])
def test_a_server_is_left_alone_as_long_as_it_asks(fake, services, fault):
    fake.fake.next("services", fault, verb="watch")
    fake.fake.end("services")
    services.until(lambda each: len(fake.fake.asked("services")) == 3)
    _, refused, again = fake.fake.asked("services")

    services.until_state(SourceState.FOLLOWING)
    assert again.at_s - refused.at_s >= 1.0
    assert services.status.lists == 1, "the version is as good as before"


def test_a_version_the_server_stumbles_over_is_given_up(fake, services):
    fake.fake.next("services", faults.internal_error(), verb="watch")
    fake.fake.end("services")

    services.until(lambda each: each.status.lists == 2)


def test_a_server_that_is_gone_leaves_everything_as_it_was(fake, services, caplog):
    fake.fake.stop()
    services.until(lambda each: "refuses the connection" in each.status.detail)
    assert services.status.state is SourceState.FAILING
    assert services.objects.keys() == {"a", "b"}
    failed = services.status.since

    services.until(lambda each: len(caplog.messages) >= 4)
    assert services.status.since == failed
    fake.fake.start()
    fake.fake.put("services", service("c", "10.96.1.3"))
    services.until_names("a", "b", "c")
    assert services.status.state is SourceState.FOLLOWING


def test_failures_are_told_ever_more_rarely(fake, services, caplog):
    with fake.fake.during("services", faults.unavailable()) as rule:
        fake.fake.end("services")
        services.until(lambda each: rule.used >= 20)
    services.until_state(SourceState.FOLLOWING)

    said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert abs(len(said) - rule.used.bit_length()) <= 1, "the first, second, fourth and so on"
    assert "503" in said[0]


@pytest.mark.parametrize("told", [b"", b'{"type":"BOOKMARK","object":{}}'])
def test_a_watch_that_ends_as_it_begins_is_a_failure(fake, services, told):
    """Otherwise a server in trouble would be asked without a pause."""
    answer = faults.Answer(200, told)
    with fake.fake.during("services", answer, verb="watch") as rule:
        fake.fake.end("services")
        services.until(lambda each: "ends the watch as soon as it begins" in each.status.detail)
        services.until(lambda each: rule.used >= 4)
    services.until_state(SourceState.FOLLOWING)


def test_the_node_may_be_deleted_and_made_again(fake, follow):
    fake.fake.put("nodes", node("n1"))
    nodes = follow(Kind.NODE)
    nodes.until_names("n1")
    fake.fake.delete("nodes", "", "n1")
    nodes.until_names()
    fake.fake.put("nodes", node("n1"))
    nodes.until_names("n1")


def test_connections_that_break_leave_no_socket_open(fake, services):
    def sockets():
        gc.collect()
        return sum("socket" in name for name in open_files().values())

    with fake.fake.during("services", faults.Drop(reset=True)) as rule:
        fake.fake.end("services")
        services.until(lambda each: rule.used > 5)
        before = sockets()
        services.until(lambda each: rule.used > 35)
        assert sockets() < before + 10


@pytest.mark.parametrize("fault", [faults.Hang(), faults.Silence(), faults.Trickle(pause_s=0.01)])
def test_nothing_keeps_it_from_stopping(fake, follow, fault):
    with fake.fake.during("services", fault) as rule:
        services = follow(Kind.SERVICE, answer_s=60.0, idle_s=60.0)
        services.until(lambda each: rule.used == 1)
        services.close()


def test_a_pause_does_not_keep_it_from_stopping(fake, follow):
    fake.fake.stop()
    services = follow(Kind.SERVICE, backoff_first_s=30.0)
    services.until_state(SourceState.FAILING)

    services.close()
