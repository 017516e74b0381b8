"""`make demo` shows in each mode what README.md promises, and no request goes wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.demo import ATTEMPTS, TOLD_WITHIN_S, check, played

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(ATTEMPTS * TOLD_WITHIN_S)]

MODES = ("iptables", "ebpf")


def test_the_demo_tells_the_same_story_in_each_mode():
    with ThreadPoolExecutor() as both:
        for mode, told in zip(MODES, both.map(played, MODES), strict=True):
            check(mode, told)
