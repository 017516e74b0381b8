"""What the kernel refuses of one service port costs no other one, and comes back with the room."""

import asyncio
import logging

import pytest

from kproxy.core.addresses import Family
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.support.contract import Follower, image_of, until_accepted
from tests.support.memory import Call, Kernel, Memory, service_name
from tests.support.tables import listed, moved, service_port, some_tables, table
from tests.unit.run.scenario import Timed, running
from tests.unit.run.test_agent import in_virtual_time
from tests.unit.run.test_memory import MemoryRig

FAMILY = Family.IPV4
V4, V6 = Family


def many(count):
    return [service_port(FAMILY, number, [number % 200 + 1, 250]) for number in range(1, count + 1)]


def crowded(*ports):
    """A kernel without room for these service ports."""
    kernel = Kernel()
    names = {service_name(port.key) for port in ports}
    kernel.has_room = lambda name, value: name not in names
    return kernel


@pytest.mark.parametrize("culprits", [(0,), (249,), (100,), (3, 4), (0, 77, 249)])
def test_few_culprits_among_many_are_found_in_few_writes(culprits):
    ports = many(250)
    bad = [ports[index] for index in culprits]
    backend = Memory(FAMILY, crowded(*bad))
    follower = Follower(backend)
    until_accepted(follower, table(FAMILY, *ports))
    assert follower.reconciler.unheld.keys() == {port.key for port in bad}
    assert backend.calls[Call.COMMIT] <= 6 + 2 * 9 * len(bad)


def test_a_search_ends_although_all_are_refused():
    ports = many(200)
    backend = Memory(FAMILY, crowded(*ports))
    follower = Follower(backend)
    until_accepted(follower, table(FAMILY, *ports))
    assert len(follower.reconciler.unheld) == len(ports)
    assert backend.calls[Call.COMMIT] <= 150


def test_what_a_long_search_did_not_get_to_is_found_by_the_next():
    ports = many(250)
    bad = ports[::8]
    kernel = crowded(*bad)
    follower = Follower(Memory(FAMILY, kernel))
    until_accepted(follower, table(FAMILY, *ports))
    for _ in range(10):
        follower.reconciler.apply(TableChanges(FAMILY), retry=True)
    assert follower.reconciler.unheld.keys() == {port.key for port in bad}


def test_without_a_refusal_there_is_no_further_write_and_no_reading():
    backend = Memory(FAMILY, Kernel())
    follower = Follower(backend)
    for each in some_tables(FAMILY):
        follower.apply(each)
    assert backend.calls[Call.OBSERVE] == 1
    assert backend.calls[Call.COMMIT] == len(some_tables(FAMILY))


def test_a_kernel_that_takes_nothing_is_no_service_s_fault():
    first, second = service_port(FAMILY, 1, [1]), service_port(FAMILY, 2, [2])
    backend = Memory(FAMILY, Kernel(), {Call.COMMIT: [None, *[0] * 40]})
    follower = Follower(backend)
    follower.apply(table(FAMILY, first, second))
    with pytest.raises(BackendError):
        follower.apply(table(FAMILY, first, service_port(FAMILY, 2, [3])))
    for _ in range(8):
        with pytest.raises(BackendError):
            follower.reconciler.apply(TableChanges(FAMILY))
        assert follower.reconciler.unheld == {}
    while True:
        try:
            follower.reconciler.apply(TableChanges(FAMILY))
        except BackendError:
            continue
        break
    assert follower.reconciler.unheld == {}


def set_name(key):
    return service_name(key).replace("/service/", "/address/")


class WithSets(Memory):
    """Has a part of each service port that goes into the kernel by a way of its own."""

    def render(self, changes):
        ports = changes.service_ports.items()
        sets = {set_name(key): None if entry is None else b"a set" for key, entry in ports}
        return sets | super().render(changes)

    def owners(self, keys):
        wanted = set(keys)
        sets = {key for key in self._entries if set_name(key) in wanted}
        return super().owners(keys) | sets


def test_what_goes_into_the_kernel_by_another_way_proves_nothing():
    first, second = service_port(FAMILY, 1, [1]), service_port(FAMILY, 2, [2])
    kernel = Kernel()
    follower = Follower(WithSets(FAMILY, kernel))
    follower.apply(table(FAMILY, first, second))
    kernel.has_room = lambda name, value: name.startswith("kproxy/address/")
    wished = table(FAMILY, first, service_port(FAMILY, 2, [3]))
    with pytest.raises(BackendError):
        follower.apply(wished)
    for _ in range(8):
        with pytest.raises(BackendError):
            follower.reconciler.apply(TableChanges(FAMILY))
        assert follower.reconciler.unheld == {}


def refused(rig, wished):
    """A follower to which the kernel said no."""
    follower = Follower(rig.backend())
    follower.apply(some_tables(FAMILY)[1])
    until_accepted(follower, wished)
    return follower


