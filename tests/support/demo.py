"""What `make demo` shows, and what README.md promises of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from examples.demo.rollout import NEW, OLD
from tests.support.commands import output_of
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.waiting import LONGEST_S

TOLD_WITHIN_S = LONGEST_S + 30  # until kproxy is ready, and what follows
# It plays in real time: an answer counts within a second, and a pod ends 1.8 s after it is told to.
# A machine that is busy with something else may be late for that once; kproxy is not three times.
ATTEMPTS = 3

_ROOT = Path(__file__).parents[2]
_MAKE_S = 10
_REQUESTS = re.compile(r"^[1-9]\d+ requests, 0 failed;", re.MULTILINE)
_STATES = re.compile(r"^(web-v\d-\d) +node-[ab] (\w+)", re.MULTILINE)


def played(mode: str, *pace: str) -> str:
    """Run what `make demo` runs, with the programs kept as other tests do; return what it shows."""
    recipe = output_of("make", "--dry-run", "demo", f"MODE={mode}", cwd=_ROOT, timeout_s=_MAKE_S)
    (line,) = (each for each in recipe.splitlines() if "examples.demo" in each)
    interpreter, *arguments = line.split()
    assert interpreter == ".venv/bin/python"
    environment = {**os.environ, "XDG_CACHE_HOME": str(bytecode_folder().parents[1])}
    for _ in range(ATTEMPTS):
        shown = subprocess.run(
            [sys.executable, *arguments, *pace],
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TOLD_WITHIN_S,
        )
        if shown.returncode == 0:
            break
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def check(mode: str, told: str) -> None:
    """Hold what the demo showed against what is promised."""
    assert f"node-a forwards with {mode}" in told
    assert _REQUESTS.search(told), told
    states = dict(_STATES.findall(told))
    assert states == dict.fromkeys(OLD, "gone") | {pod.name: "ready" for pod in NEW}
