"""The memory management while a cluster is loaded, and after."""

from __future__ import annotations

import ctypes
import gc
import weakref

import pytest

from kproxy.node import heap

MANY = 200_000
MB = 1 << 20


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc, 2.33 or later."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


class Cycle:
    """An object that only the garbage collector removes."""

    def __init__(self):
        self.own = self


@pytest.fixture(autouse=True)
def thawed():
    """Leave the collector as it was."""
    yield
    gc.unfreeze()


def test_what_is_thrown_away_goes_even_while_nothing_is_loaded_yet():
    with heap.loading():
        thrown_away = [weakref.ref(Cycle()) for _ in range(MANY)]
        assert sum(each() is not None for each in thrown_away) < MANY / 2


def test_what_is_loaded_is_not_looked_at_again():
    walks = []

    def count(phase, info):
        if phase == "start" and info["generation"] == 2:
            walks.append(info)

    gc.callbacks.append(count)
    try:
        with heap.loading():
            kept = [[number] for number in range(10 * MANY)]
            assert walks == []
            heap.loaded()
            assert len(walks) == 1
        assert gc.get_freeze_count() > len(kept)
    finally:
        gc.callbacks.remove(count)


def test_later_everything_is_as_ever():
    ordinary = gc.get_threshold()
    with heap.loading():
        heap.loaded()
        assert gc.get_threshold() == ordinary
    with heap.loading():
        pass
    assert gc.get_threshold() == ordinary
    assert gc.isenabled()


def test_a_large_piece_of_memory_stays_apart_from_small_ones_after_others_went():
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    with heap.loading():
        bytearray(20 * MB)
        before = mallinfo().hblkhd
        large = bytearray(10 * MB)
        assert mallinfo().hblkhd - before >= len(large)
