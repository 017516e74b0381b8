"""Credentials from an exec plugin (client.authentication.k8s.io), kept until they expire."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from kproxy.core.misshapen import UNDECODABLE
from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.server import MemoryFile

LIMIT_S = 60.0  # a plugin may talk to a cloud, but not to a person
_MAX_TEXT = 300  # characters of what a plugin says when it fails


class _Variable(msgspec.Struct):
    name: str
    value: str


class Exec(msgspec.Struct, rename="camel"):
    """The section `exec` of a kubeconfig's user."""

    api_version: str
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    provide_cluster_info: bool | None = None


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: _Status


# Made before there are threads: two that decode a type first, at once, end the process by a signal.
_CREDENTIALS = msgspec.json.Decoder(_ExecCredential)


@dataclass(frozen=True, slots=True)
class Given:
    """What a plugin gave: a token ("" for none), a certificate with its key, or both."""

    token: str = field(repr=False)
    certificate: MemoryFile | None
    key: MemoryFile | None
    until: float  # seconds since the epoch


class Plugin:
    """The exec plugin of a kubeconfig's user. Not for several threads at once."""

    def __init__(self, kubeconfig: Path, section: Exec) -> None:
        self._kubeconfig = kubeconfig
        self._section = section
        self._given: Given | None = None
        self._starting = threading.Lock()  # until then it runs already, and cannot be killed yet
        self._running: subprocess.Popen[bytes] | None = None

    def given(self, cluster: Mapping[str, object], *, now: float, refused: bool) -> Given:
        """Return the plugin's credentials, asking it again if they expired or were `refused`.

        `cluster` is told to a plugin that wants to know; `now` is in seconds since the epoch.
        Raises ApiError.
        """
        given = self._given
        if given is None or refused or given.until <= now:
            given = self._given = self._ask(cluster)
        return given

    def interrupt(self) -> None:
        """Kill the plugin if it runs; whoever waits for it gets an ApiError. From any thread."""
        with self._starting:
            running = self._running
        if running is not None:
            _kill(running)

    def _ask(self, cluster: Mapping[str, object]) -> Given:
        section = self._section
        spec: dict[str, object] = {"interactive": False}
        if section.provide_cluster_info:
            spec["cluster"] = cluster
        wanted = {"apiVersion": section.api_version, "kind": "ExecCredential", "spec": spec}
        try:
            said = _CREDENTIALS.decode(self._run(msgspec.json.encode(wanted)))
        except msgspec.ValidationError as error:
            raise self._failed(f"answers with no ExecCredential: {error}") from error
        except UNDECODABLE as error:
            raise self._failed(f"answers with no JSON: {error}") from error
        if said.api_version != section.api_version:
            raise self._failed(f"answers as {said.api_version}, which is not what it was asked as")
        status = said.status
        certificate = key = None
        if status.client_certificate_data and status.client_key_data:
            origin = f"the answer of {section.command}"
            certificate = MemoryFile(origin, status.client_certificate_data.encode())
            key = MemoryFile(origin, status.client_key_data.encode())
        elif not status.token:
            raise self._failed("gives neither a token nor a certificate with its key")
        until = status.expiration_timestamp
        return Given(status.token or "", certificate, key, until.timestamp() if until else math.inf)

    def _run(self, info: bytes) -> bytes:
        """Return what the plugin writes, and leave nothing of it running if it fails."""
        variables = {each.name: each.value for each in self._section.env or ()}
        try:
            with self._starting:
                self._running = process = subprocess.Popen(
                    [self._section.command, *(self._section.args or ())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=self._kubeconfig.parent,
                    env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": info.decode()},
                    start_new_session=True,  # so that it can be killed with all that it started
                )
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        except ValueError as error:
            raise self._failed(f"its command or env cannot be used: {error}") from error
        with process:
            try:
                output, complaint = process.communicate(timeout=LIMIT_S)
            except subprocess.TimeoutExpired as error:
                raise self._failed(f"has not finished after {LIMIT_S:.0f} s") from error
            finally:
                self._running = None
                if process.returncode is None:
                    _kill(process)
        if process.returncode:
            said = complaint.decode(errors="replace").strip()
            raise self._failed(f"ends with status {process.returncode}{said and f': {said}'}")
        return output

    def _failed(self, why: str) -> ApiError:
        command = self._section.command
        return ApiError(f"kubeconfig {self._kubeconfig}: exec plugin {command}: {why[:_MAX_TEXT]}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
