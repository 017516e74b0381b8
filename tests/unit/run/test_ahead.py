"""A source is read while who needs it is being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kproxy.run.loop.ahead import read_ahead


class Source:
    """Says numbers, and what it comes to then."""

    def __init__(self, count: int, end: Exception | None = None) -> None:
        self._count = count
        self._end = end
        self.said = 0
        self.all_said = asyncio.Event()
        self.closed = False

    async def batches(self) -> AsyncIterator[int]:
        try:
            while self.said < self._count:
                self.said += 1
                yield self.said
            self.all_said.set()
            if self._end is not None:
                raise self._end
        finally:
            self.closed = True


def test_what_was_said_meanwhile_was_read_and_comes_first():
    async def body() -> None:
        source = Source(3)

        async def make() -> str:
            await source.all_said.wait()
            return "made"

        made, batches = await read_ahead(source.batches(), make())
        assert (made, source.said) == ("made", 3)
        assert [each async for each in batches] == [1, 2, 3]

    asyncio.run(asyncio.wait_for(body(), 10))


def test_a_source_goes_on_afterwards_as_fast_as_it_is_asked():
    async def body() -> None:
        source = Source(5)

        async def make() -> None:
            return None

        _, batches = await read_ahead(source.batches(), make())
        assert [await anext(batches), await anext(batches), await anext(batches)] == [1, 2, 3]
        assert source.said == 3

    asyncio.run(asyncio.wait_for(body(), 10))


def test_what_reading_raises_comes_after_what_was_said():
    async def body() -> None:
        source = Source(1, LookupError("lost"))

        async def make() -> None:
            await source.all_said.wait()

        _, batches = await read_ahead(source.batches(), make())
        assert await anext(batches) == 1
        with pytest.raises(LookupError):
            await anext(batches)

    asyncio.run(asyncio.wait_for(body(), 10))


def test_what_cannot_be_made_is_told_at_once_and_reading_ends():
    async def body() -> None:
        source = Source(2)

        async def never() -> AsyncIterator[int]:
            async for each in source.batches():
                yield each
            await asyncio.Event().wait()

        async def make() -> None:
            await source.all_said.wait()
            raise OSError("refused")

        with pytest.raises(OSError, match="refused"):
            await read_ahead(never(), make())

    asyncio.run(asyncio.wait_for(body(), 10))
