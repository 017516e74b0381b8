"""What a Service of thousands of ports or slices costs: counted, not timed."""

import dataclasses

from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from tests.support.core.things import HERE, a_port, a_service, a_slice, listed

MANY = 300


class Counted(tuple):
    """A tuple that knows how often it was gone through."""

    times = 0

    def __iter__(self):
        type(self).times += 1
        return super().__iter__()


def test_the_ports_of_a_slice_are_gone_through_once_for_all_ports_of_its_service():
    ports = [a_port(1 + n, name=f"p{n}") for n in range(MANY)]
    backed = a_slice("10.1.0.1", ports=[(8000 + n, f"p{n}") for n in range(MANY)])
    of_slice = type("OfSlice", (Counted,), {})(backed.ports)
    backed = dataclasses.replace(backed, ports=of_slice)

    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(ports=ports), backed))

    entries = compiler.tables[Family.IPV4].service_ports.values()
    assert {str(t) for entry in entries for t in entry.targets} == {
        f"10.1.0.1:{8000 + n}" for n in range(MANY)
    }
    assert type(of_slice).times < 5


def test_the_endpoints_of_a_service_are_not_gone_through_for_each_of_its_slices():
    made = [a_slice(f"10.1.{n >> 8}.{n & 255}", name=f"s{n}") for n in range(1, MANY)]
    watched = type("Watched", (Counted,), {})(made[0].endpoints)
    made[0] = dataclasses.replace(made[0], endpoints=watched)

    compiler = Compiler(Settings(HERE), [Family.IPV4])
    compiler.apply(listed(a_service(), *made))

    (entry,) = compiler.tables[Family.IPV4].service_ports.values()
    assert len(entry.targets) == MANY - 1
    assert type(watched).times < 5
