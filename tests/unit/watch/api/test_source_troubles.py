"""Bad days: the source names what is wrong, takes nothing back meanwhile, and gets over it."""

import dataclasses
import json

import pytest

from kproxy.core.objects import Kind
from kproxy.core.store import Replaced
from kproxy.ports.source import SourceState
from tests.support.fake_api.faults import (
    Answer,
    Cut,
    Drop,
    Edit,
    Hang,
    Silence,
    Trickle,
    gone,
    html,
    internal_error,
    redirect,
    too_many_requests,
    unavailable,
)
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.resources import SERVICES
from tests.support.fake_api.samples import endpoint_slice, service
from tests.support.fake_api.server import FakeApi
from tests.support.fake_api.source import QUICK, log_lines, own_node, run
from tests.support.fake_api.tls import Tls
from tests.support.fake_api.watching import bookmark

# For a server that does not say a word any more.
SHORT = dataclasses.replace(QUICK, answer_s=0.2, idle_s=0.2)
PODS = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}})

TROUBLES = {
    "hang": (Hang(), "does not answer"),
    "drop": (Drop(), "breaks off the connection"),
    "reset": (Drop(reset=True), ""),
    "500": (internal_error(), "etcdserver: no leader"),
    "503": (unavailable(), "answers 503: service unavailable"),
    "page": (html(200), "answers in text/html"),
    "page of a proxy": (html(502), "answers 502"),
    "gzip": (Answer(200, b"{}", headers=(("Content-Encoding", "gzip"),)), "services"),
    "garbage": (Answer(200, b"{garbage\n"), "services"),
    "nothing": (Answer(200, b""), "services"),
    "404": (Answer(404, b"404 page not found\n", "text/plain"), "does not have it (404)"),
    "redirect": (redirect("https://127.0.0.1:1/"), "is no API server (307)"),
}


@pytest.fixture(autouse=True)
def cluster(fake):
    """Give the server a little to deliver."""
    fake.put(own_node(), service("web", "10.96.1.1"), endpoint_slice("web-1"))


def times(fault):
    """Give up soon where nothing comes; where something does it may take its time."""
    return SHORT if isinstance(fault, Hang | Silence) else QUICK


def services(count):
    return [service(f"s{i}", f"10.96.{2 + i // 250}.{i % 250 + 1}") for i in range(count)]


@pytest.mark.parametrize(("fault", "words"), TROUBLES.values(), ids=TROUBLES)
def test_trouble_at_the_start_is_outlived(fake, tmp_path, caplog, fault, words):
    rule = fake.fake.next("services", fault, times=3)

    async def story(follower):
        await follower.same()
        assert rule.used == 3
        assert follower.history[0] == {"web": 80}

    run(fake, tmp_path, story, times=times(fault))
    assert any(words in line and line.startswith("Service: ") for line in log_lines(caplog))


@pytest.mark.parametrize(("fault", "words"), TROUBLES.values(), ids=TROUBLES)
def test_trouble_when_a_watch_is_opened_again_is_outlived(fake, tmp_path, caplog, fault, words):
    async def story(follower):
        await follower.listed()
        await follower.following()
        rule = fake.fake.next("services", fault, times=2)
        fake.fake.cut("services", partial=b'{"type":"MODIFI')
        fake.put(service("new", "10.96.1.2"))
        await follower.same()
        assert rule.used == 2
        assert follower.never_lost("web")

    run(fake, tmp_path, story, times=times(fault))
    assert any(words in line and line.startswith("Service: ") for line in log_lines(caplog))


@pytest.mark.parametrize(
    "fault",
    [
        *(fault for fault, _ in TROUBLES.values()),
        Answer(200, PODS.encode()),
        Cut(after=700),
        Cut(after=700, reset=True),
        Silence(after=700),
        Trickle(),
        gone(),
    ],
    ids=[*TROUBLES, "pods", "cut", "cut by reset", "silence", "trickle", "410"],
)
def test_trouble_with_a_list_is_outlived(fake, tmp_path, fault):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    fake.put(*services(5))
    rule = fake.fake.next("services", fault, verb="list", times=2)

    async def story(follower):
        await follower.same()
        assert rule.used in (1, 2)
        assert len(follower.history[0]) == 6, "a list is delivered as a whole"

    run(fake, tmp_path, story, times=times(fault))


