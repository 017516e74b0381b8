"""Which virtual servers of an earlier run are asked for open connections."""

from backends.ipvs.withdrawal import forget_idle
from backends.kernel.virtual_servers import Destination, Load, Server, passage
from kproxy.core.addresses import Family

FIRST, SECOND, THIRD, FOURTH = (
    Server(Family.IPV4, 6, bytes([10, 96, 0, last]), 80) for last in range(1, 5)
)
POD = Destination(bytes([10, 1, 0, 2]), 8080)
IDLE = Load(weight=0, active=0, inactive=0, translated=True)


class Kernel:
    """Virtual servers that each have an endpoint, and pass on what comes from the node itself."""

    def __init__(self, **busy):
        self.busy = busy
        self.asked = []

    def destinations(self, server):
        self.asked.append(server)
        load = IDLE._replace(**self.busy) if server == SECOND else IDLE
        return [(passage(server), IDLE._replace(active=9, weight=1)), (POD, load)]


def test_a_look_ends_at_the_first_that_has_connections_and_the_next_begins_there():
    for busy in ({"active": 1}, {"inactive": 1}):
        kernel, serving = Kernel(**busy), [FIRST, SECOND, THIRD, FOURTH]
        forget_idle(kernel, serving)
        assert kernel.asked == [FOURTH, THIRD, SECOND]
        assert serving == [FIRST, SECOND]
        kernel.asked.clear()
        forget_idle(kernel, serving)
        assert kernel.asked == [SECOND]
        kernel.busy.clear()
        forget_idle(kernel, serving)
        assert serving == []
