"""Client certificates, which are renewed on disk while they are used."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from kproxy.watch.api.errors import ApiError, Doing
from tests.support.waiting import LONGEST_S
from tests.unit.watch.api.kubeconfigs import by, encoded, kubeconfig, refusal, write


class Server(ThreadingHTTPServer):
    """Answers whoever has a certificate; notes of each request by which one and which connection.

    `expired` are serial numbers of certificates that it does not accept any more. As in a real API
    server that is found out at each request, on connections that are open already, too.
    """

    daemon_threads = True

    def __init__(self, authority):
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server_port}"
        self.seen = []
        self.expired = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        serial = self.connection.getpeercert()["serialNumber"]
        self.server.seen.append((serial, self.client_address[1]))
        self.send_response(401 if serial in self.server.expired else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Certificates:
    """The certificate and the key of a client, in a kubeconfig or as files beside it."""

    def __init__(self, authority, folder, server):
        self._authority = authority
        self._folder = folder
        self.cluster = {
            "server": server.url,
            "certificate-authority-data": encoded(authority.cert_pem.bytes()),
        }
        self.user = {"client-certificate": "cert", "client-key": "key"}
        self.renew()

    def renew(self, *, inline=False):
        issued = self._authority.issue_cert("somebody")
        certificate = issued.cert_chain_pems[0].bytes()
        (self._folder / "cert").write_bytes(certificate)
        (self._folder / "key").write_bytes(issued.private_key_pem.bytes())
        if inline:
            self.user = {
                "client-certificate-data": encoded(certificate),
                "client-key-data": encoded(issued.private_key_pem.bytes()),
            }

    def write(self):
        return write(self._folder / "config", kubeconfig(self.cluster, self.user))


@pytest.fixture
def server_and_certificates(tmp_path):
    authority = trustme.CA()
    with Server(authority) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, Certificates(authority, tmp_path, server)
        server.shutdown()
        thread.join()


def test_a_renewed_certificate_is_used_after_a_minute(server_and_certificates, ask, at_once):
    server, certificates = server_and_certificates
    api = by(certificates.write())
    ask(api)
    ask(api)
    certificates.renew()
    ask(api)

    first, second, third = server.seen
    assert first == second, "one connection, as long as nothing changes"
    assert third[0] != first[0]


@pytest.mark.parametrize("inline", [False, True])
def test_a_certificate_that_is_refused_is_read_again_at_once(server_and_certificates, ask, inline):
    server, certificates = server_and_certificates
    certificates.renew(inline=inline)
    api = by(certificates.write())
    ask(api)
    server.expired.add(server.seen[0][0])
    certificates.renew(inline=inline)
    certificates.write()

    assert ask(api) == 200
    first, second, third = (serial for serial, _ in server.seen)
    assert first == second != third


def test_a_certificate_whose_key_is_not_there_yet_is_not_used(
    server_and_certificates, ask, at_once, tmp_path
):
    server, certificates = server_and_certificates
    api = by(certificates.write())
    ask(api)
    key = (tmp_path / "key").read_bytes()
    certificates.renew()
    (tmp_path / "key").write_bytes(key)
    another = api.session()
    another.request(Doing("list", "services"), "/", answer_s=LONGEST_S).close()
    another.close()

    first, second = server.seen
    assert first != second, "a new connection"
    assert first[0] == second[0], "with the old certificate"
    assert "no client certificate with a fitting key in" in refusal(tmp_path / "config")


def test_a_refused_certificate_that_stays_is_told(server_and_certificates, ask):
    server, certificates = server_and_certificates
    api = by(certificates.write())
    ask(api)
    server.expired.add(server.seen[0][0])

    with pytest.raises(ApiError, match="does not accept our credentials"):
        ask(api)
