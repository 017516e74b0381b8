"""What a process that holds half a million objects for good asks of the memory management.

Measured at 10,000 Services with ten endpoints each: while they are loaded, the cyclic garbage
collector walks all of them six times for nothing, 0.5 s of the first sync's 2.5 s; later a walk
stops the event loop for 0.25 s at a time. Large pieces among small ones that stay, as glibc puts
them once it has seen some go, leave holes behind: 34 MB of 150 in the ebpf mode.

The collector is not turned off meanwhile: a proxy may wait for its first list for hours, and its
servers answer all that time.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

_ORDINARY = gc.get_threshold()
_NEW_ONES_ONLY = (50_000, 100, 100)  # a list of that size never comes to a look at older ones
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE_BYTES = 128 << 10  # glibc's own beginning, which it gives up unless told to keep it


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Let the garbage collector look at new objects only, until `loaded` or the block's end.

    From here on, large pieces of memory go back to the kernel as soon as they are free (glibc).
    """
    for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        _tell_malloc("mallopt", threshold, _LARGE_BYTES)
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
    _tell_malloc("malloc_trim", 0)


def _tell_malloc(function: str, *numbers: int) -> None:
    """Call a function of the C library, where there is one."""
    call = getattr(ctypes.CDLL(None), function, None)
    if call is not None:
        call(*numbers)
