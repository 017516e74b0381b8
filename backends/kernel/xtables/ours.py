"""Which chains of a table belong to a data path, and where the jumps to them go. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ANY_OF_OURS = "KPROXY-"
"""How the names of chains begin, whichever data path they are of."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What of the tables is one data path's.

    - `prefix` begins the names of its chains; those that begin with one of `spared` as well are
      another data path's.
    - `tables` are those that it writes to, in the order of writing; removal goes the other way, if
      `removal` gives no other one.
    - `kube_proxys` says whether a chain is kube-proxy's.
    - `in_the_place_of` gives for a chain of ours those of others before the first of whose jumps
      a new jump to it goes; where it gives none, those are all of kube-proxy's.
    """

    prefix: str
    tables: tuple[str, ...]
    in_the_place_of: Mapping[str, tuple[str, ...]]
    kube_proxys: Callable[[str], bool]
    spared: tuple[str, ...] = ()
    removal: tuple[str, ...] = ()

    def has(self, chain: str) -> bool:
        """Say whether a chain has a name of this data path."""
        return chain.startswith(self.prefix) and not chain.startswith(self.spared)

    @property
    def pattern(self) -> bytes:
        """The regular expression for how such a name begins, and no other does."""
        begin = re.escape(self.prefix)
        others = "|".join(re.escape(each.removeprefix(self.prefix)) for each in self.spared)
        return (f"{begin}(?!{others})" if others else begin).encode()
