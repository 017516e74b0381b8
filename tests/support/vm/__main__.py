"""Runs one command in the machine: `python -m tests.support.vm COMMAND…`.

It runs as root in this folder, sees the files of this machine, and what it writes is gone after it.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support.fetched import Unavailable
from tests.support.vm.machine import Machine

_PAUSE_S = 0.1


def main(command: list[str]) -> int:
    """Run it, show what it says, and return its exit code."""
    if not command:
        print("which command? python -m tests.support.vm COMMAND…", file=sys.stderr)
        return 2
    # Whoever ends this ends the machine too, which nothing else does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    share = Path(tempfile.mkdtemp(prefix="kproxy-vm-"))
    try:
        machine = Machine(command, share=share, cwd=Path.cwd(), environment={})
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        _show(machine)
    finally:
        machine.off()
    status = machine.status()
    if status is None:
        print(f"error: the machine went off before the command ended: {machine.console} tells why")
    return 1 if status is None else status


def _show(machine: Machine) -> None:
    with machine.output.open() as output:
        while machine.is_running():
            print(output.read(), end="", flush=True)
            time.sleep(_PAUSE_S)
        print(output.read(), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
