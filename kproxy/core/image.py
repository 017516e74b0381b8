"""What the kernel holds for us, as plain data, and how two such states differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Key = str | bytes  # the name of a kernel object; bytes: the key of a map's entry
Image = Mapping[Key, bytes]  # the value itself, or a digest where the kernel reformats text


@dataclass(frozen=True, slots=True)
class Changes:
    """What to write (`put`) and what to remove (`drop`) to make an image true."""

    put: Mapping[Key, bytes]
    drop: frozenset[Key]

    def __bool__(self) -> bool:
        return bool(self.put or self.drop)

    def __len__(self) -> int:
        return len(self.put) + len(self.drop)


def diff(have: Image, want: Image, among: Iterable[Key] | None = None) -> Changes:
    """Return the smallest change that turns `have` into `want`.

    `among` limits the comparison to the keys that may differ, so that a small change costs little.
    """
    if among is None:
        put = {key: value for key, value in want.items() if have.get(key) != value}
        return Changes(put, frozenset(have.keys() - want.keys()))
    keys = set(among)
    put = {key: want[key] for key in keys if key in want and have.get(key) != want[key]}
    return Changes(put, frozenset(key for key in keys if key in have and key not in want))
