"""What a bad day looks like on the wire: without this, a test of a fault could test nothing."""

import http.client
import json
import re
import socket
import ssl

import pytest

from tests.support.fake_api.faults import (
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
from tests.support.fake_api.load import Size, load_server
from tests.support.fake_api.options import Streaming
from tests.support.fake_api.resources import EVENTS, SERVICE_CIDRS, SERVICES
from tests.support.fake_api.samples import event, service
from tests.support.fake_api.servers import STREAMING
from tests.support.fake_api.tls import Tls
from tests.support.fake_api.watching import bookmark, raw_event
from tests.support.waiting import LONGEST_S, until

PATH = SERVICES.collection()
SHORT_S = 0.1


class Line:
    """A bare connection: what arrives on it, and how it ends."""

    def __init__(self, server, **query):
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        head = f"GET {PATH}?{asked} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        self.socket = socket.create_connection(("127.0.0.1", server.fake.port), LONGEST_S)
        self.socket.sendall(f"{head}\r\n".encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def hears(self, is_all=lambda heard: True, *, quiet_s=LONGEST_S):
        """Return everything that arrives until the end, and how that came.

        Without an end, nothing arrives for `quiet_s` after what `is_all` takes for everything.
        """
        heard = b""
        try:
            while True:
                self.socket.settimeout(quiet_s if is_all(heard) else LONGEST_S)
                if not (data := self.socket.recv(1 << 16)):
                    return heard, "closed"
                heard += data
        except ConnectionResetError:
            return heard, "reset"
        except TimeoutError:
            return heard, "open"


@pytest.fixture
def bare(fake):
    """A fake without TLS, whose bytes can be looked at."""
    fake.fake.stop()
    fake.fake.start(Tls.NONE)
    fake.put = lambda *documents: fake.fake.put("services", *documents)
    fake.put(service("s1", "10.96.1.1"), service("s2", "10.96.1.2"))
    return fake


def body(heard):
    return heard.partition(b"\r\n\r\n")[2]


def is_whole(heard):
    """Say whether an answer with a Content-Length is complete."""
    length = re.search(rb"(?i)content-length: *(\d+)", heard)
    return length is not None and len(body(heard)) >= int(length[1])


def head(heard):
    return heard.partition(b"\r\n")[0]


def test_a_hang_says_nothing_and_holds_the_connection(bare):
    bare.fake.next("services", Hang())
    with Line(bare) as line:
        assert line.hears(quiet_s=SHORT_S) == (b"", "open")


@pytest.mark.parametrize(("reset", "end"), [(False, "closed"), (True, "reset")])
def test_a_drop_ends_the_connection_without_an_answer(bare, reset, end):
    bare.fake.next("services", Drop(reset=reset))
    with Line(bare) as line:
        assert line.hears() == (b"", end)


@pytest.mark.parametrize("fault", [Drop(), Drop(late=True), Hang()])
def test_what_is_asked_for_in_vain_is_not_done(fake, fault):
    fake.fake.next("events", fault)
    patience_s = SHORT_S if isinstance(fault, Hang) else LONGEST_S
    with pytest.raises((http.client.RemoteDisconnected, TimeoutError)):
        fake.ask("POST", EVENTS.collection("default"), event("n1.1"), within_s=patience_s)
    assert len(fake.fake.objects("events")) == (fault == Drop(late=True))


@pytest.mark.parametrize(("reset", "end"), [(False, "closed"), (True, "reset")])
def test_a_cut_ends_the_body_in_the_middle(bare, reset, end):
    bare.fake.next("services", Cut(after=100, reset=reset))
    with Line(bare) as line:
        heard, how = line.hears()
    assert head(heard) == b"HTTP/1.1 200 "
    assert len(body(heard)) == 100
    assert how == end


def test_a_cut_can_be_within_a_chunk(bare):
    bare.fake.next("services", Cut(after=100), verb="watch")
    with Line(bare, watch=1) as line:
        heard, how = line.hears()
    announced, _, chunk = body(heard).partition(b"\r\n")
    assert int(announced, 16) > len(chunk) > 0
    assert how == "closed"


def test_silence_falls_in_the_middle_and_the_connection_stays(bare):
    bare.fake.next("services", Silence(after=100))
    with Line(bare) as line:
        heard, how = line.hears(lambda heard: len(body(heard)) >= 100, quiet_s=SHORT_S)
    assert (len(body(heard)), how) == (100, "open")


def test_a_trickle_brings_everything_in_the_end(bare):
    with Line(bare) as line:
        whole, _ = line.hears(is_whole, quiet_s=SHORT_S)
    bare.fake.next("services", Trickle())
    with Line(bare) as line:
        heard, _ = line.hears(is_whole, quiet_s=SHORT_S)
    assert heard == whole


def test_a_trickle_is_a_byte_and_a_pause(bare):
    bare.fake.next("services", Trickle(pause_s=2 * LONGEST_S))
    with Line(bare) as line:
        heard, how = line.hears(lambda heard: body(heard), quiet_s=SHORT_S)
    assert (len(body(heard)), how) == (1, "open")


def test_an_edit_changes_what_is_sent(bare):
    bare.fake.next("services", Edit(lambda piece: piece.replace(b"10.96.1.1", b"10.96.1.256")))
    with Line(bare) as line:
        heard, _ = line.hears(is_whole, quiet_s=SHORT_S)
    assert b"10.96.1.256" in heard


@pytest.mark.parametrize(
    ("fault", "status", "kind", "header"),
    [
        (too_many_requests(7), 429, "text/plain", ("retry-after", "7")),
        (unavailable(3), 503, "text/plain", ("retry-after", "3")),
        (unavailable(), 503, "text/plain", ("retry-after", None)),
        (internal_error(), 500, "application/json", ("retry-after", None)),
        (html(200), 200, "text/html", ("location", None)),
        (redirect("https://127.0.0.1:1/"), 307, "text/plain", ("location", "https://127.0.0.1:1/")),
        (gone(), 410, "application/json", ("retry-after", None)),
    ],
    ids=["429", "503 later", "503", "500", "page", "redirect", "410"],
)
def test_another_answer_can_be_given(fake, fault, status, kind, header):
    rule = fake.fake.next("services", fault, times=2)
    for _ in range(2):
        reply = fake.ask("GET", PATH)
        assert reply.status == status
        assert reply.headers["content-type"].startswith(kind)
        assert reply.headers.get(header[0]) == header[1]
    assert fake.ask("GET", PATH).status == 200
    assert rule.used == 2


def test_a_fault_strikes_where_it_was_told_to(fake):
    with fake.fake.during("services", internal_error(), verb="list") as rule:
        assert fake.ask("GET", PATH).status == 500
        assert fake.ask("GET", SERVICE_CIDRS.collection()).status == 200
        with fake.watch(PATH) as watch:
            assert watch.status == 200
    assert fake.ask("GET", PATH).status == 200
    assert rule.used == 1


def test_open_watches_can_be_told_anything(fake):
    with fake.watch(PATH, **STREAMING) as watch:
        watch.take(1)
        fake.fake.say("services", raw_event("DELETED", service("unknown")), b"{}\n")
        fake.fake.say("services", bookmark(SERVICES, 7))
        said = watch.take(3)
    assert said[0]["object"]["metadata"]["name"] == "unknown"
    assert said[1] == {}
    assert said[2]["object"]["metadata"] == {"resourceVersion": "7"}


def test_open_watches_can_be_ended_in_every_way(bare):
    for end, how in (("end", "open"), ("cut", "closed"), ("reset", "reset")):
        with Line(bare, watch=1) as line:
            line.socket.recv(1 << 16)
            if end == "end":
                bare.fake.end("services")
            else:
                bare.fake.cut("services", reset=end == "reset", partial=b'{"type":')
            last = b"0\r\n\r\n" if end == "end" else b'{"type":\r\n'
            heard, ended = line.hears(
                lambda heard, last=last: heard.endswith(last), quiet_s=SHORT_S
            )
        assert ended == how
        assert heard.endswith(last)


def test_a_frozen_watch_says_nothing_any_more(fake):
    with fake.watch(PATH, allowWatchBookmarks="true") as watch:
        watch.take(1)
        assert fake.fake.watching("services") == 1
        fake.fake.freeze("services")
        fake.put(service("s1"))
        assert watch.is_quiet(SHORT_S)


def test_a_watch_that_nobody_reads_any_more_is_forgotten(fake):
    with fake.watch(PATH, **STREAMING) as watch:
        watch.take(1)
    until(lambda: not fake.fake.watching("services"), within_s=LONGEST_S, what="it is forgotten")


def test_a_stopped_server_refuses_connections_and_comes_back_to_the_same_place(fake):
    with fake.watch(PATH, **STREAMING) as watch:
        watch.take(1)
        fake.fake.stop()
        assert watch.next() is None
    with pytest.raises(ConnectionRefusedError):
        fake.ask("GET", PATH)
    fake.fake.start()
    assert fake.ask("GET", PATH).status == 200


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls.OTHER_CA, "unable to get local issuer certificate"),
        (Tls.OTHER_NAME, "certificate is not valid for '127.0.0.1'"),
        (Tls.EXPIRED, "certificate has expired"),
    ],
)
def test_the_certificate_can_be_a_wrong_one(fake, tls, words):
    fake.fake.stop()
    fake.fake.start(tls)
    with pytest.raises(ssl.SSLCertVerificationError, match=re.escape(words)):
        fake.ask("GET", PATH)


