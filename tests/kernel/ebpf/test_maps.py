"""Maps as the kernel has them: one entry, many, and what it refuses."""

import errno
import struct

import pytest

from backends.kernel.bpf import maps, objects
from backends.kernel.bpf.maps import NO_PREALLOC, BatchRefusal, MapType, Shape
from backends.kernel.bpf.syscall import ENOTSUPP, Command, KernelRefusal, bpf

pytestmark = pytest.mark.kernel

HASH = Shape(MapType.HASH, 4, 8, 10_000, NO_PREALLOC)
NETWORKS = Shape(MapType.LPM_TRIE, 8, 1, 10_000, NO_PREALLOC)


def entries(count, start=0):
    return {struct.pack("=I", n): struct.pack("=Q", n * n) for n in range(start, start + count)}


def networks(count):
    return {struct.pack("=I4B", 32, 10, 0, n >> 8, n & 255): b"\1" for n in range(count)}


@pytest.fixture
def made():
    opened = []

    def make(shape):
        opened.append(maps.create("a_name_that_is_longer_than_15", shape))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_an_entry_is_written_read_and_removed(made):
    table = made(HASH)
    key, value = b"abcd", b"12345678"
    assert table.lookup(key) is None

    table.update(key, value)
    assert table.lookup(key) == value
    assert (table.delete(key), table.delete(key)) == (True, False)
    assert table.lookup(key) is None


def test_what_is_taken_is_gone_and_is_put_back_in_no_others_place(made):
    table = made(HASH)
    key, value, other = b"abcd", b"12345678", b"87654321"
    table.update(key, value)
    assert (table.take(key), table.take(key), table.lookup(key)) == (value, None, None)

    assert table.put_back(key, value)
    assert not table.put_back(key, other)
    assert table.lookup(key) == value


@pytest.mark.parametrize(("shape", "some"), [(HASH, entries), (NETWORKS, networks)])
def test_many_entries_are_written_read_and_removed(made, shape, some):
    table = made(shape)
    wanted = some(9_000)
    table.update_many(wanted)
    assert dict(table.items()) == wanted
    assert set(table.keys()) == set(wanted)

    gone = list(wanted)[::3]
    assert table.delete_many([*gone, *gone[:10]]) == len(gone)
    assert dict(table.items()) == {k: v for k, v in wanted.items() if k not in set(gone)}


@pytest.mark.parametrize(("shape", "some"), [(HASH, entries), (NETWORKS, networks)])
def test_without_batches_it_is_the_same_one_by_one(made, shape, some, monkeypatch):
    batches = {Command.MAP_LOOKUP_BATCH, Command.MAP_UPDATE_BATCH, Command.MAP_DELETE_BATCH}

    def lacking(command, attributes):
        return (-1, ENOTSUPP) if command in batches else bpf(command, attributes)

    monkeypatch.setattr(maps, "bpf", lacking)
    test_many_entries_are_written_read_and_removed(made, shape, some)

    small = made(shape._replace(max_entries=100))
    with pytest.raises(BatchRefusal, match="after 100 entries"):
        small.update_many(some(150))


@pytest.mark.parametrize(
    ("shape", "some", "number"),
    [(HASH, entries, errno.E2BIG), (NETWORKS, networks, errno.ENOSPC)],
)
def test_a_full_map_says_how_many_entries_it_took(made, shape, some, number):
    table = made(shape._replace(max_entries=5_000))
    wanted = some(6_000)
    with pytest.raises(BatchRefusal) as refusal:
        table.update_many(wanted)

    assert (refusal.value.number, refusal.value.applied) == (number, 5_000)
    assert not refusal.value.transient
    assert dict(table.items()) == dict(list(wanted.items())[:5_000])


def test_what_is_read_in_parts_is_read_when_it_is_asked_for(made):
    table = made(HASH)
    table.update_many(entries(1_000))
    parts = table.parts(at_once=100)
    read = dict(next(parts))
    assert 0 < len(read) <= 100

    table.delete_many([key for key in entries(1_000) if key not in read])
    assert all(not part for part in parts)


