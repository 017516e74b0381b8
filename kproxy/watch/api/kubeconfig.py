"""A kubeconfig file, turned into the client configuration of the `kubernetes` package.

The package makes sense of clusters and users. What it does not do is done here: saying which field
of which file is wrong, keeping inline keys off the disk, telling that an exec plugin failed (the
package logs that and goes on without credentials), and keeping a plugin's answer until it expires.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.plugin import MemoryFile, Plugin
from kproxy.watch.text import BadText, Flaw, checked_utf8
from kproxy.watch.yaml_text import read_yaml

if TYPE_CHECKING:
    from kubernetes.client import Configuration

_MAX_SIZE_BYTES = 4 << 20
_NONE = ("", "Bearer")
_PREFIX = "Invalid kube-config file. "  # of the package's messages, which do not name the file
_DATA_FIELDS = ("certificate-authority", "client-certificate", "client-key")
_TLS_FIELDS = ("certificate-authority", "insecure-skip-tls-verify", "client-certificate")


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _Variable(msgspec.Struct):
    name: str
    value: str


class _Exec(msgspec.Struct, rename="camel"):
    api_version: str
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    exec: _Exec | None = None
    auth_provider: dict[str, object] | None = msgspec.field(name="auth-provider", default=None)


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
    """The shape that a file must have; what the fields mean is the package's business."""

    current_context: str
    contexts: list[_NamedContext]
    clusters: list[_NamedCluster]
    users: list[_NamedUser] | None = None


class Kubeconfig:
    """One kubeconfig file, read anew as often as asked. Not for several threads at once.

    `master` replaces the server's address, "" does not.
    """

    def __init__(self, path: Path, master: str) -> None:
        self._path = path
        self._master = master
        self._text: bytes | None = None
        self._cluster: dict[str, Any] = {}
        self._user: dict[str, Any] = {}
        self._inline: tuple[MemoryFile, ...] = ()
        self._plugin: Plugin | None = None

    def load(self, *, now: float, refused: bool) -> tuple[Configuration, tuple[MemoryFile, ...]]:
        """Return the client configuration as the file and what it refers to say now.

        `now` is in seconds since the epoch. `refused`: the server did not accept what an exec
        plugin gave last, so it is asked again. The files must live as long as the configuration
        is used. Raises ApiError.
        """
        from kubernetes.client import Configuration
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.config.kube_config import KubeConfigLoader

        text = self._read()
        if text != self._text:
            self._take(self._parsed(text))
            self._text = text
        user, files = self._user, self._inline
        if self._plugin is not None:
            given = self._plugin.given(now=now, refused=refused)
            user, files = {**user, **given.fields}, (*files, *given.files)
        document = {
            "current-context": "this",
            "contexts": [{"name": "this", "context": {"cluster": "this", "user": "this"}}],
            "clusters": [{"name": "this", "cluster": self._cluster}],
            "users": [{"name": "this", "user": user}],
        }
        configuration = Configuration()
        try:
            loader = KubeConfigLoader(document, config_base_path=str(self._path.parent))
            loader.load_and_set(configuration)
        except OSError as error:
            raise self._wrong(f"{error.filename} cannot be read: {error.strerror}") from error
        except (ConfigException, ValueError) as error:
            raise self._wrong(str(error).removeprefix(_PREFIX)) from error
        if "tokenFile" in user and configuration.api_key.get("BearerToken", "").strip() in _NONE:
            raise self._wrong(f"tokenFile {user['tokenFile']} is empty")
        return configuration, files

    def _read(self) -> bytes:
        try:
            with open(self._path, "rb") as file:
                text = file.read(_MAX_SIZE_BYTES + 1)
        except OSError as error:
            raise self._wrong(f"cannot be read: {error.strerror}") from error
        if len(text) > _MAX_SIZE_BYTES:
            raise self._wrong(f"is larger than {_MAX_SIZE_BYTES >> 20} MiB")
        return text

    def _parsed(self, text: bytes) -> dict[str, Any]:
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
            msgspec.convert(document, _Kubeconfig)
        except msgspec.ValidationError as error:
            raise self._wrong(str(error).replace("`", "").replace("$.", "")) from error
        return document

    def _take(self, document: dict[str, Any]) -> None:
        """Choose the cluster and the user of the current context, and make them complete."""
        context = self._named(document, "contexts", document["current-context"])["context"]
        cluster = self._named(document, "clusters", context["cluster"])["cluster"]
        user: dict[str, Any] = {}
        if context.get("user"):
            user = self._named(document, "users", context["user"]).get("user") or {}
        cluster, ca_files = self._without_data(cluster)
        user, user_files = self._without_data(user)
        if "tokenFile" in user:
            user.pop("token", None)  # the package would take the other way round
        if ("client-certificate" in user) != ("client-key" in user):
            raise self._wrong("the user needs both client-certificate and client-key, or neither")
        cluster["server"] = self._server(cluster, user)
        plugin = user.pop("exec", None)
        self._plugin = Plugin(self._path, plugin, cluster) if plugin else None
        self._cluster, self._user, self._inline = cluster, user, (*ca_files, *user_files)

    def _named(self, document: dict[str, Any], section: str, name: str) -> dict[str, Any]:
        entries: Sequence[dict[str, Any]] = document.get(section) or ()
        found = [entry for entry in entries if entry["name"] == name]
        if not found:
            raise self._wrong(f"{section} holds none named {name!r}")
        return found[0]

    def _without_data(
        self, fields: dict[str, Any]
    ) -> tuple[dict[str, Any], tuple[MemoryFile, ...]]:
        """Return the fields that are set, inline data as files in memory."""
        result = {name: value for name, value in fields.items() if value}
        files = []
        for field in _DATA_FIELDS:
            data = result.pop(f"{field}-data", None)
            if data is not None:
                try:
                    content = base64.b64decode("".join(data.split()), validate=True)
                except binascii.Error as error:
                    raise self._wrong(f"{field}-data is no base64") from error
                file = MemoryFile(f"{field}-data of {self._path}", content)
                result[field] = file.path
                files.append(file)
        return result, tuple(files)

    def _server(self, cluster: dict[str, Any], user: dict[str, Any]) -> str:
        """Return the server's address, complete."""
        given: str = self._master or cluster.get("server", "")
        secure = any(field in cluster or field in user for field in _TLS_FIELDS)
        server = complete_address(given, secure=secure)
        if server is None:
            raise self._wrong(f"server {given!r} is no address like https://name:port")
        return server

    def _wrong(self, why: str) -> ApiError:
        return ApiError(f"kubeconfig {self._path}: {why}")


def complete_address(server: str, *, secure: bool) -> str | None:
    """Return a server's address with a scheme, None if it is none.

    One without a scheme is read as client-go reads it: `secure` says that TLS is configured.
    """
    if "://" not in server:
        server = f"{'https' if secure else 'http'}://{server}"
    try:
        parts = urlsplit(server)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return server if usable else None