@pytest.mark.parametrize(
    "fault", [Cut(after=2500), Cut(after=2500, reset=True), Silence(after=2500)]
)
def test_half_a_streamed_list_is_no_list(fake, tmp_path, fault):
    fake.put(*services(30))
    rule = fake.fake.next("services", fault, times=2)

    async def story(follower):
        await follower.same()
        assert rule.used == 2
        assert len(follower.history[0]) == 31

    run(fake, tmp_path, story, times=times(fault))


def test_what_is_cut_off_is_said_in_words(fake, tmp_path, caplog):
    fake.fake.serve_streaming_lists(Streaming.FORBIDDEN)
    fake.fake.next("services", Cut(after=200), verb="list")

    async def story(follower):
        await follower.same()

    run(fake, tmp_path, story)
    (said,) = [line for line in log_lines(caplog) if line.startswith("Service: cannot list")]
    assert "IncompleteRead" not in said
    assert "(" not in said, "in an operator's words, not in a library's"


def test_a_trickle_is_patiently_listened_to(fake, tmp_path):
    async def story(follower):
        await follower.listed()
        fake.put(service("new", "10.96.1.2"))
        await follower.same()
        assert follower.state() is SourceState.FOLLOWING

    with fake.fake.during("services", Trickle()):
        run(fake, tmp_path, story)


def test_nothing_is_delivered_before_slices_are_listed_too(fake, tmp_path):
    async def story(follower):
        with fake.fake.during("endpointslices", Hang()) as rule:
            await follower.until(lambda: follower.status().lists and rule.used > 1)
            assert follower.batches == []
        await follower.same()

    run(fake, tmp_path, story, times=SHORT)


def test_retry_after_is_honoured(fake, tmp_path):
    async def story(follower):
        await follower.listed()
        first, second = fake.fake.asked("services")[:2]
        assert second.at_s - first.at_s >= 1.0, "it asked us to wait for a second"

    fake.fake.next("services", too_many_requests(1))
    run(fake, tmp_path, story)


def test_nobody_is_followed_to_another_server(fake, tmp_path):
    with FakeApi() as other:
        fake.fake.next("services", redirect(f"{other.url}/api/v1/services"), times=3)

        async def story(follower):
            await follower.same()
            assert other.requests == []

        run(fake, tmp_path, story)


def test_a_watch_that_hangs_is_noticed(fake, tmp_path, caplog):
    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.freeze("services")
        fake.put(service("new", "10.96.1.2"))
        await follower.same()
        assert follower.status().lists == 1

    run(fake, tmp_path, story, times=SHORT)
    assert any("has said nothing" in line for line in log_lines(caplog))


def test_a_list_whose_end_is_never_said_is_asked_for_in_pages(fake, tmp_path):
    def without_end(lines):
        return b"".join(line for line in lines.splitlines(True) if b"BOOKMARK" not in line)

    async def story(follower):
        with fake.fake.during("services", Edit(without_end)):
            await follower.same()
        assert fake.fake.asked("services", "list")

    run(fake, tmp_path, story, times=SHORT)


def test_a_bookmark_moves_the_place_to_go_on_from(fake, tmp_path):
    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.tick(1000)
        fake.fake.compact()
        fake.fake.bookmark("services")
        version = str(fake.fake.version)
        fake.put(service("new", "10.96.1.2"))  # so that the bookmark was read before
        await follower.same()
        fake.fake.cut("services")
        await follower.until(lambda: len(fake.fake.asked("services", "watch")) > 1)
        again = fake.fake.asked("services", "watch")[-1]
        assert int(again.query["resourceVersion"]) >= int(version)
        fake.put(service("newer", "10.96.1.3"))
        await follower.same()
        assert follower.status().lists == 1

    run(fake, tmp_path, story)


