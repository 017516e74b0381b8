"""Kinds and versions that are none of ours and yet were most likely meant to be. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kproxy.core.objects import Kind
from kproxy.core.parse import VERSION_OF

_NOT_LETTERS = re.compile(r"[\W_]")
_SHORT_NAMES = {"svc": Kind.SERVICE, "no": Kind.NODE}
_LONG_WORD = 10  # letters from which on two of them may be wrong
_MOST_LETTERS = 40  # a kind of ours is much shorter

# The API's own groups: a word, alone or below k8s.io. Others have Services of their own, as
# `serving.knative.dev`.
_BUILT_IN = re.compile(r"(?:[a-z]{0,20}/?)?(?:[a-z]{0,20}\.k8s\.io)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NearMiss:
    """What was meant; `field` is the one of apiVersion and kind to look at."""

    meant: Kind
    field: str
    why: str


def near_miss(version: str, kind: str) -> NearMiss | None:
    """Return what a document of another kind or version was most likely meant to be."""
    meant = _meant(kind)
    if meant is None or not _is_built_in(version, VERSION_OF[meant]):
        return None
    right = VERSION_OF[meant]
    if kind != meant.value:
        also = "" if version == right else f" in apiVersion {right}"
        return NearMiss(meant, "kind", f"is passed over; write {meant.value}{also}")
    why = f"is passed over; write {right}"
    if (version, meant) == ("discovery.k8s.io/v1beta1", Kind.ENDPOINT_SLICE):
        why += ", and nodeName and zone in place of topology"
    return NearMiss(meant, "apiVersion", why)


def is_misspelt_list(kind: str) -> bool:
    """Say whether a kind is a List but for the capitals."""
    return kind.casefold().endswith("list") and not kind.endswith("List")


def meant_word(word: str, known: frozenset[str]) -> str | None:
    """Return the one of `known` that a word was most likely meant to be."""
    plain = _plain(word)
    if not plain or len(plain) > _MOST_LETTERS:
        return None
    same = [each for each in sorted(known) if _plain(each) in (plain, f"{plain}s")]
    if same:
        return same[0]
    allowed = 2 if len(plain) >= _LONG_WORD else 1
    if len(plain) < 4:
        return None
    near = [(_distance(plain, _plain(each)), each) for each in sorted(known)]
    best, which = min(near, default=(allowed + 1, ""))
    return which if best <= allowed else None


def _meant(kind: str) -> Kind | None:
    plain = _plain(kind)
    if plain in _SHORT_NAMES:
        return _SHORT_NAMES[plain]
    singular = kind[:-1] if plain.endswith("s") else kind
    known = frozenset(each.value for each in Kind)
    word = meant_word(kind, known) or meant_word(singular, known)
    return None if word is None else Kind(word)


def _is_built_in(version: str, right: str) -> bool:
    group = version.rpartition("/")[0]
    if _BUILT_IN.fullmatch(group):
        return True
    wanted = right.rpartition("/")[0]
    return len(group) <= _MOST_LETTERS and _distance(group.casefold(), wanted) <= 2


def _plain(word: str) -> str:
    return _NOT_LETTERS.sub("", word).casefold()


def _distance(left: str, right: str) -> int:
    """Return how many letters were left out, put in, exchanged or swapped with the next one."""
    if abs(len(left) - len(right)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        before_that, before, row = before, row, [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, before_that[j - 2] + 1)
            row.append(cost)
    return row[-1]
