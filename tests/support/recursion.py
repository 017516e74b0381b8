"""How deep Python may recurse; kproxy raises that where it reads what others nested."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def recursion_limit(levels: int) -> Iterator[None]:
    """Set the limit, and put back at the end what was there before."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(levels)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
