"""The fake data path keeps the contract, and refuses what a kernel refuses."""

import contextlib

import pytest

from kproxy.core.addresses import Family
from kproxy.core.flows import Destinations, Flow
from kproxy.core.image import Changes
from kproxy.ports.data_path import BackendError
from tests.support.contract import BackendContract
from tests.support.memory import Call, Kernel, Memory, Refused, service_name
from tests.support.tables import service_port

TO_DNS = Flow("10.9.0.1", 4000, "10.96.0.1", 53, "10.1.0.1", 53, "10.9.0.1", 4000, 0)
TO_WEB = TO_DNS._replace(destination_port=80)


class MemoryRig:
    """A kernel with somebody else's objects in it."""

    def __init__(self, family):
        self.family = family
        self._kernels = {each: Kernel() for each in Family}
        self._kernel = self._kernels[family]
        self._kernel.put("chain/docker", b"theirs")
        self._kernel.put("chain/forward", b"jump\nchain/docker")

    def both(self):
        return {each: Memory(each, kernel) for each, kernel in self._kernels.items()}

    def backend(self):
        return Memory(self.family, self._kernel)

    def foreign(self):
        objects = self._kernel.objects.items()
        return frozenset(item for item in objects if not item[0].startswith("kproxy/"))

    def meddle(self):
        self._kernel.flush("kproxy/target/")

    def refusals(self):
        for step in (0, 1, 2, 5, 10, 20, 30):
            fails = {Call.COMMIT: [step]}
            yield contextlib.nullcontext(Memory(self.family, self._kernel, fails))

    def without_room(self):
        port = service_port(self.family, 60, [7, 8], affinity_s=61)
        return port, self._full_for(service_name(port.key))

    @contextlib.contextmanager
    def _full_for(self, name):
        had = self._kernel.has_room
        self._kernel.has_room = lambda each, value: each != name or b"|61\n" not in value
        yield
        self._kernel.has_room = had


class TestMemory(BackendContract):
    @pytest.fixture(params=Family, ids=lambda family: family.value)
    def rig(self, request):
        return MemoryRig(request.param)


def test_the_kernel_refuses_a_reference_to_nothing():
    kernel = Kernel()
    with pytest.raises(Refused, match="which does not exist"):
        kernel.put("chain/a", b"jump\nchain/b")
    assert not kernel.objects


def test_the_kernel_refuses_to_drop_what_is_in_use():
    kernel = Kernel()
    kernel.put("chain/b", b"")
    kernel.put("chain/a", b"jump\nchain/b")
    with pytest.raises(Refused, match="in use"):
        kernel.drop("chain/b")
    kernel.put("chain/a", b"")
    kernel.drop("chain/b")
    with pytest.raises(Refused, match="does not exist"):
        kernel.drop("chain/b")


def test_a_refused_object_is_a_backend_error_that_will_not_pass():
    backend = Memory(Family.IPV4, Kernel())
    name = "kproxy/frontend/TCP 10.96.0.1:80"
    with pytest.raises(BackendError, match="does not exist") as refused:
        backend.commit(Changes({name: b"clusterIP\nkproxy/service/gone"}, frozenset()))
    assert not refused.value.transient


@pytest.mark.parametrize("call", [Call.OBSERVE, Call.DISTURBED, Call.FLOWS])
def test_a_script_of_faults_says_which_call_fails(call):
    backend = Memory(Family.IPV4, Kernel(), {call: [None, 0]})
    calls = {
        Call.OBSERVE: backend.observe,
        Call.DISTURBED: backend.disturbed,
        Call.FLOWS: lambda: backend.flows(Destinations()),
    }
    calls[call]()
    with pytest.raises(BackendError):
        calls[call]()
    calls[call]()
    assert backend.calls[call] == 3


def test_only_the_wanted_flows_are_listed_and_only_what_exists_is_removed():
    kernel = Kernel()
    backend = Memory(Family.IPV4, kernel)
    kernel.flows |= {TO_DNS, TO_WEB}
    assert list(backend.flows(Destinations(ports=frozenset({53})))) == [TO_DNS]
    assert backend.forget_flows([TO_DNS]) == 1
    assert backend.forget_flows([TO_DNS]) == 0
    assert kernel.flows == {TO_WEB}
