"""The kubelet's part: containers of a pod template on a test node, with their volumes."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
from pathlib import Path

from tests.deploy.image.building import Image
from tests.deploy.image.capabilities import held
from tests.deploy.image.container import RunningContainer
from tests.deploy.image.runtime_config import Volumes, runtime_config
from tests.deploy.image.seccomp import runtime_default
from tests.deploy.pod_template import ALL, Container
from tests.support.net.namespace import Namespace


class Pod:
    """Containers that share a network namespace and volumes, gone with `close`.

    `host` is the network that the template means by the host's; with `host_pid` they see all
    processes of this machine. `volumes` tells where on it the content of each of its volumes is.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        host: Namespace,
        volumes: Volumes,
        host_pid: bool = False,
    ) -> None:
        self._image = image
        self._host_pid = host_pid
        self._folder = folder
        self._host = host
        self._volumes = volumes
        self._numbers = itertools.count()
        self._started: list[RunningContainer] = []

    def start(self, container: Container) -> RunningContainer:
        """Start a container, whatever image its template names."""
        folder = self._folder / f"{container.name}.{next(self._numbers)}"
        have = held(Path("/proc/self/status").read_text())
        granted = have if container.capabilities == ALL else container.capabilities
        config = runtime_config(
            container,
            root=folder / "root",
            image_env=self._image.config["Env"],
            network=Path(f"/proc/{os.getpid()}/fd/{self._host.fd}"),
            host_pid=self._host_pid,
            volumes=self._volumes,
            capabilities=granted,
            seccomp=runtime_default(granted, platform.machine()),
        )
        running = RunningContainer(config, layers=self._image.layers, folder=folder)
        self._started.append(running)
        return running

    def run(self, container: Container) -> str:
        """Run a container to its end, which must be a good one, and return what it said."""
        running = self.start(container)
        assert running.ended() == 0, running.said()
        return running.said()

    def close(self) -> None:
        """End what still runs, each whatever becomes of the others."""
        with contextlib.ExitStack() as closing:
            for container in self._started:
                closing.callback(container.close)
