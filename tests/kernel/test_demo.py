"""`make demo` shows in each mode what README.md promises, and no request goes wrong."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from examples.demo.rollout import NEW, OLD
from tests.support.commands import output_of
from tests.support.ebpf.fixtures import bytecode_folder
from tests.support.waiting import LONGEST_S

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
MODES = ("iptables", "ebpf")
MAKE_S = 10


def demo(mode: str) -> str:
    """Run what `make demo` runs, with the programs kept as other tests do."""
    recipe = output_of("make", "--dry-run", "demo", f"MODE={mode}", cwd=ROOT, timeout_s=MAKE_S)
    (line,) = (each for each in recipe.splitlines() if "examples.demo" in each)
    interpreter, *arguments = line.split()
    assert interpreter == ".venv/bin/python"
    environment = {**os.environ, "XDG_CACHE_HOME": str(bytecode_folder().parents[1])}
    return output_of(
        sys.executable, *arguments, cwd=ROOT, environment=environment, timeout_s=LONGEST_S + 30
    )


def test_the_demo_tells_the_same_story_in_each_mode():
    with ThreadPoolExecutor() as both:
        for mode, told in zip(MODES, both.map(demo, MODES), strict=True):
            assert f"node-a forwards with {mode}" in told
            assert re.search(r"^[1-9]\d+ requests, 0 failed;", told, re.MULTILINE), told
            states = dict(re.findall(r"^(web-v\d-\d) +node-[ab] (\w+)", told, re.MULTILINE))
            assert states == dict.fromkeys(OLD, "gone") | {pod.name: "ready" for pod in NEW}
