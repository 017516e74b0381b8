"""Into ipvs mode and out of it, by the contract of every change of the data path."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backends.ipvs.path import IpvsPath
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from tests.support.change_contract import ChangeContract
from tests.support.iptables.applied import run, saved
from tests.support.ipvs.on_node import forget_connections, objects_of_ipvs
from tests.support.ipvs.options import PLAIN
from tests.support.net.network import Network
from tests.support.net.plan import POD1, POD2
from tests.support.node.change import PathChange, Rules
from tests.support.node.conversations import Conversations

pytestmark = pytest.mark.kernel


class VirtualServers:
    """Virtual servers on a node, as one side of a change."""

    def __init__(self, family):
        self._family = family

    def backend(self):
        return IpvsPath(replace(PLAIN, variant=Variant.NF_TABLES)).backend(self._family)

    def former(self):
        (former,) = IpvsPath(PLAIN).former(self._family)
        return former

    def left(self):
        lines = saved(self._family, Variant.NF_TABLES).splitlines()
        ours = [line.partition("] ")[2] or line for line in lines if "KPROXY-IPVS-" in line]
        return ours + objects_of_ipvs()

    def forget(self):
        forget_connections()
        run("conntrack -F")


def rules(family):
    return Rules(family, Variant.NF_TABLES)


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


class TestChanges(ChangeContract):
    @pytest.fixture(
        params=[(rules, VirtualServers), (VirtualServers, rules)], ids=["into", "out of"]
    )
    def change(self, request, family):
        with Network() as network:
            talk = Conversations(network)
            talk.serve(POD1, POD2)
            with network.node.entered():
                change = PathChange(talk, family, *(each(family) for each in request.param))
                yield change
                change.close()
            talk.close()
