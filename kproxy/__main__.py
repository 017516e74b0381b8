"""Where the process starts."""

from __future__ import annotations

from kproxy.cli.group import main

if __name__ == "__main__":
    main()
