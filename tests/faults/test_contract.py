"""The data path keeps the contract of all data paths, on the kernel."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

from kproxy.core.addresses import Family
from tests.faults import foreign
from tests.faults.node import STEM, is_ours
from tests.faults.tools import REFUSE, Tools
from tests.net.namespace import Namespace
from tests.packets.data_paths import DATA_PATHS
from tests.run.contract import BackendContract

pytestmark = pytest.mark.kernel

RESTORES_OF_A_COMMIT = 3


class IptablesRig:
    """A network namespace, which the test is in, with everybody else's rules."""

    def __init__(self, family: Family, variant: str, namespace: Namespace, tools: Tools) -> None:
        self.family = family
        self._variant = variant
        self._namespace = namespace
        self._tools = tools
        self._program("restore --noflush --counters", foreign.RULES)

    def backend(self):
        return DATA_PATHS[f"iptables-{self._variant}"](self._namespace, self.family)

    def foreign(self):
        lines = [line for line in self._program("save -c").splitlines() if line[0] in ":["]
        return tuple(line for line in lines if not is_ours(line))

    def meddle(self):
        table = "*nat\n-F KPROXY-SERVICES\n-D POSTROUTING 1\nCOMMIT\n"
        self._program("restore --noflush", table)

    def refusals(self):
        for call in range(1, RESTORES_OF_A_COMMIT + 1):
            yield self._refused(call)

    @contextlib.contextmanager
    def _refused(self, call):
        self._tools.forget()
        self._tools.at(call, REFUSE)
        yield self.backend()
        self._tools.forget()

    def _program(self, rest, text=""):
        command = f"{STEM[self.family]}-{self._variant}-{rest}".split()
        path = os.environ["PATH"].removeprefix(f"{self._tools.folder}:")
        return subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": path},
        ).stdout


class TestIptables(BackendContract):
    @pytest.fixture
    def rig(self, family, variant, tmp_path, monkeypatch):
        tools = Tools(tmp_path / "tools", variant)
        monkeypatch.setenv("PATH", f"{tools.folder}:{os.environ['PATH']}")
        monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
        namespace = Namespace("rig")
        with namespace.entered():
            yield IptablesRig(family, variant, namespace, tools)
        namespace.close()
