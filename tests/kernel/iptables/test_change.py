"""From one variant of iptables to the other, by the contract of every change of the data path."""

from __future__ import annotations

import pytest

from backends.kernel.xtables.tools import Variant
from tests.support.change_contract import ChangeContract
from tests.support.net.network import Network
from tests.support.net.plan import POD1, POD2
from tests.support.node.change import PathChange, Rules
from tests.support.node.conversations import Conversations

pytestmark = pytest.mark.kernel


class TestVariants(ChangeContract):
    @pytest.fixture
    def change(self, family, variant, tmp_path, monkeypatch):
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        with Network() as network:
            talk = Conversations(network)
            talk.serve(POD1, POD2)
            with network.node.entered():
                (other,) = set(Variant) - {variant}
                change = PathChange(talk, family, Rules(family, variant), Rules(family, other))
                yield change
                change.close()
            talk.close()
