"""What `make programs` keeps for the tests, and how a command that fetches it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path


class Unavailable(Exception):
    """It is not there, or cannot be had."""


def kept(*names: str) -> Path:
    """Return where something is kept, below the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "kproxy", *names)


def exit_code(fetch: Callable[[], None]) -> int:
    """Fetch what is missing and return the exit code; what cannot be had is said."""
    try:
        fetch()
    except Unavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
