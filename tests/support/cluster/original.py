"""The real kube-proxy: how it is configured and started, and it as a process on a node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kproxy.core.addresses import Family
from tests.support.cluster import programs
from tests.support.node.cluster import CONFIGURATION
from tests.support.node.node import Node
from tests.support.packets.table import NODE_NAME
from tests.support.waiting import LONGEST_S, until

SYNC_ENDED = "yncProxyRules complete"
"""What it logs at the end of each sync of a family, in any mode, if it is told to by `VERBOSE`."""

VERBOSE = "--v=4"
_TOOLS = ("iptables", "ip6tables")


def configuration(kubeconfig: Path, **fields: object) -> dict[str, object]:
    """Return what lets it follow a fake API server in a namespace, with these fields besides.

    kproxy takes it as well.
    """
    return {
        **CONFIGURATION,
        "conntrack": {"maxPerCore": 0},  # else it sets what is read-only there
        "clientConnection": {
            "kubeconfig": str(kubeconfig),
            # The fake server speaks nothing else.
            "contentType": "application/json",
            "acceptContentTypes": "application/json",
        },
        **fields,
    }


def command(document: Mapping[str, object], folder: Path, node_name: str) -> list[str]:
    """Return what starts it with a configuration, which is written into the folder."""
    config = folder / "config.conf"
    config.write_text(json.dumps(document))
    program = str(programs.find("kube-proxy"))
    return [program, f"--config={config}", f"--hostname-override={node_name}"]


def path(folder: Path, variant: str) -> str:
    """Return a PATH on which the plain names of iptables mean one variant; they are in `folder`."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for stem in _TOOLS:
        for rest in ("", "-save", "-restore"):
            real = shutil.which(f"{stem}-{variant}{rest}")
            assert real is not None, f"{stem}-{variant}{rest} is not installed"
            link = tools / f"{stem}{rest}"
            link.unlink(missing_ok=True)
            link.symlink_to(real)
    return f"{tools}:{os.environ['PATH']}"


class Original:
    """kube-proxy on a node of the tests; what it writes into `folder` is its own."""

    def __init__(self, node: Node, folder: Path, document: Mapping[str, object]) -> None:
        folder.mkdir(exist_ok=True)
        self._node = node
        self._log = folder / "log"
        with node.network.node.entered(), self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                [*command(document, folder, NODE_NAME), VERBOSE],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={"PATH": path(folder, node.variant), "XTABLES_LOCKFILE": str(node.lock)},
            )

    def said(self) -> str:
        """Return all that it has logged so far."""
        return self._log.read_text()

    def ready(self) -> Original:
        """Wait until it has written the rules of both families."""

        def written() -> bool:
            assert self.process.poll() is None, self.said()
            ends = [line for line in self.said().splitlines() if SYNC_ENDED in line]
            return all(any(f'="{family.value}"' in line for line in ends) for family in Family)

        until(written, within_s=LONGEST_S, what=lambda: f"its rules:\n{self.said()}")
        return self

    def stop(self) -> None:
        """Ask it to end, as kubelet does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=LONGEST_S)

    def kill(self) -> None:
        """End it, if it still runs."""
        self.process.kill()
        self.process.wait(timeout=LONGEST_S)
