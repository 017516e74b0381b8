"""kill -9 of a proxy in mode ipvs, time and again: nobody is lost, a start finishes the work."""

from __future__ import annotations

import time

import pytest

from kproxy.core.addresses import Family
from tests.kernel.faults.flowing import Flowing
from tests.kernel.faults.ipvs.conftest import EVERY_WAY, serve
from tests.kernel.faults.test_kill import ready_after_s
from tests.support.net.plan import POD1, POD2, POD3
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel

KILLS = 20
STEPS = 7  # moments of a start, or of the change that follows one


def test_killed_twenty_times_under_traffic_nobody_is_lost_and_a_start_finishes(node):
    serve(node, POD1)
    takes_s = ready_after_s(node)
    with Flowing(node.network, (POD1, POD2, POD3), EVERY_WAY, connected=False) as flowing:
        for kill in range(KILLS):
            pods = (POD1, POD2) if kill % 2 else (POD1,)
            serve(node, *pods)
            proxy = node.start()
            if kill % 4 >= 2:
                proxy.wait_for("ready: ")
                serve(node, POD1, POD3)
            time.sleep((1 + kill % STEPS) / STEPS * takes_s)
            proxy.kill()
            assert flowing.silenced == [], f"kill {kill}"
        assert flowing.flow(1).lasting_met == {POD1}

        serve(node, POD1, POD2)
        node.once()
        node.once()
        for family in Family:
            assert f"{family.value}: wrote 0 kernel objects" in node.started[-1].said()
        until(
            lambda: flowing.flow(1).new_met == {POD1, POD2},
            within_s=LONGEST_S,
            what="new ones meet both",
        )
        assert flowing.silenced == []
