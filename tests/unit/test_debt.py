"""What we owe: counted here, written down in debt.json, and never allowed to grow in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
WRITTEN_DOWN = Path(__file__).with_name("debt.json")
FOLDERS = ("kproxy", "backends", "ebpf", "tests", "bench", "examples")
LONGEST_FILE_LINES = 400

# Spelled in parts: this file must not count itself.
MARKS = {
    "type ignores": re.compile("# type" + ": ignore"),
    "lint exceptions": re.compile("# no" + "qa"),
    "skips": re.compile(r"pytest\.(?:mark\.)?(?:sk" + "ip|xf" + r"ail|importor" + r"skip)"),
}


def sources() -> Iterator[Path]:
    for folder in FOLDERS:
        for suffix in ("py", "c", "h"):
            yield from (ROOT / folder).rglob(f"*.{suffix}")


def owed() -> dict[str, int]:
    texts = [path.read_text(encoding="utf-8") for path in sources()]
    counts = {name: sum(len(mark.findall(text)) for text in texts) for name, mark in MARKS.items()}
    counts["long files"] = sum(text.count("\n") > LONGEST_FILE_LINES for text in texts)
    return counts


def test_the_debt_is_what_was_written_down():
    """A higher number is a debt to avoid; a lower one is to be written down, so that it stays."""
    assert owed() == json.loads(WRITTEN_DOWN.read_text())
