"""Every service port that needs a firewall mark has one of its own, whatever way led there."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.ipvs.render import marks
from backends.ipvs.render.marks import FIRST_MARK, Marks, is_of_udp
from kproxy.core.objects import Protocol
from kproxy.core.table import ServicePortKey
from tests.support.effort import examples

KEYS = [
    ServicePortKey("shop", f"{name}", "", protocol)
    for name, protocol in itertools.product("abcde", (Protocol.TCP, Protocol.UDP))
]


@examples(200)
@given(st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=40))
def test_the_names_alone_decide_who_has_which_mark(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks, "_COUNT", 7)
        found = Marks()
        wanted = set()
        for key, present in steps:
            before = {each: found.get(each) for each in KEYS}
            gone = {key} & wanted - ({key} if present else set())
            new = {key} - wanted if present else set()
            wanted = (wanted - gone) | new
            former = found.replace(gone, new)
            after = {each: found.get(each) for each in KEYS}
            assert former == {key: before[key] for key in KEYS if before[key] != after[key]}

        held = [mark for each in KEYS if (mark := found.get(each)) is not None]
        assert len(held) == len(set(held)) == len(wanted)
        at_once = Marks()
        at_once.replace((), wanted)
        for key in KEYS:
            assert at_once.get(key) == found.get(key)
            assert (key in found) == (key in wanted)
            if key in found:
                assert found.owner(found.get(key)) == key
                assert is_of_udp(found.get(key)) == (key.protocol is Protocol.UDP)


def test_a_mark_is_a_digest_of_the_name_with_the_two_highest_bits():
    found = Marks()
    found.replace((), KEYS)
    digest = hashlib.sha256(b"shop\0a\0\0TCP").digest()
    assert found.get(KEYS[0]) == FIRST_MARK | int.from_bytes(digest[:4], "big") % (1 << 29)
    assert found.owner(FIRST_MARK) is None
