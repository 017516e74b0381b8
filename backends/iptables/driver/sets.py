"""The ipsets that rules name: made before them, removed when no rule names them any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from backends.iptables.render.rules import SET_PREFIX, AffinitySet
from backends.kernel import ipset
from backends.kernel.xtables.wording import set_key, split_key
from kproxy.core.addresses import Family
from kproxy.core.image import Key

_AT_ONCE = 256
_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 1.0


class AffinitySets:
    """The sets of one family. The rules of both variants share them.

    So affinity outlasts a change of the variant, and a set that the other one's rules name cannot
    be removed; one that nf_tables has just let go of can be in a moment only. Neither is a reason
    to refuse a commit: the image has what is wanted alone, and the rest goes in `tend`.
    """

    def __init__(self, family: Family, wanted_as: Callable[[Key], AffinitySet]) -> None:
        self._family = family
        self._wanted_as = wanted_as
        self._wanted: set[str] = set()
        self._unwanted: set[str] = set()  # exist, as far as we know
        self._untried: list[str] = []
        self._pause_s = _FIRST_PAUSE_S
        self._next_at = 0.0

    def rendered(self, patch: Mapping[Key, bytes | None]) -> None:
        """Take in what becomes of the image."""
        for key, value in patch.items():
            for name in _name(key):
                if value is None:
                    self._wanted.discard(name)
                else:
                    self._wanted.add(name)

    def observe(self) -> dict[Key, bytes]:
        """Return the image of the wanted sets that exist. Raises BackendError."""
        found = ipset.observe(SET_PREFIX[self._family], self._family)
        self._unwanted = found.keys() - self._wanted
        self._try_again()
        return {set_key(name): shape for name, shape in found.items() if name in self._wanted}

    def ensure(self, keys: Iterable[Key]) -> dict[str, str]:
        """Make those of the objects that are sets exist, as wanted.

        Returns the names of those that the kernel refuses, with its reasons. Raises BackendError.
        """
        made = [key for key in keys if _name(key)]
        names = {name for key in made for name in _name(key)}
        self._wanted |= names
        self._unwanted -= names
        return ipset.ensure(map(self._wanted_as, made))

    def provide(self, sets: Collection[AffinitySet]) -> bool:
        """Make sets that no rule names yet; if not all can be had, none stays. Says which it is."""
        refused = ipset.ensure(sets)
        if refused:
            self._unwanted |= {each.name for each in sets} - refused.keys()
            self._try_again()
        return not refused

    def dropped(self, keys: Iterable[Key]) -> None:
        """Note that our rules name those of the objects that are sets no more."""
        names = {name for key in keys for name in _name(key)}
        if names:
            self._wanted -= names
            self._unwanted |= names
            self._try_again()

    def tend(self, budget_s: float) -> bool:
        """Remove what nothing names; return whether there may be more to remove soon.

        What is still named is tried again after growing pauses, and then after the next commit or
        look. Raises BackendError.
        """
        now = time.monotonic()
        ends_at = now + budget_s
        if self._next_at > now:
            time.sleep(min(self._next_at - now, budget_s))
            return True
        while self._untried:
            some = [name for name in self._untried[-_AT_ONCE:] if name in self._unwanted]
            del self._untried[-_AT_ONCE:]
            _, named = ipset.remove_unnamed(some)
            self._unwanted.difference_update(set(some) - set(named))
            if self._untried and time.monotonic() >= ends_at:
                return True
        if not self._unwanted or self._pause_s > _LONGEST_PAUSE_S:
            return False
        self._next_at = time.monotonic() + self._pause_s
        self._pause_s *= 2
        self._untried = sorted(self._unwanted)
        return True

    def _try_again(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._next_at = 0.0
        self._untried = sorted(self._unwanted)


def _name(key: Key) -> tuple[str, ...]:
    """Return the name of a set, nothing for an object of another kind."""
    kind, *rest = split_key(key)
    return tuple(rest) if kind == "set" else ()
