"""A control plane on this machine's loopback: etcd, an API server and, if wanted, controllers.

It needs no root, keeps everything in one folder, and is gone with the process that started it.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import yaml

from tests.support.cluster import programs
from tests.support.cluster.api import Api, ApiError, Object
from tests.support.cluster.identities import Identities
from tests.support.cluster.process import Background
from tests.support.cluster.seed import seed
from tests.support.commands import output_of
from tests.support.ports import keep_any_of, port_of
from tests.support.waiting import LONGEST_S, until

SERVICE_RANGES = ("10.96.0.0/12", "fd00:96::/108")
ISSUER = "https://kubernetes.default.svc"

# The API server publishes this address as the endpoint of `default/kubernetes`, which must not be
# a loopback address. Nobody has it.
_ADVERTISED = "192.0.2.250"

_OWN_SLICE = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "kubernetes"},
}

# Below the ports that the kernel gives to outgoing connections: one of those could take the port
# of an API server that is away for a moment.
_PORTS = range(20000, 30000)

# Longer than anything else: an API server starts for 5 s where nothing else runs.
_START_S = 2 * LONGEST_S
_CONTROLLERS = (
    "endpointslice-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
)


class ControlPlane:
    """Etcd and an API server, with an administrator to talk to it. A context manager.

    `flags` are further flags of the API server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        service_ranges: Sequence[str] = SERVICE_RANGES,
        flags: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.identities = Identities(folder / "identities")
        # Kept from first to last, also while the API server is away.
        self._kept = [keep_any_of(_PORTS) for _ in range(2)]
        self.port, self.etcd_port = map(port_of, self._kept)
        self.url = f"https://127.0.0.1:{self.port}"
        self.api = Api(self.port, self.identities.admin_context())
        self.admin_kubeconfig = self.kubeconfig(folder / "admin.kubeconfig")
        self.running: list[Background] = []
        try:
            self.etcd = self._start("etcd", self._etcd_flags())
            _await(self._etcd_answers, self.etcd)
            flags = (*self._api_server_flags(service_ranges), *flags)
            self.api_server = self._start("kube-apiserver", flags)
            _await(self._is_ready, self.api_server)
        except BaseException:
            self.close()
            raise

    def stop_api_server(self) -> None:
        """Let the API server end as at an upgrade; what it stores stays."""
        self.api_server.stop(within_s=LONGEST_S)

    def start_api_server(self) -> None:
        """Start the API server again, on the same port, and wait until it is ready."""
        self.api_server.begin_again()
        _await(self._is_ready, self.api_server)

    def recover(self) -> None:
        """See to it that the API server runs and answers, whatever was done to it."""
        if self.api_server.is_running():
            self.api_server.resume()
        else:
            self.start_api_server()

    @contextmanager
    def controllers(self, *names: str) -> Iterator[None]:
        """Run controllers while the body runs: those of `names`, else what Services need."""
        flags = [
            f"--controllers={','.join(names or _CONTROLLERS)}",
            f"--kubeconfig={self.admin_kubeconfig}",
            f"--service-account-private-key-file={self.identities.tokens_key}",
            f"--root-ca-file={self.identities.authority}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
        ]
        controllers = self._start("kube-controller-manager", flags)
        try:
            yield
            assert controllers.is_running(), f"the controllers ended: {controllers.said()}"
        finally:
            controllers.stop(within_s=LONGEST_S)

    def kubeconfig(self, file: Path, *, token: str | None = None, port: int | None = None) -> Path:
        """Write a kubeconfig of the administrator, or of who has this token; return the file.

        `port` is where the user reaches the API server on 127.0.0.1 if that is another port. The
        token is in `<file>.token`.
        """
        server = self.url if port is None else f"https://127.0.0.1:{port}"
        return self.identities.kubeconfig(file, server, token=token)

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """Return a fresh token of a ServiceAccount; the API server gives none for under 600 s."""
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        token: str = self.api.call("POST", path, wanted)["status"]["token"]
        return token

    def as_token(self, token: str) -> Api:
        """Return the API as the bearer of a token sees it, for the caller to close."""
        return Api(self.port, self.identities.context(), token=token)

    def allows(self, token: str, path: str) -> bool:
        """Say whether the bearer of a token may list a collection by now."""
        with self.as_token(token) as bearer:
            try:
                bearer.list(path)
            except ApiError as error:
                if error.status != http.HTTPStatus.FORBIDDEN:
                    raise
                return False
        return True

    def seed(self, objects: Iterable[Object]) -> None:
        """Bring very many Services and EndpointSlices into being; see `seed`."""
        seed(self.api, self.etcd_port, objects)

    def apply(self, *manifests: str) -> None:
        """Apply every object in these YAML texts, in their order."""
        for text in manifests:
            for wanted in yaml.safe_load_all(text):
                if wanted is not None:
                    self.api.apply(wanted)

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl as the administrator and return what it printed."""
        return output_of(
            programs.find("kubectl"),
            f"--kubeconfig={self.admin_kubeconfig}",
            f"--cache-dir={self.folder / 'kubectl'}",
            *arguments,
            stdin=stdin,
            timeout_s=LONGEST_S,
        )

    def close(self) -> None:
        """End everything. What it wrote stays in its folder."""
        self.api.close()
        while self.running:
            self.running.pop().kill()
        while self._kept:
            self._kept.pop().close()

    def __enter__(self) -> ControlPlane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, name: str, flags: Sequence[str]) -> Background:
        program = Background(programs.find(name), flags, log=self.folder / f"{name}.log")
        self.running.append(program)
        return program

    def _etcd_flags(self) -> list[str]:
        url = f"http://127.0.0.1:{self.etcd_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            "--listen-peer-urls=http://127.0.0.1:0",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_flags(self, service_ranges: Sequence[str]) -> list[str]:
        known = self.identities
        return [
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--advertise-address={_ADVERTISED}",
            f"--tls-cert-file={known.server}",
            f"--tls-private-key-file={known.server_key}",
            f"--client-ca-file={known.authority}",
            "--authorization-mode=RBAC",
            "--allow-privileged",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={known.tokens}",
            f"--service-account-signing-key-file={known.tokens_key}",
            f"--service-cluster-ip-range={','.join(service_ranges)}",
            # With it no Pod could be made before a controller made its ServiceAccount.
            "--disable-admission-plugins=ServiceAccount",
        ]

    def _etcd_answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.etcd_port), 1).close()
        except OSError:
            return False
        return True

    def _is_ready(self) -> bool:
        """Say whether the API server is ready and has published itself, its last deed at start."""
        try:
            self.api.call("GET", "/readyz")
            return bool(self.api.get(_OWN_SLICE).get("endpoints"))
        except (ApiError, OSError, http.client.HTTPException):
            return False


def _await(condition: Callable[[], bool], program: Background) -> None:
    def holds() -> bool:
        assert program.is_running(), f"{program.name} ended at its start: {program.said()}"
        return condition()

    until(holds, within_s=_START_S, what=lambda: f"{program.name} is ready: {program.said()}")
