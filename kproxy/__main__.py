"""Where the process starts, under either of its names."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Run the command that the program's own name stands for."""
    if Path(sys.argv[0]).name == "kube-proxy":
        from kproxy.cli import kube_proxy

        sys.exit(kube_proxy.main(sys.argv[1:]))
    from kproxy.cli import group

    group.main()


if __name__ == "__main__":
    main()
