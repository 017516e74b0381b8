"""What an operator reads when the API server cannot be reached or says no."""

import base64
import json
import socket
import ssl
import threading

import pytest
import trustme
import yaml

from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.errors import MAX_RETRY_AFTER_S, ApiError, Doing, answered
from tests.support.fake_api import faults
from tests.support.fake_api.tls import Tls
from tests.support.waiting import LONGEST_S

LIST = Doing("list", "services")
HOST = "https://10.0.0.1:6443"


def asked(api, *, answer_s=LONGEST_S):
    """Ask for Services and return the error."""
    session = api.session()
    try:
        with pytest.raises(ApiError) as caught:
            session.request(LIST, "/api/v1/services", answer_s=answer_s)
    finally:
        session.close()
    text = str(caught.value)
    assert text.isprintable(), "one line"
    return caught.value


def at(tmp_path, server, **fields):
    """Return an API at an address that a kubeconfig names."""
    cluster = {"server": server, **fields}
    document = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x"}}],
        "clusters": [{"name": "x", "cluster": cluster}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return connect(Access(kubeconfig=str(file)))


def ca_of(fake):
    return {"certificate-authority-data": base64.b64encode(fake.fake.ca_pem).decode()}


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls.OTHER_CA, "is not signed by the CA in certificate-authority-data of /"),
        (Tls.OTHER_NAME, "is not for 127.0.0.1, so this may be another server"),
        (Tls.EXPIRED, "has expired (or this node's clock is wrong)"),
        (Tls.NONE, "does not speak TLS"),
    ],
)
def test_a_server_that_cannot_be_trusted_is_told_by_its_reason(fake, api, tls, words):
    fake.fake.stop()
    fake.fake.start(tls)

    assert words in str(asked(api))


def test_without_a_ca_the_system_decides(fake, tmp_path):
    words = str(asked(at(tmp_path, fake.fake.url)))

    assert "not signed by any CA that this system trusts" in words


def test_a_server_that_wants_no_tls_is_told(tmp_path, fake):
    """Nobody speaks HTTP on that port; what answers may be anything."""
    words = str(asked(at(tmp_path, fake.fake.url.replace("https", "http")), answer_s=0.5))

    assert "http://127.0.0.1" in words


def test_a_server_that_is_not_there(fake, api):
    fake.fake.stop()

    words = str(asked(api))
    assert words == (
        f"cannot list services: {fake.fake.url} refuses the connection: nothing listens there now"
    )


def test_a_name_that_nobody_knows(tmp_path):
    words = str(asked(at(tmp_path, "https://no-such-name.invalid:6443")))

    assert "the name of https://no-such-name.invalid:6443 cannot be resolved" in words


def test_a_server_that_takes_no_connection(tmp_path, monkeypatch):
    """A full queue of connections swallows the next one, as a firewall does."""
    monkeypatch.setattr("kproxy.watch.api.session.CONNECT_S", 0.2)
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        words = str(asked(at(tmp_path, f"https://127.0.0.1:{deaf.getsockname()[1]}")))

    assert "cannot be reached (time-out): wrong address, or a firewall?" in words


