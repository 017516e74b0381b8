"""Prometheus' own checker of rules: where it is, and how it comes from Debian's package.

`python -m tests.deploy.promtool` fetches it if it is missing. Only the one program is taken from
the package: to install that would start a Prometheus on this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.fetched import Unavailable, exit_code, kept

_PACKAGE = "prometheus"
_INSIDE = "./usr/bin/promtool"
_LONGEST_S = 300


def find() -> Path:
    """Return the file of the program. Raises Unavailable."""
    on_path = shutil.which("promtool")
    for file in (Path(on_path) if on_path else _cached(), _cached()):
        if file.is_file():
            return file
    raise Unavailable("promtool is not here yet: run `make programs`")


def fetch() -> None:
    """Get the program if it is missing; it appears as a whole. Raises Unavailable."""
    try:
        find()
    except Unavailable:
        print(f"fetching promtool from Debian's package {_PACKAGE} (19 MB)", flush=True)
    else:
        return
    to = _cached()
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        _run(["apt-get", "download", "-qq", _PACKAGE], folder)
        (package,) = Path(folder).glob("*.deb")
        with Path(folder, "content.tar").open("wb") as tar:
            _run(["dpkg-deb", "--fsys-tarfile", str(package)], folder, tar.fileno())
        _run(["tar", "--extract", "--file=content.tar", _INSIDE], folder)
        os.replace(Path(folder, _INSIDE), to)


def _cached() -> Path:
    return kept("promtool")


def _run(command: list[str], folder: str, output: int | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=_LONGEST_S,
    )
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(exit_code(fetch))
