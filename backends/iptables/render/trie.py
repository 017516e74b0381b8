"""A canonical, persistent radix tree: the shape of dispatch chains.

iptables has no hash lookup, so thousands of destinations become a tree of chains, sixteen ways at
each level. The tree is a pure function of its entries: whatever order they came in, the same
entries give the same chains. An edit copies one path, so comparing two trees by identity finds
what changed without looking at the rest.

Keys are integers of a fixed number of nibbles (4 bits each).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Leaf(Generic[V]):
    """Entries in key order. `levels` below it: none."""

    entries: tuple[tuple[int, V], ...]

    @property
    def count(self) -> int:
        """How many entries are in here."""
        return len(self.entries)


@dataclass(frozen=True, slots=True)
class Branch(Generic[V]):
    """Entries that agree in their first `depth` nibbles and are told apart by the next one.

    `children` has 16 places. `levels` is how many nodes the longest way down passes.
    """

    depth: int
    children: tuple[Node[V] | None, ...]
    count: int
    levels: int


Node = Leaf[V] | Branch[V]

Slot = tuple[int, int]  # the nibbles that lead to a chain, as a number, and how many they are


@dataclass(frozen=True, slots=True)
class Shape:
    """How a tree is built: nibbles in a key, entries that a leaf may hold, levels at most.

    At the last level a leaf holds whatever is left, so that no set of keys, however contrived,
    makes a path longer than the kernel allows.
    """

    nibbles: int
    leaf_entries: int
    max_levels: int


def build(shape: Shape, entries: Iterable[tuple[int, V]]) -> Node[V]:
    """Return the tree of `entries`, whose keys are distinct."""
    return _build(shape, tuple(sorted(entries, key=lambda entry: entry[0])), 0)


def update(shape: Shape, root: Node[V], edits: Mapping[int, V | None]) -> Node[V]:
    """Return the tree after some entries were set, or removed where the value is None.

    Edits that change nothing return the very same tree.
    """
    if len(edits) * 4 > root.count:
        before = dict(entries(root))
        merged = {**before, **edits}
        after = {key: value for key, value in merged.items() if value is not None}
        return root if after == before else build(shape, after.items())
    for key, value in edits.items():
        if value is None:
            root = _remove(shape, root, key, 0)
        else:
            root = _insert(shape, root, key, value, 0)
    return root


def entries(node: Node[V]) -> Iterator[tuple[int, V]]:
    """Return all entries in key order."""
    if isinstance(node, Leaf):
        yield from node.entries
    else:
        for child in node.children:
            if child is not None:
                yield from entries(child)


def get(shape: Shape, node: Node[V], key: int) -> V | None:
    """Return the value of `key`, None if there is none."""
    while isinstance(node, Branch):
        child = node.children[_nibble(shape, key, node.depth)]
        if child is None:
            return None
        node = child
    return next((value for found, value in node.entries if found == key), None)


def changed_slots(
    shape: Shape, old: Node[V], new: Node[V]
) -> tuple[dict[Slot, Node[V]], set[Slot]]:
    """Return the chains that may differ between two trees and those that are gone.

    Only slots that deserve a chain of their own appear; the root's own rules are the caller's.
    """
    present = dict(_not_in(shape, new, old))
    gone = {slot for slot, _ in _not_in(shape, old, new) if _at_slot(shape, new, slot) is None}
    return present, gone


def chains_below(shape: Shape, node: Node[V]) -> Iterator[tuple[Slot, Node[V]]]:
    """Return, for each child of `node` in key order, its slot and the child."""
    if isinstance(node, Branch):
        for child in node.children:
            if child is not None:
                nibbles = node.depth + 1
                yield (_first_key(child) >> 4 * (shape.nibbles - nibbles), nibbles), child


def entrance(shape: Shape, slot: Slot, child: Node[V]) -> Slot:
    """Return the longest prefix that leads into `child` and is cheap to keep true.

    All entries of a branch share more than the slot's nibbles: matching them keeps traffic that is
    none of ours out of the chain.
    """
    if isinstance(child, Leaf):
        return slot
    return _first_key(child) >> 4 * (shape.nibbles - child.depth), child.depth


def is_inline(node: Node[V]) -> bool:
    """Say whether a child is better written into its parent's chain than into one of its own."""
    return isinstance(node, Leaf) and node.count == 1


def _not_in(shape: Shape, node: Node[V], other: Node[V]) -> Iterator[tuple[Slot, Node[V]]]:
    """Return the chains below `node` that the tree `other` does not have, or not like this.

    Subtrees are looked up by slot, not by their place: a chain keeps its name and its rules when
    a new branch comes to lie above it.
    """
    for slot, child in chains_below(shape, node):
        if not is_inline(child) and _at_slot(shape, other, slot) is not child:
            yield slot, child
            yield from _not_in(shape, child, other)


