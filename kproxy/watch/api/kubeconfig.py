"""A kubeconfig file, and the target that it means now.

The loader of the `kubernetes` package is not used: it does not name the wrong field, writes inline
keys to a disk, dies of what a plugin says or goes on without credentials, and knows no `as`.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

import msgspec

from kproxy.text.urls import basic, check_proxy, complete_address, split_user, without_user
from kproxy.text.utf8 import BadText, Flaw, checked_utf8
from kproxy.text.yaml import read_yaml
from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.plugin import Exec, Plugin
from kproxy.watch.api.server import ApiServer, MemoryFile

_MAX_SIZE_BYTES = 4 << 20
_PLUGIN_CONFIG = "client.authentication.k8s.io/exec"  # the extension that is meant for plugins
_HEADER_NAME = "!#$&'*+-.^_`|~"  # what may stand in one besides letters and digits


class _Extension(msgspec.Struct):
    name: str = ""
    extension: object = None


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None
    extensions: list[_Extension] | None = None


class _AuthProvider(msgspec.Struct):
    name: str = ""


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    as_user: str | None = msgspec.field(name="as", default=None)
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None
    exec: Exec | None = None
    auth_provider: _AuthProvider | None = None


class _Context(msgspec.Struct):
    cluster: str
    user: str | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _Kubeconfig(msgspec.Struct, rename="kebab"):
    current_context: str
    contexts: list[_NamedContext]
    clusters: list[_NamedCluster]
    users: list[_NamedUser] | None = None


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_N = TypeVar("_N", bound=_Named)


class Kubeconfig:
    """One kubeconfig file, read anew as often as asked. Not for several threads at once.

    `master` replaces the server's address, "" does not. `now` returns seconds since the epoch.
    """

    def __init__(self, path: Path, master: str, *, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._master = master
        self._now = now
        self._text: bytes | None = None
        self._cluster = _Cluster()
        self._cluster_name = ""
        self._user = _User()
        self._plugin: Plugin | None = None

    def load(self, *, refused: bool) -> ApiServer:
        """Return the target as the file and what it refers to say now.

        `refused`: the server did not accept what an exec plugin gave last, so it is asked again.
        Raises ApiError.
        """
        text = self._read()
        if text != self._text:
            self._take(self._parsed(text))
            self._text = text
        cluster, user = self._cluster, self._user
        server, user_in_server = split_user(self._server())
        ca = self._file(
            "certificate-authority",
            cluster.certificate_authority,
            cluster.certificate_authority_data,
        )
        certificate = self._file(
            "client-certificate", user.client_certificate, user.client_certificate_data
        )
        key = self._file("client-key", user.client_key, user.client_key_data)
        if (certificate is None) != (key is None):
            raise self._wrong("the user needs both client-certificate and client-key, or neither")
        token = self._token()
        if self._plugin is not None:
            told = _told(cluster, server, ca)
            given = self._plugin.given(told, now=self._now(), refused=refused)
            token = given.token or token
            certificate, key = given.certificate or certificate, given.key or key
        return ApiServer(
            server=server,
            origin=f"kubeconfig {self._path}, cluster {self._cluster_name}",
            ca=ca,
            certificate=certificate,
            key=key,
            insecure=bool(cluster.insecure_skip_tls_verify),
            server_name=cluster.tls_server_name or "",
            proxy=cluster.proxy_url or "",
            authorization=f"Bearer {token}" if token else self._password() or user_in_server,
            impersonation=_impersonation(user),
        )

    def interrupt(self) -> None:
        """Let a call of `load` that waits for an exec plugin fail now. From any thread."""
        plugin = self._plugin
        if plugin is not None:
            plugin.interrupt()

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                text = file.read(_MAX_SIZE_BYTES + 1)
        except OSError as error:
            raise self._wrong(f"cannot be read: {error.strerror}") from error
        if len(text) > _MAX_SIZE_BYTES:
            raise self._wrong(f"is larger than {_MAX_SIZE_BYTES >> 20} MiB")
        return text

    def _parsed(self, text: bytes) -> _Kubeconfig:
        try:
            document = next(iter(read_yaml(checked_utf8(text))), None)
        except BadText as error:
            where = f"line {error.place.line}: " if error.place else ""
            raise self._wrong(f"{where}{error.why}") from error
        if isinstance(document, Flaw):
            raise self._wrong(f"line {document.place.line}: {document.why}")
        if not isinstance(document, dict):
            raise self._wrong("is empty" if document is None else "is no mapping")
        try:
            return msgspec.convert(document, _Kubeconfig)
        except msgspec.ValidationError as error:
            raise self._wrong(str(error).replace("`", "").replace("$.", "")) from error

    def _take(self, document: _Kubeconfig) -> None:
        """Choose the cluster and the user of the current context. Raises ApiError."""
        context = self._named(document.contexts, "contexts", document.current_context).context
        cluster = self._named(document.clusters, "clusters", context.cluster).cluster
        user = None
        if context.user:
            user = self._named(document.users or (), "users", context.user).user
        user = user or _User()
        self._check(cluster, user)
        self._cluster, self._cluster_name, self._user = cluster, context.cluster, user
        self._plugin = Plugin(self._path, user.exec) if user.exec else None

    def _check(self, cluster: _Cluster, user: _User) -> None:
        if cluster.proxy_url:
            try:
                check_proxy(cluster.proxy_url)
            except ValueError as error:
                raise self._wrong(f"proxy-url: {error}") from error
        if user.auth_provider is not None:
            name = user.auth_provider.name
            raise self._wrong(f"auth-provider {name!r} is not supported: use an exec plugin")
        if (user.as_uid or user.as_groups or user.as_user_extra) and not user.as_user:
            raise self._wrong("the user has as-uid, as-groups or as-user-extra, but no `as`")

    def _named(self, entries: Sequence[_N], section: str, name: str) -> _N:
        for entry in entries:
            if entry.name == name:
                return entry
        raise self._wrong(f"{section} holds none named {name!r}")

    def _file(self, field: str, path: str | None, data: str | None) -> MemoryFile | None:
        """Return what a field is about, given in a file or inline; None if it is not set."""
        if data:
            try:
                content = base64.b64decode("".join(data.split()), validate=True)
            except ValueError as error:
                raise self._wrong(f"{field}-data is no base64") from error
            return MemoryFile(f"{field}-data of {self._path}", content)
        return self._read_for(field, path) if path else None

    def _read_for(self, field: str, name: str) -> MemoryFile:
        path = self._path.parent / name
        try:
            return MemoryFile(str(path), path.read_bytes())
        except OSError as error:
            raise self._wrong(f"{field} {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise self._wrong(f"{field} {name!r} is no path: {error}") from error

    def _token(self) -> str:
        """Return the token of the file, "" for none; one in a file of its own comes first."""
        path = self._user.token_file
        if not path:
            return self._user.token or ""
        token = self._read_for("tokenFile", path).data.decode("latin-1").strip()
        if not token:
            raise self._wrong(f"tokenFile {path} is empty")
        return token

    def _password(self) -> str:
        user = self._user
        if not (user.username and user.password):
            return ""
        return basic(f"{user.username}:{user.password}".encode(errors="surrogatepass"))

    def _server(self) -> str:
        """Return the server's address, complete."""
        cluster, user = self._cluster, self._user
        given = self._master or cluster.server or ""
        secure = (
            cluster.certificate_authority
            or cluster.certificate_authority_data
            or cluster.insecure_skip_tls_verify
            or user.client_certificate
            or user.client_certificate_data
        )
        server = complete_address(given, secure=bool(secure))
        if server is None:
            shown = without_user(given)
            raise self._wrong(f"server {shown!r} is no address like https://name:port")
        return server

    def _wrong(self, why: str) -> ApiError:
        return ApiError(f"kubeconfig {self._path}: {why}")


def _told(cluster: _Cluster, server: str, ca: MemoryFile | None) -> dict[str, object]:
    """Return what an exec plugin is told of the cluster (`spec.cluster` of an ExecCredential)."""
    fields = {
        "server": server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": None if ca is None else base64.b64encode(ca.data).decode(),
        "proxy-url": cluster.proxy_url,
    }
    told: dict[str, object] = {name: value for name, value in fields.items() if value}
    for each in cluster.extensions or ():
        if each.name == _PLUGIN_CONFIG:
            told["config"] = each.extension
    return told


def _impersonation(user: _User) -> tuple[tuple[str, str], ...]:
    """Return the headers by which the user acts as somebody else, as client-go sends them."""
    extra = (user.as_user_extra or {}).items()
    headers = [
        ("Impersonate-User", user.as_user),
        ("Impersonate-Uid", user.as_uid),
        *(("Impersonate-Group", group) for group in user.as_groups or ()),
        *(
            (f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME)}", value)
            for key, values in extra
            for value in values
        ),
    ]
    return tuple((name, value) for name, value in headers if value)
