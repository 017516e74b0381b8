"""What a run is measured on, and which versions of everything."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.model import Machine, Run
from bench.parameters import Parameters
from bench.peers.peer import Peer

_ROOT = Path(__file__).parents[1]
_TOOLS = {"iptables": ("iptables", "--version"), "nftables": ("nft", "--version")}
_NUMBERS = re.compile(r"\d+(?:\.\d+)+")


def described(preset: str, parameters: Parameters, peers: Iterable[Peer]) -> Run:
    """Return the first line of results, of a run that begins now."""
    versions = {each.name.partition(" ")[0]: each.version for each in peers if each.version}
    return Run(
        started=datetime.now(UTC),
        commit=_output("git", "rev-parse", "--short=12", "HEAD") or "none",
        dirty=bool(_output("git", "status", "--porcelain", "--", ":!bench/results")),
        preset=preset,
        parameters=parameters.document(),
        machine=Machine(cpu=_cpu(), cores=os.cpu_count() or 1, memory_gb=_memory_gb()),
        kernel=platform.release(),
        versions={
            **versions,
            **{name: _version(command) for name, command in _TOOLS.items()},
            "python": platform.python_version(),
        },
    )


def _version(command: tuple[str, ...]) -> str:
    found = _NUMBERS.search(_output(*command))
    return found[0] if found else "none"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_gb() -> float:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(total / 1e9, 1)