def _at_slot(shape: Shape, root: Node[V], slot: Slot) -> Node[V] | None:
    """Return the node that has a chain of its own for `slot`, None if there is none."""
    prefix, nibbles = slot
    key = prefix << 4 * (shape.nibbles - nibbles)
    node: Node[V] | None = root
    while isinstance(node, Branch) and node.depth < nibbles:
        is_slot = node.depth == nibbles - 1
        node = node.children[_nibble(shape, key, node.depth)]
        if is_slot:
            fits = node is not None and _common(shape, key, _first_key(node)) >= nibbles
            return node if fits and node is not None and not is_inline(node) else None
    return None


def _first_key(node: Node[V]) -> int:
    while isinstance(node, Branch):
        node = next(child for child in node.children if child is not None)
    return node.entries[0][0]


def _nibble(shape: Shape, key: int, depth: int) -> int:
    return key >> 4 * (shape.nibbles - depth - 1) & 15


def _common(shape: Shape, first: int, second: int) -> int:
    """Return how many leading nibbles two keys share."""
    return shape.nibbles - ((first ^ second).bit_length() + 3) // 4


def _levels(node: Node[V]) -> int:
    return node.levels if isinstance(node, Branch) else 0


def _build(shape: Shape, entries: tuple[tuple[int, V], ...], level: int) -> Node[V]:
    if len(entries) <= shape.leaf_entries or level >= shape.max_levels:
        return Leaf(entries)
    depth = _common(shape, entries[0][0], entries[-1][0])
    groups: list[list[tuple[int, V]]] = [[] for _ in range(16)]
    for entry in entries:
        groups[_nibble(shape, entry[0], depth)].append(entry)
    return _branch(
        depth, [_build(shape, tuple(group), level + 1) if group else None for group in groups]
    )


def _branch(depth: int, children: list[Node[V] | None]) -> Branch[V]:
    present = [child for child in children if child is not None]
    return Branch(
        depth,
        tuple(children),
        sum(child.count for child in present),
        1 + max(map(_levels, present)),
    )


def _at_level(shape: Shape, node: Node[V], level: int) -> Node[V]:
    """Return what `node`'s entries look like `level` levels down.

    Only a tree that meets the limit on levels looks different at another level.
    """
    longest = level + _levels(node)
    if longest < shape.max_levels and not _oversized(shape, node):
        return node
    return _build(shape, tuple(entries(node)), level)


def _oversized(shape: Shape, node: Node[V]) -> bool:
    if isinstance(node, Leaf):
        return node.count > shape.leaf_entries
    return any(_oversized(shape, child) for child in node.children if child is not None)


def _insert(shape: Shape, node: Node[V], key: int, value: V, level: int) -> Node[V]:
    if isinstance(node, Leaf):
        if (key, value) in node.entries:
            return node
        kept = tuple(entry for entry in node.entries if entry[0] != key)
        return _build(shape, tuple(sorted((*kept, (key, value)), key=lambda e: e[0])), level)
    shared = _common(shape, key, _first_key(node))
    children: list[Node[V] | None]
    if shared < node.depth:
        children = [None] * 16
        children[_nibble(shape, _first_key(node), shared)] = _at_level(shape, node, level + 1)
        children[_nibble(shape, key, shared)] = Leaf(((key, value),))
        return _branch(shared, children)
    children = list(node.children)
    place = _nibble(shape, key, node.depth)
    child = children[place]
    if child is None:
        children[place] = Leaf(((key, value),))
    else:
        children[place] = _insert(shape, child, key, value, level + 1)
        if children[place] is child:
            return node
    return _branch(node.depth, children)


def _remove(shape: Shape, node: Node[V], key: int, level: int) -> Node[V]:
    if isinstance(node, Leaf):
        kept = tuple(entry for entry in node.entries if entry[0] != key)
        return node if len(kept) == node.count else Leaf(kept)
    place = _nibble(shape, key, node.depth)
    child = node.children[place]
    if child is None or _common(shape, key, _first_key(node)) < node.depth:
        return node
    children = list(node.children)
    smaller = _remove(shape, child, key, level + 1)
    if smaller is child:
        return node
    children[place] = smaller if smaller.count else None
    present = [c for c in children if c is not None]
    if sum(c.count for c in present) <= shape.leaf_entries:
        return Leaf(tuple(entry for c in present for entry in entries(c)))
    if len(present) == 1:
        return _at_level(shape, present[0], level)
    return _branch(node.depth, children)
