"""The names of ways out are those of the C, in its order."""

from __future__ import annotations

import re

from backends.ebpf.compiler import SOURCES
from backends.ebpf.driver.reasons import REASONS

PAGE = SOURCES.parent / "deploy/metrics.md"


def test_the_page_tells_what_each_means():
    told = set(
        re.findall(r"`([a-z_]+)`", PAGE.read_text().split("## Outcomes")[1].split("\n## ")[0])
    )
    assert set(REASONS) <= told


def test_names_are_those_of_the_programs():
    text = (SOURCES / "include/kproxy/reason.h").read_text()
    found = re.search(r"enum reason \{(.*?)\n\};", text, re.DOTALL)
    names = re.findall(r"^\t([A-Z_]+),", found[1], re.MULTILINE)
    assert [each.lower() for each in names] == list(REASONS)
