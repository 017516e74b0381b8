"""Imports of the `kubernetes` package without all that it imports itself.

It offers everything at once: 290 modules, which take 0.2 s of CPU before the first list, and 15 MB.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Iterator

_PACKAGES = ("kubernetes", "kubernetes.config")
_importing = threading.Lock()  # two threads that import the package at once find it half made


@contextlib.contextmanager
def lean_import() -> Iterator[None]:
    """Within this, modules of the package come with what they import, and with nothing else."""
    with _importing:
        for name in _PACKAGES:
            spec = None if name in sys.modules else importlib.util.find_spec(name)
            if spec is not None:  # its submodules are found, though its own code never runs
                sys.modules[name] = importlib.util.module_from_spec(spec)
        yield
