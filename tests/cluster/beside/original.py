"""The real kube-proxy as a process on a node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from kproxy.core.addresses import Family
from tests.cluster.beside.asking import ask
from tests.support.cluster import programs
from tests.support.cluster.place import Place
from tests.support.packets.table import NODE_NAME
from tests.support.waiting import LONGEST_S, until

_TOOLS = ("iptables", "ip6tables")
_METRICS = 10249
_SYNCED = "kubeproxy_sync_proxy_rules_last_timestamp_seconds{"


class Original:
    """kube-proxy with a place's configuration; `mode` is the one that it is to work in."""

    def __init__(self, place: Place, mode: str = "iptables") -> None:
        self._place = place
        folder = place.config.with_name("original")
        folder.mkdir(exist_ok=True)
        self._log = folder / "log"
        document = json.loads(place.config.read_text())
        del document["kproxy"]
        config = folder / "config.conf"
        config.write_text(json.dumps({**document, "mode": mode}))
        with place.node.network.node.entered(), self._log.open("wb") as stream:
            self.process = subprocess.Popen(
                [
                    programs.find("kube-proxy"),
                    f"--config={config}",
                    f"--hostname-override={NODE_NAME}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={
                    "PATH": f"{_tools(folder, place.node.variant)}:{os.environ['PATH']}",
                    "XTABLES_LOCKFILE": str(place.node.lock),
                },
            )

    def said(self) -> str:
        """Return all that it has logged so far."""
        return self._log.read_text()

    def ready(self) -> Original:
        """Wait until it has written the rules of both families."""

        def written() -> bool:
            assert self.process.poll() is None, self.said()
            try:
                page = ask(self._place, _METRICS, "/metrics").body
            except ConnectionRefusedError:
                return False
            times = [line.split()[-1] for line in page.splitlines() if line.startswith(_SYNCED)]
            return len(times) == len(Family) and "0" not in times

        until(written, within_s=LONGEST_S, what="kube-proxy's rules")
        return self

    def stop(self) -> None:
        """Ask it to end, as kubelet does, and wait until it has."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=LONGEST_S)

    def kill(self) -> None:
        """End it, if it still runs."""
        self.process.kill()
        self.process.wait(timeout=LONGEST_S)


def _tools(folder: Path, variant: str) -> Path:
    """Return a folder in which the plain names of iptables mean one variant."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for stem in _TOOLS:
        for rest in ("", "-save", "-restore"):
            real = shutil.which(f"{stem}-{variant}{rest}")
            assert real is not None, f"{stem}-{variant}{rest} is not installed"
            link = tools / f"{stem}{rest}"
            link.unlink(missing_ok=True)
            link.symlink_to(real)
    return tools