def test_a_bookmark_alone_is_enough_to_go_on_from(fake, tmp_path):
    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.tick(1000)
        version = fake.fake.version
        fake.fake.say("services", bookmark(SERVICES, version))
        fake.fake.end("services")
        await follower.until(lambda: len(fake.fake.asked("services", "watch")) > 1)
        again = fake.fake.asked("services", "watch")[-1]
        assert again.query["resourceVersion"] == str(version)

    run(fake, tmp_path, story)


@pytest.mark.parametrize("fault", [gone(), None], ids=["by the answer", "by an event"])
def test_a_version_that_is_too_old_leads_to_a_new_list(fake, tmp_path, fault):
    def happen():
        if fault is not None:
            fake.fake.next("services", fault, verb="watch")
        fake.fake.cut("services")
        fake.fake.delete("services", "default", "web")
        fake.fake.put("services", service("new", "10.96.1.2"))
        fake.fake.compact()

    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.at_once(happen)
        await follower.same()
        assert follower.ports() == {"new": 80}
        assert follower.status().lists == 2
        assert any(isinstance(change, Replaced) for change in follower.batches[-1])

    run(fake, tmp_path, story)


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls.OTHER_CA, "is not signed by the CA in"),
        (Tls.OTHER_NAME, "is not for 127.0.0.1, so this may be another server"),
        (Tls.EXPIRED, "has expired (or this node's clock is wrong)"),
        (Tls.NONE, "does not speak TLS"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_told_nothing(fake, tmp_path, tls, words):
    fake.fake.stop()
    fake.fake.start(tls)

    async def story(follower):
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        assert words in follower.status().detail
        assert fake.fake.requests == [], "and it does not learn our token"
        fake.fake.stop()
        fake.fake.start()
        await follower.same()

    run(fake, tmp_path, story)


def test_a_token_that_expires_is_read_again(fake, tmp_path, caplog):
    kubeconfig = fake.write_kubeconfig(tmp_path / "kubeconfig")
    expired = fake.token

    async def story(follower):
        await follower.listed()
        await follower.following()
        fake.fake.revoke(fake.token)
        fake.fake.cut("services")
        await follower.until(lambda: follower.state() is SourceState.FAILING)
        assert "expired" in follower.status().detail
        assert follower.ports() == {"web": 80}
        fake.token = fake.fake.issue("system:serviceaccount:kube-system:kube-proxy")
        fake.write_kubeconfig(kubeconfig)
        fake.put(service("new", "10.96.1.2"))
        await follower.same()

    run(fake, tmp_path, story, kubeconfig=kubeconfig)
    assert expired not in caplog.text
    assert fake.token not in caplog.text


def test_service_cidrs_that_the_server_does_not_have_are_off_until_it_has(fake, tmp_path, caplog):
    fake.fake.remove("servicecidrs")

    async def story(follower):
        await follower.listed()
        assert follower.state(Kind.SERVICE_CIDR) is SourceState.OFF
        assert "does not have it (404)" in follower.status(Kind.SERVICE_CIDR).detail
        fake.fake.restore("servicecidrs")
        await follower.same()
        await follower.following(Kind.SERVICE_CIDR)
        assert list(follower.store.all(Kind.SERVICE_CIDR))
        fake.fake.remove("servicecidrs")
        fake.fake.cut("servicecidrs")
        await follower.until(lambda: follower.state(Kind.SERVICE_CIDR) is SourceState.OFF)
        await follower.until(lambda: not list(follower.store.all(Kind.SERVICE_CIDR)))
        assert follower.ports() == {"web": 80}

    run(fake, tmp_path, story)


def test_a_connection_that_is_gone_when_it_is_used_again_is_no_trouble(fake, tmp_path, caplog):
    async def story(follower):
        await follower.listed()
        for port in range(81, 86):
            fake.fake.end("services")
            fake.fake.next("services", Drop(), verb="watch")
            fake.put(service("web", "10.96.1.1", port=port))
            await follower.same()
        assert follower.status().lists == 1

    run(fake, tmp_path, story)
