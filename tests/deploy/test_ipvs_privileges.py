"""The process with exactly what the manifests give its container, on a kernel with ipvs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from backends.ipvs.path import IpvsPath
from kproxy.core.addresses import Family
from kproxy.core.compile import Compiler
from kproxy.core.settings import Settings
from tests.deploy.pod_template import pod_template
from tests.deploy.shipped import BASE
from tests.support.cli import manifests, spawn
from tests.support.commands import output_of
from tests.support.ipvs.options import PLAIN
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S

__all__ = ["manifests", "spawn"]

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespace")]

ENDPOINT = "0A010009:1F90"  # 10.1.0.9:8080, as the kernel prints it
# What the runtime does to /proc/sys, and a container's own /lib/modules: nothing is there.
CONFINED = """
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs none /lib/modules
exec "$@"
"""
SAID_WITHOUT = {
    "NET_ADMIN": "needs CAP_NET_ADMIN",
    "NET_RAW": "rules that name ipsets need CAP_NET_RAW",
}


@pytest.fixture
def namespace():
    """Run the test in a network namespace of its own."""
    made = Namespace("node")
    with made.entered():
        output_of("ip", "link", "set", "lo", "up", timeout_s=LONGEST_S)
        yield
    made.close()


@pytest.fixture
def once(spawn, manifests):
    """Run the proxy once with these capabilities; return its exit code and what it said."""

    def run(capabilities):
        asked = ",".join(["-all", *(f"+{name.lower()}" for name in sorted(capabilities))])
        least = ("setpriv", f"--bounding-set={asked}", f"--inh-caps={asked}", "--no-new-privs")
        prefix = ("unshare", "--mount", "sh", "-euc", CONFINED, "sh", *least)
        words = ("run", "--manifests", manifests, "--node-name", "node-1", "--proxy-mode", "ipvs")
        process = spawn(*words, "--once", prefix=prefix)
        stderr = process.communicate(timeout=LONGEST_S)[1].decode()
        return process.returncode, stderr

    return run


def granted():
    """Return the capabilities of the proxy's container."""
    text = (BASE / "daemonset.yaml").read_text()
    (proxy,) = pod_template(yaml.safe_load(text), {"spec.nodeName": "node-1"}).main
    assert not proxy.privileged
    return proxy.capabilities


def test_after_the_init_container_the_proxy_lacks_nothing(once):
    path = IpvsPath(PLAIN)
    for family, table in Compiler(Settings("node-1")).tables.items():
        assert path.prepare(family, table.rules) > 0
        assert path.prepare(family, table.rules) == 0

    code, said = once(granted())

    assert code == 0, said
    assert "Read-only file system" not in said
    assert ENDPOINT in Path("/proc/thread-self/net/ip_vs").read_text()
    assert sum(path.clean_up(family) for family in Family) > 0


@pytest.mark.parametrize("missing", SAID_WITHOUT)
def test_it_has_no_capability_that_it_could_do_without(once, missing):
    code, said = once(granted() - {missing})

    assert code == 1
    assert SAID_WITHOUT[missing] in said


def test_it_has_no_other_capabilities():
    """Whoever adds one shows above what it is good for."""
    assert granted() == set(SAID_WITHOUT)
