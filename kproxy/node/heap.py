"""What a process that holds half a million objects for good asks of the memory management.

Measured at 10,000 Services with ten endpoints each: while they are loaded, the cyclic garbage
collector walks all of them six times for nothing, 0.5 s of the first sync's 2.5 s; later a walk
stops the event loop for 0.25 s at a time.

It is not turned off meanwhile: a proxy may wait for its first list for hours, and its servers
answer all that time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_ORDINARY = gc.get_threshold()
_NEW_ONES_ONLY = (50_000, 100, 100)  # a list of that size never comes to a look at older ones


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Let the garbage collector look at new objects only, until `loaded` or the block's end."""
    gc.set_threshold(*_NEW_ONES_ONLY)
    try:
        yield
    finally:
        gc.set_threshold(*_ORDINARY)


def loaded() -> None:
    """Put everything there is out of the garbage collector's sight, and let it watch the rest.

    What is put there goes as ever when nothing refers to it any more. What the first sync needed
    besides goes back to the kernel, where the C library can be told to do so (glibc).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_ORDINARY)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
