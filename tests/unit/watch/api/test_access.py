"""Ways to the API server, and credentials that change while they are used."""

import contextlib
import gc
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest
import trustme
from urllib3.util.connection import create_connection

from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.errors import ApiError, Doing
from tests.support.fake_api import FakeApi, faults
from tests.support.fake_api.server import PROXY_USER
from tests.support.open_files import open_files
from tests.support.ports import keep, port_of
from tests.support.waiting import LONGEST_S
from tests.unit.watch.api.kubeconfigs import SECRET, by, encoded, kubeconfig, tokens, write


def test_every_request_is_told_of_with_its_outcome(fake, api, requests, ask):
    began_s = time.monotonic()
    ask(api)
    fake.fake.next("services", faults.internal_error())
    with pytest.raises(ApiError):
        ask(api)
    fake.fake.stop()
    with pytest.raises(ApiError):
        ask(api)

    host = fake.fake.url.removeprefix("https://")
    assert [(verb, code, at) for verb, code, at, _ in requests.seen] == [
        ("GET", "200", host),
        ("GET", "500", host),
        ("GET", "<error>", host),
    ]
    took_s = [seconds for *_, seconds in requests.seen]
    assert min(took_s) > 0
    assert sum(took_s) < time.monotonic() - began_s


def test_requests_say_who_asks_and_want_plain_json(fake, api, ask):
    ask(api)

    (request,) = fake.fake.asked("services")
    assert request.user_agent.startswith("kproxy/")
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"


def test_connections_are_used_again(fake, api, ask, monkeypatch):
    made = []

    def connect_to(address, *rest, **options):
        made.append(address)
        return create_connection(address, *rest, **options)

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect_to)
    for _ in range(3):
        ask(api)

    assert made == [("127.0.0.1", fake.fake.port)]


def test_a_token_file_is_read_again_after_a_minute(fake, cluster, tmp_path, ask, at_once):
    (tmp_path / "token").write_text(fake.fake.token + "\n")
    api = by(write(tmp_path / "config", kubeconfig(cluster, {"tokenFile": "token"})))
    ask(api)
    newer = fake.fake.issue(PROXY_USER)
    (tmp_path / "token").write_text(newer)
    ask(api)

    assert tokens(fake) == [fake.fake.token, newer]


def test_within_that_minute_it_is_not(fake, cluster, tmp_path, ask):
    (tmp_path / "token").write_text(fake.fake.token)
    api = by(write(tmp_path / "config", kubeconfig(cluster, {"tokenFile": "token"})))
    (tmp_path / "token").write_text(fake.fake.issue(PROXY_USER))
    ask(api)

    assert tokens(fake) == [fake.fake.token]


def test_a_token_that_is_refused_is_read_again_at_once(fake, cluster, tmp_path, ask):
    (tmp_path / "token").write_text(fake.fake.token)
    api = by(write(tmp_path / "config", kubeconfig(cluster, {"tokenFile": "token"})))
    fake.fake.revoke(fake.fake.token)
    newer = fake.fake.issue(PROXY_USER)
    (tmp_path / "token").write_text(newer)

    assert ask(api) == 200
    assert tokens(fake) == [fake.fake.token, newer]


def test_a_refused_token_is_not_tried_twice(fake, api, ask):
    fake.fake.revoke(fake.fake.token)
    with pytest.raises(ApiError):
        ask(api)

    assert len(tokens(fake)) == 1


def test_a_token_beside_a_token_file_is_not_used(fake, cluster, tmp_path, ask):
    (tmp_path / "token").write_text(fake.fake.token)
    user = {"token": "old", "tokenFile": str(tmp_path / "token")}
    ask(by(write(tmp_path / "config", kubeconfig(cluster, user))))

    assert tokens(fake) == [fake.fake.token]


def test_files_that_are_missing_for_a_moment_change_nothing(fake, cluster, tmp_path, ask, at_once):
    (tmp_path / "token").write_text(fake.fake.token)
    file = write(tmp_path / "config", kubeconfig(cluster, {"tokenFile": "token"}))
    api = by(file)
    (tmp_path / "token").rename(tmp_path / "gone")
    ask(api)
    (tmp_path / "gone").rename(tmp_path / "token")
    file.rename(tmp_path / "gone")
    assert ask(api) == 200


