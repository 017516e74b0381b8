"""Remembering what the kernel's own text of our objects looked like."""

from __future__ import annotations

from collections.abc import Iterable

from backends.kernel.xtables.reading import Reader
from backends.kernel.xtables.saved import ALTERED, Seen
from kproxy.core.image import Key


class Texts:
    """Finds objects that somebody rewrote without touching the fingerprint or the count.

    The tools reformat what we write, so the text is learned at the first reading after each
    write of ours. Eight bytes of hash an object.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[Key, int]] = {}
        self._readers: dict[str, Reader] = {}

    def forget(self, keys: Iterable[Key]) -> None:
        """Learn these objects anew: we are about to write them."""
        for key in keys:
            for known in self._known.values():
                known.pop(key, None)

    def compare(self, table: str, how: Reader, seen: Seen) -> None:
        """Mark in `seen` what was rewritten since it was learned, and learn the rest."""
        comparable = self._readers.get(table) is how
        known = self._known.get(table, {}) if comparable else {}
        for key, text in seen.texts.items():
            if known.get(key, text) != text:
                seen.image[key] = ALTERED
        self._readers[table] = how
        self._known[table] = {
            key: known.get(key, text)
            for key, text in seen.texts.items()
            if key in known or seen.image[key] != ALTERED
        }
