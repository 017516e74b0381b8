"""Reading of a source while whoever needs what it says is still being made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

_Made = TypeVar("_Made")
_Batch = TypeVar("_Batch")


async def read_ahead(
    batches: AsyncIterator[_Batch], making: Coroutine[Any, Any, _Made]
) -> tuple[_Made, AsyncIterator[_Batch]]:
    """Return what was made, and every batch: those that came meanwhile have been read by then.

    Raises what `making` raises. What reading raises comes in its turn.
    """
    maker = asyncio.ensure_future(making)
    following = _next(batches)
    read: list[_Batch] = []
    try:
        while not maker.done():
            waiting: set[asyncio.Future[Any]] = {maker}
            if not following.done():  # else it ended, and there is nothing more to read
                waiting.add(following)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if following.done() and following.exception() is None:
                read.append(following.result())
                following = _next(batches)
        return maker.result(), _all(read, following, batches)
    except BaseException:
        maker.cancel()
        following.cancel()
        raise


def _next(batches: AsyncIterator[_Batch]) -> asyncio.Future[_Batch]:
    return asyncio.ensure_future(_one(batches))


async def _one(batches: AsyncIterator[_Batch]) -> _Batch:
    return await anext(batches)


async def _all(
    read: list[_Batch], following: asyncio.Future[_Batch], batches: AsyncIterator[_Batch]
) -> AsyncIterator[_Batch]:
    read.reverse()
    while read:  # what was taken in is not kept here
        yield read.pop()
    try:
        yield await following
    except StopAsyncIteration:
        return
    async for batch in batches:
        yield batch
