"""Credentials from an exec plugin (client.authentication.k8s.io), kept until they expire."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kproxy.watch.api.errors import ApiError

_MAX_TEXT = 300  # characters of what a plugin says when it fails


class MemoryFile:
    """A file that is on no disk, and gone with the last reference to this object.

    `origin` says where its content is from.
    """

    def __init__(self, origin: str, data: bytes) -> None:
        self.origin = origin
        handle = os.memfd_create("kproxy", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, handle)
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        self.path = f"/proc/self/fd/{handle}"


class _Credential(msgspec.Struct, rename="camel"):
    """The status of an ExecCredential."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What a plugin gave, as fields of a kubeconfig's user."""

    fields: Mapping[str, str]
    files: tuple[MemoryFile, ...]
    until: float  # seconds since the epoch


class Plugin:
    """The exec plugin of a kubeconfig's user. Not for several threads at once.

    `section` and `cluster` are the mappings of the file, of the right shape.
    """

    def __init__(self, kubeconfig: Path, section: dict[str, Any], cluster: dict[str, Any]) -> None:
        self._kubeconfig = kubeconfig
        self._section = section
        self._cluster = cluster
        self._given: Given | None = None

    def given(self, *, now: float, refused: bool) -> Given:
        """Return the plugin's credentials, asking it again if they expired or were `refused`.

        `now` is in seconds since the epoch. Raises ApiError.
        """
        given = self._given
        if given is None or refused or given.until <= now:
            given = self._given = self._ask()
        return given

    def _ask(self) -> Given:
        from kubernetes.config.config_exception import ConfigException
        from kubernetes.config.exec_provider import ExecProvider
        from kubernetes.config.kube_config import ConfigNode

        section = ConfigNode("exec", self._section)
        cluster = ConfigNode("cluster", self._cluster)
        try:
            status = ExecProvider(section, str(self._kubeconfig.parent), cluster).run()
            credential = msgspec.convert(status, _Credential)
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        except (ConfigException, msgspec.ValidationError) as error:
            raise self._failed(str(error).removeprefix("exec: ")) from error
        except TypeError as error:  # the package's own, for JSON that is no object
            raise self._failed("answers with no ExecCredential") from error
        fields, files = {}, []
        if credential.token:
            fields["token"] = credential.token
        if credential.client_certificate_data and credential.client_key_data:
            for name, text in (
                ("client-certificate", credential.client_certificate_data),
                ("client-key", credential.client_key_data),
            ):
                file = MemoryFile(f"{name} of {self._section['command']}", text.encode())
                fields[name] = file.path
                files.append(file)
        if not fields:
            raise self._failed("gives neither a token nor a certificate with its key")
        until = credential.expiration_timestamp
        return Given(fields, tuple(files), until.timestamp() if until else math.inf)

    def _failed(self, why: str) -> ApiError:
        command = self._section["command"]
        return ApiError(f"kubeconfig {self._kubeconfig}: exec plugin {command}: {why[:_MAX_TEXT]}")