def test_a_token_can_be_taken_back_and_permissions_too(fake):
    fake.fake.revoke(fake.token)
    assert fake.ask("GET", PATH).status == 401
    fake.token = fake.fake.issue("somebody")
    fake.fake.forbid("services", ["list"])
    assert fake.ask("GET", PATH).status == 403
    fake.fake.permit("services")
    fake.fake.remove("services")
    assert fake.ask("GET", PATH).status == 404
    fake.fake.restore("services")
    assert fake.ask("GET", PATH).status == 200


@pytest.mark.parametrize(
    ("streaming", "words"),
    [
        (Streaming.FORBIDDEN, "unless the WatchList feature gate is enabled"),
        (Streaming.UNKNOWN, "resourceVersionMatch is forbidden for watch"),
    ],
)
def test_an_older_server_does_not_stream_lists(fake, streaming, words):
    fake.fake.serve_streaming_lists(streaming)
    reply = fake.ask("GET", PATH, watch="1", **STREAMING)
    assert (reply.status, reply.document["reason"]) == (422, "Invalid")
    assert words in reply.document["message"]
    fake.put(service("s1"))
    with fake.watch(PATH, resourceVersion="0", allowWatchBookmarks="true") as watch:
        assert watch.take(1)[0]["type"] == "ADDED"
        fake.delete(service("s1"))
        assert watch.take(1)[0]["type"] == "DELETED", "and no bookmark between the two"


