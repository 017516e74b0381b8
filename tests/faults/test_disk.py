"""No disk has room for one more byte: forwarding needs none."""

from __future__ import annotations

import pytest

from tests.faults.cluster import both
from tests.faults.node import REFUSED
from tests.faults.waiting import until
from tests.net.plan import NODE, POD1, POD2, POD3
from tests.packets.objects import port

pytestmark = pytest.mark.kernel

IN_FORCE_WITHIN_S = 10.0

# Every place for temporary and runtime files is full, the rest cannot be written, and so is what
# the log goes to. The test's own folder is put back, for it holds the manifests.
FULL = """
folder=$1
shift
mount --bind $folder /mnt && mount -o remount,bind,ro / || exit 9
for place in /tmp /var/tmp /run /dev/shm; do
    mount -t tmpfs -o size=4k none $place || exit 9
done
mkdir -p $folder && mount --bind /mnt $folder || exit 9
for place in /tmp /var/tmp /run /dev/shm; do
    head -c 4096 /dev/zero >$place/full
    echo more 2>/dev/null >>$place/full && exit 9
done
cd /tmp
export XTABLES_LOCKFILE=/run/xtables.lock
exec "$@" >/dev/full 2>&1
"""


def web(*endpoints: str):
    return both("web", "10.96.0.20", *endpoints, ports=(port(80, node_port=30020),))


def test_changes_are_still_applied(node):
    node.manifests.put("web", web(POD1))
    proxy = node.start(prefix=("unshare", "--mount", "sh", "-c", FULL, "sh", str(node.folder)))
    for endpoints in ((POD1,), (POD2, POD3), (), (POD1,)):
        node.manifests.put("web", web(*endpoints))
        wanted = frozenset(endpoints or {REFUSED})
        answers = {"10.96.0.20:80": wanted, f"{NODE}:30020": wanted}
        until(
            lambda answers=answers: node.answers(answers) == [],
            within_s=IN_FORCE_WITHIN_S,
            what=f"{endpoints} are in force",
        )
    proxy.stop()
    assert node.answers(answers) == []
