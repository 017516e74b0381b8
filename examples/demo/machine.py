"""Where this kernel has no ipvs, the demo of that mode runs in a virtual machine.

It is emulated, so everything there takes longer, and less of it is done at a time.
"""

from __future__ import annotations

import subprocess
import sys

from backends.kernel.virtual_servers import NoIpvs, VirtualServers
from tests.support.fetched import exit_code
from tests.support.vm import kernel

ARGUMENTS = ("--slower", "4", "--fewer", "32")
"""The command line of the demo in the machine, besides the mode."""

_TITLE = (
    "this kernel has no ip_vs: the demo runs on Debian's own, in a virtual machine. That is "
    "emulated, so it takes some minutes, and fewer requests are sent"
)


def is_needed(mode: str) -> bool:
    """Say whether this kernel lacks what a mode needs."""
    if mode != "ipvs":
        return False
    try:
        with VirtualServers("looking for ipvs"):
            return False
    except NoIpvs:
        return True


def run(mode: str) -> int:
    """Run the demo in a machine; return its exit code."""
    print(_TITLE, flush=True)
    code = exit_code(kernel.fetch)
    if code:
        return code
    inside = [sys.executable, "-u", "-m", "examples.demo", "--mode", mode, *ARGUMENTS]
    return subprocess.run([sys.executable, "-m", "tests.support.vm", *inside]).returncode
