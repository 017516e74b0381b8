"""The tree of dispatch chains: canonical, persistent, and never deeper than the kernel allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.iptables.render.trie import (
    Branch,
    Leaf,
    Shape,
    build,
    chains_below,
    changed_slots,
    entrance,
    entries,
    is_inline,
    update,
)
from tests.support.effort import examples

# Small, so that a handful of keys meets the limit on levels.
SHAPE = Shape(nibbles=5, leaf_entries=2, max_levels=2)
# As deep as its keys: the limit on levels is never met.
WIDE = Shape(nibbles=8, leaf_entries=8, max_levels=8)

# Few keys, which share long prefixes and part at every nibble.
KEYS = st.tuples(*map(st.sampled_from, [(0, 1, 15), (0, 1, 15), (0, 1), (0, 1), (0, 1)])).map(
    lambda nibbles: sum(nibble << 4 * i for i, nibble in enumerate(reversed(nibbles)))
)
EDITS = st.dictionaries(KEYS, st.none() | st.sampled_from("abc"), min_size=1, max_size=3)


def own_chains(shape, node):
    """Every chain below `node`, by slot."""
    found = {}
    for slot, child in chains_below(shape, node):
        if not is_inline(child):
            assert slot not in found
            found[slot] = child
            found |= own_chains(shape, child)
    return found


def after(shape, content, edits):
    """What a dictionary would hold after the same edits."""
    merged = {**content, **edits}
    return {key: value for key, value in merged.items() if value is not None}


@examples(300)
@given(st.dictionaries(KEYS, st.sampled_from("abc"), max_size=40), st.lists(EDITS, max_size=6))
def test_edits_lead_to_the_tree_that_building_it_gives(content, edits):
    root = build(SHAPE, content.items())
    for edit in edits:
        root = update(SHAPE, root, edit)
        content = after(SHAPE, content, edit)

        assert root == build(SHAPE, content.items())
        assert list(entries(root)) == sorted(content.items())


@examples(300)
@given(st.dictionaries(KEYS, st.sampled_from("abc"), max_size=40), EDITS)
def test_changed_slots_are_the_differences(content, edit):
    old = build(SHAPE, content.items())
    new = update(SHAPE, old, edit)
    present, gone = changed_slots(SHAPE, old, new)

    before, now = own_chains(SHAPE, old), own_chains(SHAPE, new)
    assert gone == before.keys() - now.keys()
    assert {slot for slot in now if before.get(slot) != now[slot]} <= present.keys()
    assert all(now[slot] is node for slot, node in present.items())
    if old == new:
        assert new is old
        assert not present


@examples(100)
@given(
    st.dictionaries(st.integers(0, 2**32 - 1), st.just("a"), min_size=40, max_size=80),
    st.data(),
)
def test_an_edit_costs_one_path(content, data):
    old = build(WIDE, content.items())
    key = data.draw(st.sampled_from(sorted(content)) | st.integers(0, 2**32 - 1))
    new = update(WIDE, old, {key: data.draw(st.sampled_from(["b", None]))})
    present, gone = changed_slots(WIDE, old, new)

    assert isinstance(old, Branch)
    assert isinstance(new, Branch)
    if old.depth == new.depth:
        assert sum(a is not b for a, b in zip(old.children, new.children, strict=True)) <= 1
    assert len(present) <= WIDE.max_levels + WIDE.leaf_entries // 2
    assert len(gone) <= WIDE.leaf_entries


def test_a_leaf_that_was_too_deep_to_split_is_split_when_it_comes_up():
    low, near, far = 0x00000, 0x00110, 0xF0000
    content = {key: "a" for key in (*range(low, low + 5), *range(near, near + 5), far)}
    tree = build(SHAPE, content.items())
    del content[far]

    assert update(SHAPE, tree, {far: None}) == build(SHAPE, content.items())


@pytest.mark.parametrize("key", [5, 0xFFFFF])
def test_removing_what_is_not_there_changes_nothing(key):
    root = build(SHAPE, ((n, "a") for n in range(0, 90, 9)))

    assert update(SHAPE, root, {key: None}) is root


def test_setting_what_is_there_already_changes_nothing():
    root = build(SHAPE, ((n, "a") for n in range(40)))

    assert update(SHAPE, root, {7: "a"}) is root
    assert update(SHAPE, root, {n: "a" for n in range(40)}) is root


@examples(200)
@given(st.dictionaries(KEYS, st.just("a"), max_size=60))
def test_no_path_is_longer_than_allowed_and_leaves_are_large_only_at_the_end(content):
    def check(node, level):
        assert level <= SHAPE.max_levels
        if isinstance(node, Leaf):
            assert node.count <= SHAPE.leaf_entries or level == SHAPE.max_levels
            return 0
        assert node.count > SHAPE.leaf_entries
        children = [child for child in node.children if child is not None]
        assert len(children) > 1, "a path with nothing to choose is left out"
        assert node.count == sum(child.count for child in children)
        levels = 1 + max(check(child, level + 1) for child in children)
        assert node.levels == levels
        return levels

    check(build(SHAPE, content.items()), 0)


@examples(200)
@given(st.dictionaries(KEYS, st.just("a"), max_size=60))
def test_an_entrance_admits_all_that_is_behind_it(content):
    def check(node):
        for slot, child in chains_below(SHAPE, node):
            prefix, nibbles = entrance(SHAPE, slot, child)
            assert nibbles >= slot[1]
            for key, _ in entries(child):
                assert key >> 4 * (SHAPE.nibbles - nibbles) == prefix
            check(child)

    check(build(SHAPE, content.items()))


def test_keys_that_share_all_but_the_last_nibble_make_one_level():
    root = build(WIDE, ((0xABCDEF00 | n, "a") for n in range(16)))

    assert isinstance(root, Branch)
    assert (root.depth, root.levels) == (7, 1)