def test_files_that_are_missing_when_they_are_needed_are_told(fake, cluster, tmp_path, ask):
    (tmp_path / "token").write_text(fake.fake.token)
    api = by(write(tmp_path / "config", kubeconfig(cluster, {"tokenFile": "token"})))
    fake.fake.revoke(fake.fake.token)
    (tmp_path / "token").unlink()

    for _ in range(2):
        with pytest.raises(ApiError, match=f"{tmp_path}/token cannot be read: No such file"):
            ask(api)
    newer = fake.fake.issue(PROXY_USER)
    (tmp_path / "token").write_text(newer)
    assert ask(api) == 200


def test_a_password_in_an_address_is_used_and_never_shown(fake, cluster, tmp_path, ask):
    secret = {**cluster, "server": fake.fake.url.replace("//", f"//jane:{SECRET}@")}
    seen = []
    file = write(tmp_path / "config", kubeconfig(secret))
    api = connect(Access(kubeconfig=str(file)), requested=lambda *told: seen.append(told))
    with pytest.raises(ApiError) as caught:
        ask(api)

    assert SECRET not in f"{caught.value} {seen} {api.server}"
    (request,) = fake.fake.asked("services")
    assert request.headers["authorization"] == f"Basic {encoded(f'jane:{SECRET}'.encode())}"


def test_a_password_in_the_address_of_a_proxy_is_for_the_proxy(fake, cluster, tmp_path, ask):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://jane:secret@127.0.0.1:{proxy.getsockname()[1]}"
        user = {"token": fake.fake.token}
        api = by(write(tmp_path / "config", kubeconfig({**cluster, "proxy-url": address}, user)))
        heard = []

        def refuse():
            connection, _ = proxy.accept()
            with connection:
                heard.append(connection.recv(4096).decode())
                connection.sendall(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(ApiError, match="the proxy on the way to") as caught:
            ask(api)
        thread.join()
    assert heard[0].startswith(f"CONNECT 127.0.0.1:{fake.fake.port} HTTP/1.")
    assert f"Proxy-Authorization: Basic {encoded(b'jane:secret')}" in heard[0]
    assert fake.fake.token not in heard[0]
    assert "secret" not in str(caught.value)


def test_a_kubeconfig_that_changes_is_followed_to_another_server(
    fake, cluster, tmp_path, ask, at_once
):
    user = {"token": fake.fake.token}
    file = write(tmp_path / "config", kubeconfig(cluster, user))
    api = by(file)
    ask(api)
    with FakeApi() as other:
        there = {"server": other.url, "certificate-authority-data": encoded(other.ca_pem)}
        write(file, kubeconfig(there, {"token": other.token}))
        ask(api)
        assert api.server == other.url
        assert len(other.asked("services")) == 1
    assert len(fake.fake.asked("services")) == 1


def test_a_server_that_is_not_verified_is_said_once_in_our_words(
    fake, tmp_path, ask, at_once, caplog
):
    """A warning of a library, which would come with every connection, is an error here."""
    insecure = {"server": fake.fake.url, "insecure-skip-tls-verify": True}
    file = write(tmp_path / "config", kubeconfig(insecure, {"token": fake.fake.token}))
    api = by(file)
    for _ in range(3):
        assert ask(api) == 200
        with contextlib.closing(api.session()) as another:
            another.request(
                Doing("list", "services"), "/api/v1/services", answer_s=LONGEST_S
            ).close()

    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"kubeconfig {file}, cluster c: insecure-skip-tls-verify is set, so whoever answers at "
        f"{fake.fake.url} counts as the API server and gets our credentials; "
    )


def test_without_tls_there_is_nothing_to_verify(tmp_path, caplog):
    plain = {"server": "http://10.0.0.1:8080", "insecure-skip-tls-verify": True}
    by(write(tmp_path / "config", kubeconfig(plain)))
    assert caplog.records == []


def test_a_server_that_is_not_verified_any_more_is_said(
    fake, cluster, tmp_path, ask, at_once, caplog
):
    insecure = {"server": fake.fake.url, "insecure-skip-tls-verify": True}
    user = {"token": fake.fake.token}
    file = write(tmp_path / "config", kubeconfig(cluster, user))
    api = by(file)
    ask(api)
    assert caplog.records == []
    for each in (insecure, cluster, insecure):
        write(file, kubeconfig(each, user))
        ask(api)
    assert len(caplog.records) == 2


