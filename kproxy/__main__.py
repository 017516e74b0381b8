"""Where the process starts, under either of its names."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_BY_SIGNAL = 128  # what shells add to a signal's number


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(_BY_SIGNAL + number)


def main() -> None:
    """Run the command that the program's own name stands for."""
    # The first process of a container ignores what it has no handler for.
    signal.signal(signal.SIGTERM, _end)
    if Path(sys.argv[0]).name == "kube-proxy":
        from kproxy.cli import kube_proxy

        sys.exit(kube_proxy.main(sys.argv[1:]))
    from kproxy.cli import group

    group.main()


if __name__ == "__main__":
    main()
