"""Reconciling: one code path for start, change and repair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.core.addresses import Family
from kproxy.core.flows import Flow
from kproxy.core.objects import Protocol
from kproxy.core.table import TableChanges
from kproxy.ports.data_path import BackendError
from kproxy.run.loop.reconcile import Reconciler
from tests.support.contract import Follower
from tests.support.memory import Call, Kernel, Memory
from tests.support.tables import pod, service_port, some_tables, table, vip

FAMILY = Family.IPV4
EMPTY, HERE, THERE, *OTHERS = some_tables(FAMILY)
UDP = Protocol.UDP


class Killed(BaseException):
    """The process is gone."""


class Dying(Kernel):
    """Ends the process at a write; the kernel itself lives on."""

    def __init__(self):
        super().__init__()
        self.left = None  # writes until the end, None while nobody dies

    def _step(self):
        if self.left is not None:
            if not self.left:
                raise Killed
            self.left -= 1

    def put(self, name, value):
        self._step()
        super().put(name, value)

    def drop(self, name):
        self._step()
        super().drop(name)


def test_an_unchanged_start_commits_nothing():
    kernel = Kernel()
    Follower(Memory(FAMILY, kernel)).apply(HERE)
    backend = Memory(FAMILY, kernel)
    applied = Follower(backend).apply(HERE)
    assert (applied.written, applied.observed) == (0, True)
    assert backend.calls[Call.COMMIT] == 0


def test_a_change_reads_nothing_back_and_writes_only_what_changed():
    backend = Memory(FAMILY, Kernel())
    follower = Follower(backend)
    services = [service_port(FAMILY, number, [number, 100]) for number in range(1, 100)]
    follower.apply(table(FAMILY, *services))
    before = backend.steps
    applied = follower.apply(table(FAMILY, service_port(FAMILY, 1, [101, 100]), *services[1:]))
    assert backend.calls[Call.OBSERVE] == 1
    assert applied.written == backend.steps - before == 3  # new target, service, old target


def test_everything_is_read_again_after_a_refusal():
    backend = Memory(FAMILY, Kernel(), {Call.COMMIT: [None, 1]})
    follower = Follower(backend)
    follower.apply(HERE)
    with pytest.raises(BackendError):
        follower.apply(THERE)
    applied = follower.reconciler.apply(TableChanges(FAMILY))
    assert applied.observed
    assert applied.written
    assert not applied.repaired, "what we left half done is no foreign change"
    assert Follower(Memory(FAMILY, Kernel())).apply(THERE).written > applied.written


def test_a_wish_survives_any_number_of_refusals():
    kernel = Kernel()
    backend = Memory(FAMILY, kernel, {Call.COMMIT: [0, 3, 0, 0], Call.OBSERVE: [None, 0]})
    follower = Follower(backend)
    for wish in (EMPTY, HERE, THERE):
        with pytest.raises(BackendError):
            follower.apply(wish)
    follower.reconciler.apply(TableChanges(FAMILY))
    assert Follower(Memory(FAMILY, kernel)).apply(THERE).written == 0


def test_an_audit_names_what_others_changed_and_nothing_else():
    kernel = Kernel()
    follower = Follower(Memory(FAMILY, kernel))
    follower.apply(HERE)
    assert follower.reconciler.audit().repaired == ()
    gone = next(name for name in kernel.objects if "/frontend/" in name)
    kernel.drop(gone)
    kernel.put("kproxy/target/of-nobody", b"")
    follower.reconciler.forget()
    applied = follower.apply(THERE)
    assert applied.repaired == (gone.removeprefix("kproxy/"), "target/of-nobody")
    assert applied.written > 2


def test_disturbance_is_not_asked_for_while_nothing_is_trusted():
    backend = Memory(FAMILY, Kernel())
    reconciler = Reconciler(backend, lambda: ())
    assert not reconciler.disturbed()
    assert backend.calls[Call.DISTURBED] == 0


@pytest.mark.parametrize("wish", [THERE, *OTHERS], ids=range(len(OTHERS) + 1))
def test_killed_at_any_step_the_next_start_repairs(wish):
    """And no frontend ever points at a missing target: the kernel would have refused that."""
    step = 0
    while True:
        kernel = Dying()
        follower = Follower(Memory(FAMILY, kernel))
        follower.apply(HERE)
        kernel.left = step
        try:
            follower.apply(wish)
        except Killed:
            kernel.left = None
        else:
            break
        restarted = Memory(FAMILY, kernel)
        Follower(restarted).apply(wish)
        assert restarted.observe() == image_of(wish), f"killed at step {step}"
        step += 1
    assert step > 1


def image_of(wish):
    rendered = Memory(FAMILY, Kernel()).render(wish.everything())
    return {key: value for key, value in rendered.items() if value is not None}


faults = st.lists(st.none() | st.integers(0, 12), max_size=6)


@given(
    path=st.lists(st.sampled_from(some_tables(FAMILY)), min_size=1), commits=faults, reads=faults
)
def test_the_last_table_wins_whatever_was_refused_on_the_way(path, commits, reads):
    kernel = Kernel()
    reads = [None if fault is None else 0 for fault in reads]
    follower = Follower(Memory(FAMILY, kernel, {Call.COMMIT: commits, Call.OBSERVE: reads}))
    for wish in path:
        try_apply(lambda wish=wish: follower.apply(wish))
    for _ in range(len(commits) + len(reads) + 1):
        if try_apply(lambda: follower.reconciler.apply(TableChanges(FAMILY), retry=True)):
            break
    assert Memory(FAMILY, kernel).observe() == image_of(path[-1])


def try_apply(apply):
    try:
        apply()
    except BackendError:
        return False
    return True


def udp_flow(frontend, endpoint, *, source_port=4000):
    client = "10.9.0.1"
    return Flow(client, source_port, frontend, 80, endpoint, 8080, client, source_port, 0)


def dns(pods):
    return table(FAMILY, service_port(FAMILY, 1, pods, protocol=UDP))


def test_stale_udp_flows_go_after_the_commit_and_the_others_stay():
    kernel = Kernel()
    follower = Follower(Memory(FAMILY, kernel))
    follower.apply(dns([1, 2]))
    follower.reconciler.forget_stale_flows()
    left, right = (udp_flow(vip(FAMILY, 1), pod(FAMILY, number)) for number in (1, 2))
    elsewhere = udp_flow("192.0.2.1", "192.0.2.1")
    kernel.flows |= {left, right, elsewhere}
    follower.apply(dns([2]))
    assert kernel.flows == {left, right, elsewhere}, "not before the rules are in place"
    assert follower.reconciler.forget_stale_flows() == 1
    assert kernel.flows == {right, elsewhere}


def test_stale_flows_that_could_not_be_removed_are_tried_again():
    kernel = Kernel()
    backend = Memory(FAMILY, kernel, {Call.FLOWS: [None, 0]})
    follower = Follower(backend)
    follower.apply(dns([1, 2]))
    follower.reconciler.forget_stale_flows()
    kernel.flows.add(udp_flow(vip(FAMILY, 1), pod(FAMILY, 1)))
    follower.apply(dns([2]))
    with pytest.raises(BackendError):
        follower.reconciler.forget_stale_flows()
    assert follower.reconciler.forget_stale_flows() == 1
    assert follower.reconciler.forget_stale_flows() == 0
    assert backend.calls[Call.FLOWS] == 3, "nothing is listed when nothing can be stale"


def test_flows_that_passed_while_our_rules_were_gone_are_looked_at():
    kernel = Kernel()
    follower = Follower(Memory(FAMILY, kernel))
    follower.apply(dns([1]))
    follower.reconciler.forget_stale_flows()
    kernel.flush("kproxy/")
    untranslated = udp_flow(vip(FAMILY, 1), vip(FAMILY, 1))
    kernel.flows.add(untranslated._replace(reply_source_port=80))
    follower.reconciler.audit()
    assert follower.reconciler.forget_stale_flows() == 1
