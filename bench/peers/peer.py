"""What a peer is: something that makes a node forward, measured beside all others.

To add one, write a class here in a file of its own, and name it in `bench/peers/__init__.py`. What
it inherits starts its process in the node's namespace, ends it by SIGTERM, and takes it for ready
when clients are answered through the first, the middle and the last Service. It has to say

- `name`: how results call it; `version`: what it is exactly;
- `command`: what starts it. It reaches the API server by `home.kubeconfig`, on 127.0.0.1 of the
  node, in JSON; `home.folder` is its own, for a configuration;
- `lacks`: what this machine must have and has not;
- `predecessor`: whose place it can take under traffic, and `clean_up` for the way back. Both then
  have kube-proxy's metrics on 127.0.0.1:10249, which tell when rules are written.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Home:
    """What a peer finds on its node."""

    stage: Stage
    kubeconfig: Path
    folder: Path


class Peer(ABC):
    """Something that makes a node forward."""

    name: str
    predecessor: Peer | None = None
    """Whose place it takes in a cluster, and who removes what that one left; None for nobody's."""
    translates = True
    """Whether clients may call Services; without, they call endpoints straight."""

    @property
    def version(self) -> str:
        """What it is exactly, "" if it is no program."""
        return ""

    def lacks(self) -> str:
        """Return what it misses on this machine, "" if it can run."""
        return ""

    @abstractmethod
    def command(self, home: Home) -> Sequence[str]:
        """Return what starts its process in the node's namespace; nothing if it has none.

        Whatever else the node needs is done before.
        """

    def clean_up(self, home: Home) -> Sequence[str]:
        """Return what removes all that its process left in the kernel; nothing if others do."""
        return ()

    def environment(self, home: Home) -> Mapping[str, str]:
        """Return the environment of its process."""
        # The legacy tools lock one file for the whole host, whatever the namespace.
        return {**os.environ, "XTABLES_LOCKFILE": str(home.folder / "xtables.lock")}
