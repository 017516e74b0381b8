"""Notices that a configuration file says something else than at the start.

The content is read again every few seconds, which works the same for a file that is written in
place, one that is renamed over it, and a mounted ConfigMap whose folder is swapped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from kproxy.config.fields import Configuration
from kproxy.config.loading import ConfigurationError, checked, effective_differences, read_content

log = logging.getLogger(__name__)

_PAUSE_S = 5.0
_TAKE_OVER = "kproxy.takeOver"  # its default depends on who reads the file, so saying it counts


async def changed_configuration(
    path: Path,
    content: bytes,
    *,
    usable: Callable[[Configuration], str],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[str, ...]:
    """Return the fields that differ, once the file is valid and something in it has changed.

    `content` is what the file held when it was loaded. `usable` says why a start with another mode
    would fail, "" if it would not. A file that is gone, not valid or not usable is said once, and
    what is in force stays so; comments and fields without effect change nothing.
    """
    watched = _Watched(path, content, usable)
    while not (differences := watched.look()):
        await sleep(_PAUSE_S)
    return differences


class _Watched:
    def __init__(self, path: Path, content: bytes, usable: Callable[[Configuration], str]) -> None:
        self._path = path
        self._usable = usable
        self._seen: bytes | None = content
        self._in_force = _meaning(path, content)

    def look(self) -> tuple[str, ...]:
        """Return the fields that differ from those in force; say what is wrong with the file."""
        try:
            content = self._path.read_bytes()
        except OSError as error:
            if self._seen is not None:
                log.warning(
                    "%s: cannot be read: %s; what was read before stays in force",
                    self._path,
                    error.strerror,
                )
            self._seen = None
            return ()
        if content == self._seen:
            return ()
        self._seen = content
        try:
            configuration, take_over = _meaning(self._path, content)
        except ConfigurationError as error:
            for line in error.lines:
                log.error("%s", line)
            log.error("%s: is not valid; what was read before stays in force", self._path)
            return ()
        old, old_take_over = self._in_force
        differences = effective_differences(configuration, old)
        if take_over is not old_take_over:
            differences.add(_TAKE_OVER)
        if "mode" in differences and (why := self._usable(configuration)):
            log.error("%s: %s; what was read before stays in force", self._path, why)
            return ()
        return tuple(sorted(differences))


def _meaning(path: Path, content: bytes) -> tuple[Configuration, bool]:
    """Return a configuration, and whether it says anything of taking over."""
    reading = read_content(content)
    return checked(reading, str(path)).configuration, _TAKE_OVER in reading.given
