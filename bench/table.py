"""Write the table of goals in README.md again, from the last full run."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import goals
from bench.model import read

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- numbers: `make numbers` writes what follows -->", "<!-- end of numbers -->"

FULL = Path(__file__).parent / "results" / "full.jsonl"  # of `python -m bench run --preset full`


def main() -> None:
    """Replace what stands between the markers."""
    text = README.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{README}: the markers of the numbers are missing")
    numbers = "\n".join(goals.lines(read(FULL)))
    README.write_text(f"{head}{begin}\n\n{numbers}\n{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
