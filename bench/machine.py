"""A run in a virtual machine, on Debian's kernel, which has ipvs.

It is emulated and many times slower, so only ratios of one run there mean something.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.fetched import Unavailable
from tests.support.vm import kernel
from tests.support.vm.machine import Machine

_SLOWER = 20
_RESULTS = "results.jsonl"
_PAUSE_S = 0.2
_LINES = 20  # of a console, shown where it went wrong


def run_inside(arguments: Sequence[str], to: Path) -> int:
    """Run `python -m bench run` in a machine, copy its results, and return its exit code.

    Results come out also if it is interrupted. Raises Unavailable where there is no kernel for it.
    """
    kernel.fetch()
    inside = Machine.SHARE / _RESULTS
    command = [sys.executable, "-u", "-m", "bench", "run", *arguments, "--to", str(inside)]
    told = {"KPROXY_TESTS_SLOWER": str(_SLOWER)}
    with tempfile.TemporaryDirectory(prefix="kproxy-bench-") as folder:
        share = Path(folder)
        machine = Machine(command, share=share, cwd=Path.cwd(), environment=told)
        try:
            with machine.output.open() as output:
                while machine.is_running():
                    _pass_on(output.read)
                    time.sleep(_PAUSE_S)
                _pass_on(output.read)
        finally:
            machine.off()
            if (share / _RESULTS).exists():
                shutil.copyfile(share / _RESULTS, to)
        if (status := machine.status()) is None:
            said = machine.console.read_text(errors="replace").splitlines()[-_LINES:]
            raise Unavailable("\n".join(["the virtual machine ended before the run did:", *said]))
    return status


def _pass_on(read: Callable[[], str]) -> None:
    print(read(), end="", file=sys.stderr, flush=True)