def test_a_change_of_what_is_refused_waits_for_the_next_try_and_a_removal_does_not():
    rig = MemoryRig(FAMILY)
    port, room = rig.without_room()
    base = list(some_tables(FAMILY)[1].service_ports.values())
    wished = table(FAMILY, *base, port)
    with room:
        follower = refused(rig, wished)
        modest = service_port(FAMILY, 60, [7])
        assert follower.apply(table(FAMILY, *base, modest)).written == 0
        assert follower.reconciler.unheld.keys() == {port.key}
        follower.reconciler.apply(TableChanges(FAMILY), retry=True)
        assert follower.reconciler.unheld == {}
        assert rig.backend().observe() == image_of(rig, table(FAMILY, *base, modest))

        until_accepted(follower, wished)
        assert follower.reconciler.unheld.keys() == {port.key}
        follower.apply(table(FAMILY, *base))
        assert follower.reconciler.unheld == {}
        assert rig.backend().observe() == image_of(rig, table(FAMILY, *base))


def test_a_frontend_goes_to_whom_it_belongs_now_although_its_owner_stays_as_it_was():
    rig = MemoryRig(FAMILY)
    grown, room = rig.without_room()
    heir = service_port(FAMILY, 60, [9], name="heir")
    modest = service_port(FAMILY, 60, [7])
    with room:
        follower = Follower(rig.backend())
        follower.apply(table(FAMILY, service_port(FAMILY, 1, [1]), modest))
        until_accepted(follower, table(FAMILY, service_port(FAMILY, 1, [1]), grown))
        assert follower.reconciler.unheld.keys() == {grown.key}
        # A table has each frontend once; the refused wish has lost its own to the heir.
        after = table(FAMILY, service_port(FAMILY, 1, [1]), heir)
        changes = TableChanges(FAMILY, service_ports={heir.key: heir})
        follower.reconciler.apply(changes)
        assert rig.backend().observe() == image_of(rig, after)


def test_a_restart_looks_only_among_what_the_kernel_lacks():
    ports = many(60)
    bad = ports[30]
    kernel = crowded(bad)
    until_accepted(Follower(Memory(FAMILY, kernel)), table(FAMILY, *ports))
    before = dict(kernel.objects)
    gone = []
    genuine = kernel.drop
    kernel.drop = lambda name: (gone.append(name), genuine(name))
    restarted = Follower(Memory(FAMILY, kernel))
    until_accepted(restarted, table(FAMILY, *ports))
    assert restarted.reconciler.unheld.keys() == {bad.key}
    assert kernel.objects == before
    of_others = {service_name(port.key) for port in ports} - {service_name(bad.key)}
    assert not of_others & set(gone)


class WithoutSets(Memory):
    """Finds out by a refused commit what it has to render otherwise, as a data path may."""

    def __init__(self, family, kernel):
        super().__init__(family, kernel)
        self._patch = {}
        self.reason = ""

    def commit(self, changes):
        if not self.reason:
            self.reason = "there are too many sets"
            raise BackendError("creating sets", self.reason, transient=True)
        super().commit(changes)

    def unheld(self):
        return dict.fromkeys(self._entries, self.reason) if self.reason else {}


def test_what_a_data_path_goes_without_is_told_too():
    port = service_port(FAMILY, 1, [1])
    reconciler = Reconciler(WithoutSets(FAMILY, Kernel()), lambda: ())
    with pytest.raises(BackendError):
        reconciler.apply(table(FAMILY, port).everything())
    assert reconciler.apply(TableChanges(FAMILY)).written
    assert reconciler.unheld == {port.key: "there are too many sets"}


class ReadOnly(Timed):
    """A node on which a setting cannot be had, beside what the kernel refuses."""

    def settle(self):
        raise BackendError("setting net.ipv4.ip_forward to 1", "read-only", transient=False)


@in_virtual_time
async def test_a_setting_that_cannot_be_had_makes_no_refusal_of_a_try(caplog):
    async with running(kind=ReadOnly) as it:
        no_room_for_two(it.kernels[V4])
        it.source.push(listed(1, 2))
        await asyncio.sleep(3600)
        assert {key.name for key in it.status(V4).unheld} == {"web-2"}
        refusals = [each for each in caplog.messages if "the kernel refused" in each]
        assert len(refusals) == 1, "the one before the search"

        it.kernels[V4].has_room = lambda name, value: True
        await asyncio.sleep(200)
        assert it.all_true()
        assert it.status(V4).unheld == {}


def no_room_for_two(kernel):
    kernel.has_room = lambda name, value: "/service/shop/web-2" not in name


@in_virtual_time
async def test_it_is_said_once_and_once_more_when_it_is_back(caplog):
    caplog.set_level(logging.INFO)
    async with running() as it:
        no_room_for_two(it.kernels[V4])
        it.source.push(listed(1, 2))
        await asyncio.sleep(3600)
        status = it.status(V4)
        assert {key.name for key in status.unheld} == {"web-2"}
        assert status.behind_since is None, "all else is in force"
        assert (status.failures, it.status(V6).unheld) == (0, {})
        tries = len(it.backends[V4].commits)
        await asyncio.sleep(3600)
        assert len(it.backends[V4].commits) - tries <= 3 * 3600 / 120
        it.source.push(moved(1, 5))
        await asyncio.sleep(5)
        assert it.is_true(V6)
        assert "kproxy/target/10.1.0.5:8080" in it.kernels[V4].objects, "the others go on"

        it.kernels[V4].has_room = lambda name, value: True
        await asyncio.sleep(200)
        assert it.all_true()
        assert it.status(V4).unheld == {}
    said = [record.message for record in caplog.records if "shop/web-2" in record.message]
    assert len([line for line in said if "not in force" in line]) == 1
    assert len([line for line in said if "left out any more" in line]) == 1
