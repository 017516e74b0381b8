"""How to reach the API server, and as whom: from a kubeconfig file, by address, or in a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from kproxy.text.urls import complete_address, proxy_for, split_user, without_user
from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.kubeconfig import Kubeconfig
from kproxy.watch.api.lean_import import lean_import
from kproxy.watch.api.server import ApiServer, MemoryFile, check
from kproxy.watch.api.session import Requested, Session

log = logging.getLogger(__name__)

RELOAD_S = 60.0  # the kubelet renews a token long before it expires; client-go reads as often


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
        """The server's address."""
        return self._targets.current().server

    def session(self) -> Session:
        """Return connections of one's own, to be closed by whoever asked."""
        return Session(self._targets, self._requested)


def connect(
    access: Access, *, requested: Requested = lambda verb, code, host, seconds: None
) -> Api:
    """Read how to reach the API server, without asking it anything yet.

    `requested` is told of every request, from any thread: its method, the status as text ("<error>"
    if there was no answer), the host with its port, and the seconds until the answer began, None
    for a stream. Raises ApiError.
    """
    targets = _Targets(_loader(access), clock=time.monotonic, environment=os.environ)
    return Api(targets, requested)


class _Loader(Protocol):
    """Reads how to reach the API server."""

    def load(self, *, refused: bool) -> ApiServer:
        """Return that as of now; `refused`: the last answer was not accepted. Raises ApiError."""

    def interrupt(self) -> None:
        """Let a `load` that waits fail now. From any thread."""


def _loader(access: Access) -> _Loader:
    if access.kubeconfig:
        return Kubeconfig(Path(os.path.abspath(access.kubeconfig)), access.master)
    if access.master:
        return _Simple(lambda: _anonymous(access.master))
    return _Simple(_in_cluster)


class _Simple:
    """What is read in no time."""

    def __init__(self, read: Callable[[], ApiServer]) -> None:
        self._read = read

    def load(self, *, refused: bool) -> ApiServer:
        return self._read()

    def interrupt(self) -> None:
        """Do nothing: it never waits."""


def _anonymous(master: str) -> ApiServer:
    server = complete_address(master, secure=False)
    if server is None:
        shown = without_user(master)
        raise ApiError(f"--master {shown!r} is no address like https://name:port")
    server, authorization = split_user(server)
    return ApiServer(server=server, authorization=authorization)


def _in_cluster() -> ApiServer:
    with lean_import():
        from kubernetes.client import Configuration
        from kubernetes.config import incluster_config
        from kubernetes.config.config_exception import ConfigException

    configuration = Configuration()
    try:
        incluster_config.load_incluster_config(configuration, try_refresh_token=False)
        ca_file = Path(configuration.ssl_ca_cert)
        ca = MemoryFile(str(ca_file), ca_file.read_bytes())
    except (ConfigException, OSError, ValueError) as error:
        where = os.path.dirname(incluster_config.SERVICE_TOKEN_FILENAME)
        raise ApiError(
            "no kubeconfig and no --master is given, and this is no pod with a service account "
            f"(KUBERNETES_SERVICE_HOST, {where}): {error}"
        ) from error
    authorization = configuration.api_key["BearerToken"].strip()
    return ApiServer(server=configuration.host, ca=ca, authorization=authorization)


class _Targets:
    """The target of requests, loaded anew when it is due. For any thread."""

    def __init__(
        self, loader: _Loader, *, clock: Callable[[], float], environment: Mapping[str, str]
    ) -> None:
        self._loader = loader
        self._clock = clock
        self._environment = environment
        self._lock = threading.Lock()
        self._trouble = ""  # why the last attempt to load it failed
        self._believed = ""  # the server whose certificate is not verified, as was said
        self._target = self._loaded(refused=False)
        self._tried_at = clock()

    def current(self) -> ApiServer:
        """Return the target for a new request.

        A configuration that cannot be loaded again leaves the last one in force, and so does one
        that another thread is just loading.
        """
        due = self._clock() - self._tried_at >= RELOAD_S
        if due and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(ApiError):
                    self._load(refused=False)
            finally:
                self._lock.release()
        return self._target

    def after_refusal(self, target: ApiServer) -> ApiServer | None:
        """Return other credentials than those just refused, None if there are none yet.

        Raises ApiError if they cannot be loaded.
        """
        asked_at = self._clock()
        with self._lock:
            if self._trouble and self._tried_at > asked_at:
                raise ApiError(self._trouble)  # another thread tried while this one waited
            if self._target is target:
                self._load(refused=True)
            newer = self._target
        return newer if newer.credentials != target.credentials else None

    def interrupt(self) -> None:
        """Let nobody wait any longer for a configuration that is being loaded."""
        self._loader.interrupt()

    def _load(self, *, refused: bool) -> None:
        """Replace the target, or say why not: in the log when that is new, and by ApiError."""
        try:
            self._target = self._loaded(refused=refused)
        except ApiError as error:
            if str(error) != self._trouble:
                log.warning("%s; going on with what was read before", error)
            self._trouble = str(error)
            raise
        else:
            if self._trouble:
                log.info("the way to the API server can be read again")
            self._trouble = ""
        finally:
            self._tried_at = self._clock()

    def _loaded(self, *, refused: bool) -> ApiServer:
        try:
            target = self._loader.load(refused=refused)
            if not target.proxy:
                target = replace(target, proxy=proxy_for(target.server, self._environment))
            check(target)
        except (OSError, ValueError) as error:  # a proxy that is none, or no file to be had
            raise ApiError(f"cannot tell how to reach the API server: {error}") from error
        self._tell_insecure(target)
        return target

    def _tell_insecure(self, target: ApiServer) -> None:
        """Say that a server is not verified, once as long as that stays so."""
        believed = target.server if target.insecure and target.server.startswith("https:") else ""
        if believed and believed != self._believed:
            log.warning(
                "%s: insecure-skip-tls-verify is set, so whoever answers at %s counts as the API "
                "server and gets our credentials; certificate-authority-data would tell it apart",
                target.origin,
                believed,
            )
        self._believed = believed
