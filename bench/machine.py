"""Where this kernel has no ipvs, what needs it is measured in a virtual machine.

That is emulated and many times slower, so only ratios of one run there mean something.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from backends.kernel.virtual_servers import NoIpvs, VirtualServers
from bench.record import Row
from tests.support.fetched import exit_code
from tests.support.vm import kernel
from tests.support.vm.machine import Machine

TITLE = (
    "this kernel has no ip_vs: what needs it is measured on Debian's own, in a virtual machine. "
    "That is emulated: only ratios of one run mean something there"
)
_SLOWER = 20
_RESULT = "result.json"
_PAUSE_S = 0.2


def is_needed() -> bool:
    """Say whether this kernel lacks ipvs."""
    try:
        with VirtualServers("looking for ipvs"):
            return False
    except NoIpvs:
        return True


def run(module: str, arguments: Sequence[str]) -> Row:
    """Run a module in a machine and return the JSON that it writes to the file `--to` names.

    Ends this process with what the machine said if that fails.
    """
    print(TITLE, file=sys.stderr, flush=True)
    if exit_code(kernel.fetch):
        sys.exit(1)
    share = Path(tempfile.mkdtemp(prefix="kproxy-bench-"))
    command = [sys.executable, "-u", "-m", module, *arguments, "--to", str(Machine.SHARE / _RESULT)]
    told = {"KPROXY_TESTS_SLOWER": str(_SLOWER), "PYTHONDONTWRITEBYTECODE": "1"}
    machine = Machine(command, share=share, cwd=Path.cwd(), environment=told)
    try:
        with machine.output.open() as output:
            while machine.is_running():
                print(output.read(), end="", file=sys.stderr, flush=True)
                time.sleep(_PAUSE_S)
            print(output.read(), end="", file=sys.stderr, flush=True)
    finally:
        machine.off()
    if machine.status() != 0:
        sys.exit(f"error: not all could be measured in the machine: see what is in {share}")
    result: Row = json.loads((share / _RESULT).read_text())
    shutil.rmtree(share)
    return result