def files_in_memory():
    return [name for name in open_files().values() if "memfd:" in name]


def test_keys_in_a_kubeconfig_reach_no_disk(fake, cluster, tmp_path, monkeypatch):
    pair = trustme.CA().issue_cert("somebody")
    user = {
        "client-certificate-data": encoded(pair.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(pair.private_key_pem.bytes()),
        "token": fake.fake.token,
    }
    gc.collect()
    before = len(files_in_memory())
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    api = by(write(tmp_path / "config", kubeconfig(cluster, user)))
    session = api.session()
    session.request(Doing("list", "services"), "/api/v1/services", answer_s=LONGEST_S).close()
    assert len(files_in_memory()) == before + 3

    session.close()
    del api, session
    gc.collect()
    assert len(files_in_memory()) == before


def test_master_replaces_the_address_of_a_kubeconfig(fake, cluster, tmp_path, ask):
    elsewhere = {**cluster, "server": "https://192.0.2.1:6443"}
    file = write(tmp_path / "config", kubeconfig(elsewhere, {"token": fake.fake.token}))

    assert ask(by(file, master=fake.fake.url)) == 200


@pytest.mark.parametrize(
    ("master", "server"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://api.example:6443/path", "https://api.example:6443/path"),
    ],
)
def test_master_alone_is_an_address_without_credentials(master, server):
    assert connect(Access(master=master)).server == server


@pytest.mark.parametrize("secure", [True, False])
def test_a_server_without_a_scheme_is_read_as_client_go_reads_it(tmp_path, fake, secure):
    ca = {"certificate-authority-data": encoded(fake.fake.ca_pem)} if secure else {}
    file = write(tmp_path / "config", kubeconfig({"server": "10.0.0.1:6443", **ca}))

    assert by(file).server == f"{'https' if secure else 'http'}://10.0.0.1:6443"


@pytest.mark.parametrize("master", ["ftp://10.0.0.1", "http://", "https://[::1", "http://x:y"])
def test_a_master_that_is_no_address_is_refused(master):
    with pytest.raises(ApiError, match="is no address like https://name:port"):
        connect(Access(master=master))


@pytest.fixture
def pod(fake, tmp_path, monkeypatch):
    """What the kubelet gives a pod."""
    from kubernetes.config import incluster_config

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.fake.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text(fake.fake.token)
    (tmp_path / "ca.crt").write_bytes(fake.fake.ca_pem)
    return tmp_path


def test_a_pod_needs_no_configuration(fake, pod, ask):
    api = connect(Access())
    ask(api)
    fake.fake.revoke(fake.fake.token)
    newer = fake.fake.issue(PROXY_USER)
    (pod / "token").write_text(newer)
    ask(api)

    assert tokens(fake) == [fake.fake.token] * 2 + [newer]


@pytest.mark.parametrize("missing", ["token", "ca.crt", "KUBERNETES_SERVICE_HOST"])
def test_outside_of_a_cluster_something_has_to_be_configured(pod, monkeypatch, missing):
    if missing.isupper():
        monkeypatch.delenv(missing)
    else:
        (pod / missing).unlink()

    with pytest.raises(ApiError) as caught:
        connect(Access())
    assert str(caught.value).startswith(
        "no kubeconfig and no --master is given, and this is no pod with a service account"
    )


_AT_ONCE = """
import sys, threading
from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.errors import ApiError, Doing

api = connect(Access(master=sys.argv[1]))
together = threading.Barrier(6)

def ask():
    session = api.session()
    together.wait()
    try:
        session.request(Doing("list", "services"), "/", answer_s=60.0)
    except ApiError as error:
        print(error)

threads = [threading.Thread(target=ask) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_requests_of_several_threads_may_come_at_once():
    """In a process of its own: the second import of a package is never the first one."""
    with keep() as closed:
        command = [sys.executable, "-c", _AT_ONCE, f"http://127.0.0.1:{port_of(closed)}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST_S)

    assert ran.stderr == ""
    assert ran.stdout.count("refuses the connection") == 6
