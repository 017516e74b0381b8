"""What this process has open: whoever closes something late must not disturb a count."""

import contextlib
import os

Files = dict[str, str]  # what is behind each descriptor; sockets and pipes by their number


def open_files() -> Files:
    """Return what this process has open, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing itself
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return found


def opened_since(before: Files) -> Files:
    """Return what is open and was not then.

    Counts would not do: what earlier tests left to the garbage collector is closed at any time.
    """
    return dict(open_files().items() - before.items())
