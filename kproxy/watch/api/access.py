"""How to reach the API server, and as whom: from a kubeconfig file, by address, or in a cluster."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.kubeconfig import Kubeconfig, complete_address
from kproxy.watch.api.plugin import MemoryFile
from kproxy.watch.api.session import Requested, Session, Target

if TYPE_CHECKING:
    from kubernetes.client import Configuration

RELOAD_S = 60.0  # the kubelet renews a token long before it expires; client-go reads as often
_HEADER = re.compile(r"[\x21-\x7e]+ [\x21-\x7e]+")

_Loaded = tuple["Configuration", tuple[MemoryFile, ...]]


@dataclass(frozen=True, slots=True)
class Access:
    """What the configuration says of the API server; both "" means: in a cluster, as a pod.

    `master` is an address. Beside a kubeconfig it replaces the server there, alone it is all there
    is, without credentials.
    """

    kubeconfig: str = ""
    master: str = ""


class Api:
    """The API server as it is reached now. For any thread."""

    def __init__(self, targets: _Targets, requested: Requested) -> None:
        self._targets = targets
        self._requested = requested

    @property
    def server(self) -> str:
        """The server's address. Raises ApiError."""
        return self._targets.current().server

    def session(self) -> Session:
        """Return connections of one's own, to be closed by whoever asked."""
        return Session(self._targets, self._requested)


def connect(
    access: Access, *, requested: Requested = lambda verb, code, host, seconds: None
) -> Api:
    """Read how to reach the API server, without asking it anything yet.

    `requested` is told of every request: its method, the status as text ("<error>" if there was no
    answer), the host with its port, and the seconds until the answer began; from any thread.
    Raises ApiError.
    """
    targets = _Targets(_loader(access), clock=time.monotonic)
    targets.current()
    return Api(targets, requested)


def _loader(access: Access) -> Callable[[bool], _Loaded]:
    """Return what loads the configuration; its argument says that the last one was refused."""
    if access.kubeconfig:
        file = Kubeconfig(Path(os.path.abspath(access.kubeconfig)), access.master)
        return lambda refused: file.load(now=time.time(), refused=refused)
    if access.master:
        return lambda refused: (_anonymous(access.master), ())
    return lambda refused: (_in_cluster(), ())


def _anonymous(master: str) -> Configuration:
    from kubernetes.client import Configuration

    server = complete_address(master, secure=False)
    if server is None:
        raise ApiError(f"--master {master!r} is no address like https://name:port")
    return Configuration(host=server)


def _in_cluster() -> Configuration:
    from kubernetes.client import Configuration
    from kubernetes.config import incluster_config
    from kubernetes.config.config_exception import ConfigException

    configuration = Configuration()
    try:
        incluster_config.load_incluster_config(configuration, try_refresh_token=False)
    except (ConfigException, OSError, ValueError) as error:
        where = os.path.dirname(incluster_config.SERVICE_TOKEN_FILENAME)
        raise ApiError(
            "no kubeconfig and no --master is given, and this is no pod with a service account "
            f"(KUBERNETES_SERVICE_HOST, {where}): {error}"
        ) from error
    return configuration


class _Targets:
    """The target of requests, loaded anew when it is due. For any thread."""

    def __init__(self, load: Callable[[bool], _Loaded], *, clock: Callable[[], float]) -> None:
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._target: Target | None = None
        self._loaded_at = 0.0
        self._refused = False

    def current(self) -> Target:
        """Return the target for a new request.

        A configuration that cannot be loaded again leaves the last one in force, as long as the
        server accepts it: files that are being replaced may be missing for a moment. Raises
        ApiError.
        """
        with self._lock:
            if self._target is None or self._refused:
                return self._loaded()
            if self._clock() - self._loaded_at >= RELOAD_S:
                try:
                    return self._loaded()
                except ApiError:
                    self._loaded_at = self._clock()
            return self._target

    def after_refusal(self, target: Target) -> Target | None:
        """Return other credentials than those just refused, None if there are none yet."""
        with self._lock:
            if self._target is target:
                self._refused = True
                self._loaded()
            newer = self._target
        if newer is None or _credentials(newer) == _credentials(target):
            return None
        return newer

    def _loaded(self) -> Target:
        configuration, files = self._load(self._refused)
        self._target = _target(configuration, files)
        self._loaded_at = self._clock()
        self._refused = False
        return self._target


def _credentials(target: Target) -> tuple[object, object]:
    return target.authorization, target.transport


def _target(configuration: Configuration, files: tuple[MemoryFile, ...]) -> Target:
    authorization = (configuration.api_key.get("BearerToken") or "").strip()
    if authorization and not _HEADER.fullmatch(authorization):
        raise ApiError("the token holds spaces or characters that no HTTP header can carry")
    origins = {file.path: file.origin for file in files}
    _check_tls(configuration, origins)
    ca_file = configuration.ssl_ca_cert or ""
    return Target(
        server=configuration.host,
        authorization=authorization,
        ca_file=origins.get(ca_file, ca_file),
        transport=(
            configuration.host,
            configuration.verify_ssl,
            configuration.ssl_ca_cert,
            configuration.cert_file,
            configuration.key_file,
            configuration.tls_server_name,
            configuration.proxy,
            configuration.no_proxy,
        ),
        configuration=configuration,
        keeps=files,
    )


def _check_tls(configuration: Configuration, origins: Mapping[str, str]) -> None:
    """Refuse files that no connection could be made with, while it is known which they are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca_file, cert_file = configuration.ssl_ca_cert, configuration.cert_file
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            where = origins.get(ca_file, ca_file)
            raise ApiError(f"there is no CA certificate in {where}: {_why(error)}") from error
    if cert_file:
        try:
            # Without a password given, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(cert_file, configuration.key_file, password="")
        except OSError as error:
            where = origins.get(cert_file, cert_file)
            why = _why(error)
            raise ApiError(
                f"there is no client certificate with a fitting key in {where}: {why}"
            ) from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM format"
    return error.strerror or str(error)
