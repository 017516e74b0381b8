"""Our own transactions are told from others' by counting alone."""

import threading

import pytest

from backends.kernel import nft
from backends.kernel.transactions import Foreign, Transactions


class Ruleset:
    """Counts everybody's transactions, as the kernel does."""

    def __init__(self, generation):
        self.generation = generation

    def write(self):
        self.generation = (self.generation + 1) % 2**32


@pytest.fixture(params=[7, 2**32 - 3], ids=["small", "about to begin anew"])
def ruleset(request, monkeypatch):
    made = Ruleset(request.param)
    monkeypatch.setattr(nft, "generation", lambda: made.generation)
    return made


def test_what_we_write_is_not_foreign_and_what_others_write_is(ruleset):
    ours = Transactions()
    before = ours.surely_foreign(within_s=0)
    for number in range(1, 6):
        with ours.one():
            ruleset.write()
        assert ours.foreign().since(before) == number - 1
        ruleset.write()
        assert ours.foreign().since(before) == number
        assert not ours.foreign().unsure


def test_a_refused_transaction_counts_for_nobody(ruleset):
    ours = Transactions()
    before = ours.surely_foreign(within_s=0)
    with pytest.raises(ZeroDivisionError), ours.one():
        raise ZeroDivisionError
    assert ours.foreign().since(before) == 0


def test_one_that_has_begun_leaves_no_doubt_until_the_generation_moves(ruleset):
    ours = Transactions()
    before = ours.surely_foreign(within_s=0)
    with ours.one():
        assert ours.foreign() == Foreign(before, 0)
        ruleset.write()
        assert (ours.foreign().since(before), ours.foreign().unsure) == (1, 1)
        ruleset.write()
        assert (ours.foreign().since(before), ours.foreign().unsure) == (2, 1), "one is foreign"
    assert (ours.foreign().since(before), ours.foreign().unsure) == (1, 0)


def test_doubt_is_waited_out_for_a_moment_only(ruleset):
    ours = Transactions()
    before = ours.surely_foreign(within_s=0)
    written, go_on = threading.Event(), threading.Event()

    def write():
        with ours.one():
            ruleset.write()
            written.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    assert written.wait(60)
    assert ours.surely_foreign(within_s=0) is None
    go_on.set()
    assert ours.surely_foreign(within_s=60) == before
    thread.join(60)