def test_many_entries_are_read_in_a_row(made):
    table = made(HASH)
    table.update_many(entries(1_000))
    parts = list(table.raw_parts(at_once=300))

    assert [len(keys) // 4 for keys, _ in parts] == [len(values) // 8 for _, values in parts]
    keys = struct.unpack("=1000I", b"".join(keys for keys, _ in parts))
    values = struct.unpack("=1000Q", b"".join(values for _, values in parts))
    assert dict(zip(keys, values, strict=True)) == {n: n * n for n in range(1_000)}


def test_a_part_grows_to_what_the_kernel_gives_at_least(made):
    """That is one bucket of a hash, which may hold several entries."""
    table = made(HASH._replace(max_entries=1_000))
    table.update_many(entries(1_000))
    assert dict(entry for part in table.parts(at_once=1) for entry in part) == entries(1_000)


def test_a_batch_that_did_not_begin_took_nothing(made, monkeypatch):
    table = made(HASH)
    monkeypatch.setattr(maps, "bpf", lambda command, attributes: (-1, errno.ENOMEM))
    with pytest.raises(BatchRefusal, match="ENOMEM") as refusal:
        table.update_many(entries(10))
    assert (refusal.value.applied, refusal.value.transient) == (0, True)
    with pytest.raises(KernelRefusal, match="deleting from the map"):
        table.delete_many(entries(10))


def test_each_cpu_has_a_value_of_its_own(made):
    table = made(Shape(MapType.PERCPU_ARRAY, 4, 12, 3, 0))
    key = struct.pack("=I", 1)
    cpus = maps.possible_cpus()
    value = b"".join(bytes([n + 1] * 12) + bytes(4) for n in range(cpus))
    table.update(key, value)

    assert table.lookup(key) == value
    assert len(dict(table.items())) == 3


def test_what_has_another_length_is_not_handed_to_the_kernel(made):
    """It would read on behind it."""
    table = made(HASH)
    with pytest.raises(ValueError, match=r"a key of a_name.* has 4 bytes"):
        table.lookup(b"abc")
    with pytest.raises(ValueError, match=r"a value of a_name.* has 8 bytes"):
        table.update(b"abcd", bytes(7))
    with pytest.raises(ValueError, match="the keys of"):
        table.delete_many([b"abc"])
    with pytest.raises(ValueError, match="the values of"):
        table.update_many({b"abcd": bytes(7)})
    assert dict(table.items()) == {}


@pytest.mark.parametrize("type_", [MapType.SK_STORAGE, MapType.RINGBUF, MapType.PROG_ARRAY])
def test_the_kernel_has_the_shape_that_was_asked_for(made, type_):
    shapes = {
        MapType.SK_STORAGE: Shape(type_, 4, 100, 0, NO_PREALLOC),
        MapType.RINGBUF: Shape(type_, 0, 0, 1 << 14, 0),
        MapType.PROG_ARRAY: Shape(type_, 4, 4, 8, 0),
    }
    assert maps.shape_of(made(shapes[type_])) == shapes[type_]


def test_a_refused_map_names_itself_and_the_error():
    with pytest.raises(KernelRefusal, match=r"creating the map small of 0 entries: EINVAL"):
        maps.create("small", HASH._replace(max_entries=0))


def test_a_pin_keeps_a_map(made, bpffs):
    table = made(HASH)
    table.update(b"abcd", bytes(8))
    objects.pin(table, bpffs / "table")
    table.close()

    with maps.pinned(bpffs / "table") as again:
        assert (again.shape, again.lookup(b"abcd")) == (HASH, bytes(8))
    with pytest.raises(KernelRefusal, match=r"no\.dots: EPERM"), maps.create("x", HASH) as other:
        objects.pin(other, bpffs / "no.dots")
    with pytest.raises(KernelRefusal, match="ENOENT"):
        maps.pinned(bpffs / "nothing")