def test_a_proxy_that_is_not_there(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    proxy = {"proxy-url": "http://user:secret@127.0.0.1:1"}

    words = str(asked(at(tmp_path, fake.fake.url, **ca_of(fake), **proxy)))
    assert "the proxy on the way to https://127.0.0.1" in words
    assert "secret" not in words


def test_this_host_is_not_asked_through_a_proxy_of_the_environment(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert asked(at(tmp_path, fake.fake.url, **ca_of(fake))).status == 403, "nobody in particular"


def test_the_name_that_a_certificate_lacks_is_the_one_that_was_expected(fake, tmp_path):
    expected = {"tls-server-name": "kubernetes.example"}

    words = str(asked(at(tmp_path, fake.fake.url, **ca_of(fake), **expected)))
    assert "is not for kubernetes.example, so this may be another server" in words


def test_a_server_that_does_not_answer(fake, api):
    fake.fake.next("services", faults.Hang())

    assert str(asked(api, answer_s=0.1)).endswith(" does not answer")


def test_a_server_that_hangs_up(fake, api):
    fake.fake.next("services", faults.Drop())

    assert str(asked(api)).endswith(" breaks off the connection")


def test_a_token_that_is_not_accepted(fake, api):
    fake.fake.revoke(fake.fake.token)

    error = asked(api)
    assert error.status == 401
    assert "does not accept our credentials (401): the token or client certificate" in str(error)
    assert fake.fake.token not in str(error)


def test_a_client_certificate_that_is_not_accepted(tmp_path):
    """TLS 1.3 tells of it after the handshake, in an alert."""
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    pair = other.issue_cert("somebody")
    (tmp_path / "cert").write_bytes(pair.cert_chain_pems[0].bytes())
    (tmp_path / "key").write_bytes(pair.private_key_pem.bytes())
    authority.cert_pem.write_to_path(tmp_path / "ca")
    listening = socket.create_server(("127.0.0.1", 0))

    read = threading.Event()

    def serve():
        connection, _ = listening.accept()
        tls = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            read.wait(LONGEST_S)

    thread = threading.Thread(target=serve)
    thread.start()
    document = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [
            {
                "name": "x",
                "cluster": {
                    "server": f"https://127.0.0.1:{listening.getsockname()[1]}",
                    "certificate-authority": "ca",
                },
            }
        ],
        "users": [{"name": "x", "user": {"client-certificate": "cert", "client-key": "key"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    words = str(asked(connect(Access(kubeconfig=str(tmp_path / "kubeconfig")))))
    read.set()
    thread.join()
    listening.close()

    assert "refuses our client certificate or our TLS version" in words


def test_what_is_not_granted_is_told_with_whom_to_grant_it_to(fake, api):
    fake.fake.forbid("services")

    assert str(asked(api)).startswith(
        "may not list services (403): grant it to system:serviceaccount:kube-system:kube-proxy "
        "by RBAC: services is forbidden: User "
    )


def test_secrets_that_a_server_repeats_are_not_told(fake, api):
    echo = faults.Answer(500, f"your token {fake.fake.token} is odd".encode(), "text/plain")
    fake.fake.next("services", echo)

    words = str(asked(api))
    assert words.endswith("answers 500: your token ... is odd")


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"404 page not found\n", f"{HOST} does not have it (404): 404 page not found"),
        (429, b"Too many requests\n", f"{HOST} has too much to do (429): Too many requests"),
        (500, b"", f"{HOST} answers 500"),
        (502, b"<html>\n<h1>Bad gateway", f"{HOST} answers 502: <html>"),
        (503, b"\x1b[31mred\xff", "answers 503: \\x1b[31mred"),
        (301, b"", f"{HOST} is no API server (301), it sends us on to https://elsewhere/"),
        (500, b"x" * 1000, "answers 500: " + "x" * 300 + "..."),
        (500, json.dumps({"kind": "Status", "message": "no leader"}).encode(), "500: no leader"),
        (500, json.dumps({"kind": "Pod", "message": "no leader"}).encode(), '500: {"kind"'),
    ],
)
def test_other_answers_are_quoted(status, body, words):
    error = answered(LIST, HOST, status, {"Location": "https://elsewhere/"}, body)

    assert str(error).startswith("cannot list services")
    assert words in str(error)
    assert str(error).isprintable()
    assert error.status == status


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("9" * 400, MAX_RETRY_AFTER_S), ("soon", 0.0), ("-1", 0.0), ("1.5", 0.0)],
)
def test_how_long_to_wait_is_a_number_of_seconds_within_reason(text, seconds):
    assert answered(LIST, HOST, 429, {"Retry-After": text}, b"").retry_after_s == seconds


def test_a_status_may_say_how_long_to_wait_too():
    said = {"kind": "Status", "details": {"retryAfterSeconds": 3}}
    error = answered(LIST, HOST, 504, {"Retry-After": "1"}, json.dumps(said).encode())

    assert error.retry_after_s == 3.0
