"""A container that runs on the layers of an image."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.commands import output_of
from tests.support.waiting import LONGEST_S, until, until_said

# What a container writes goes into a folder of its own. The mounts are in a namespace that ends
# with the container, also where nobody is left to undo them. Neither is there a cgroup to remove;
# crun looks for its file system all the same, and refuses one that is partly of version 1.
_START = """
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/written,workdir=$2/work" "$2/root"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec crun --root "$2/state" --cgroup-manager disabled run --bundle "$2" "$3"
"""


class RunningContainer:
    """One container, from its start to its end; what it says and writes is kept.

    `config` is an OCI runtime's config.json; the root is `folder`/root.
    """

    def __init__(self, config: Mapping[str, Any], *, layers: Sequence[Path], folder: Path) -> None:
        self._folder = folder
        self._name = f"kproxy-container-{uuid.uuid4()}"
        for name in ("written", "work", "root", "state"):
            (folder / name).mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config))
        self._log = folder / "log"
        self._crun = ("crun", "--root", str(folder / "state"))
        below = ":".join(map(str, layers))
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "TERM",
                    "unshare",
                    "--mount",
                    "sh",
                    "-euc",
                    _START,
                    "sh",
                    below,
                    folder,
                    self._name,
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def said(self) -> str:
        """Return all that it has written to its standard output and error."""
        return self._log.read_text()

    def wait_for(self, words: str, *, within_s: float = LONGEST_S) -> float:
        """Wait until these words are in the log; return the seconds that it took."""
        return until_said(words, said=self.said, runs=self._runs, within_s=within_s)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return self._process.wait(timeout=LONGEST_S)

    def stop(self) -> int:
        """Ask it to stop, as the kubelet does, and return the exit code."""
        output_of(*self._crun, "kill", self._name, "TERM", timeout_s=LONGEST_S)
        return self.ended()

    def written(self) -> list[str]:
        """Return the files that it has left in its own layer, by their path in the container."""
        layer = self._folder / "written"
        return sorted(
            f"/{file.relative_to(layer)}"
            for file in layer.rglob("*")
            if file.is_file() and file.stat().st_size
        )

    def close(self) -> None:
        """End it, if it still runs, and remove what the runtime kept of it.

        One that has just been started is not known to the runtime yet, and may become known, or
        end, at any moment.
        """
        try:
            until(self._gone, within_s=LONGEST_S, what="the container ends and is forgotten")
        finally:
            if self._process.poll() is None:
                for child in _children(self._process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                self._process.kill()
            self._process.wait()

    def _runs(self) -> bool:
        return self._process.poll() is None

    def _gone(self) -> bool:
        """Say whether it has ended and the runtime knows nothing of it; try to bring that about."""
        ended = self._process.poll() is not None
        known = any((self._folder / "state").iterdir())
        if known:
            # To delete is not enough where it shares the machine's processes.
            for step in (("kill", self._name, "KILL"), ("delete", "--force", self._name)):
                command = [*self._crun, *step]
                subprocess.run(command, check=False, capture_output=True, timeout=LONGEST_S)
        return ended and not known


def _children(process: int) -> list[int]:
    """Return the children of a process that has not been waited for, none if it has ended."""
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:
        return []