def test_a_server_whose_storage_cannot_stream_says_so_in_an_event(fake):
    fake.fake.serve_streaming_lists(Streaming.BROKEN)
    with fake.watch(PATH, **STREAMING) as watch:
        (error,) = watch.take(1)
        assert watch.next() is None
    assert (error["type"], error["object"]["code"]) == ("ERROR", 500)


def test_what_was_asked_is_remembered(fake):
    fake.ask("GET", PATH, labelSelector="!x")
    fake.ask("GET", PATH, token=None)
    known, unknown = fake.fake.asked("services", "list")
    assert dict(known.query) == {"labelSelector": "!x"}
    assert known.user == "system:serviceaccount:kube-system:kube-proxy"
    assert unknown.user == "system:anonymous"


def test_a_connection_is_kept_for_the_next_request(bare):
    request = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bare.token}\r\n\r\n"
    with Line(bare) as line:
        first, _ = line.hears(is_whole, quiet_s=SHORT_S)
        line.socket.sendall(request.encode())
        again, _ = line.hears(is_whole, quiet_s=SHORT_S)
    assert again == first


def test_a_big_cluster_runs_beside(tmp_path):
    with load_server(tmp_path, Size(services=40, endpoints=3)) as load:
        tls = ssl.create_default_context(cadata=load.ca_pem)
        host = load.url.removeprefix("https://")
        connection = http.client.HTTPSConnection(host, context=tls, timeout=LONGEST_S)
        path = "/apis/discovery.k8s.io/v1/endpointslices"
        headers = {"Authorization": f"Bearer {load.token}"}
        connection.request("GET", path, headers=headers)
        slices = json.loads(connection.getresponse().read())
        load.begin_churn(per_second=200, seconds=0.5)
        made = load.end_churn()
        connection.request("GET", path, headers=headers)
        later = json.loads(connection.getresponse().read())
        connection.close()
    assert [len(each["endpoints"]) for each in slices["items"]] == [3] * 40
    moved = int(later["metadata"]["resourceVersion"]) - int(slices["metadata"]["resourceVersion"])
    assert moved == made > 40, "every change is one, also in the second round"
