"""No disk has room for one more byte: forwarding needs none."""

from __future__ import annotations

import pytest

from tests.support.net.plan import NODE, POD1, POD2, POD3
from tests.support.node.cluster import both
from tests.support.node.node import REFUSED
from tests.support.node.proxy import ROOT
from tests.support.packets.objects import port
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.kernel


# Every place for temporary and runtime files is full, the rest cannot be written, and so is what
# the log goes to. The test's own folder is put back, for it holds the manifests and the BPF file
# system, which takes no room of a disk, and the program, for a checkout may be in such a place.
FULL = """
folder=$1 program=$2
shift 2
mount -t tmpfs none /mnt && mkdir /mnt/folder /mnt/program || exit 9
mount --rbind "$folder" /mnt/folder && mount -o remount,bind,ro / || exit 9
mount --bind "$program" /mnt/program && mount -o remount,ro /mnt || exit 9
for place in /tmp /var/tmp /run /dev/shm; do
    mount -t tmpfs -o size=4k none $place || exit 9
done
for each in folder program; do
    eval "place=\\$$each"
    mkdir -p "$place" && mount --rbind /mnt/$each "$place" || exit 9
done
for place in /tmp /var/tmp /run /dev/shm; do
    head -c 4096 /dev/zero >$place/full
    echo more 2>/dev/null >>$place/full && exit 9
done
cd /tmp
export XTABLES_LOCKFILE=/run/xtables.lock
exec "$@" >/dev/full 2>&1
"""

FULL_EVERYWHERE = ("unshare", "--mount", "sh", "-c", FULL, "sh")


def web(*endpoints: str):
    return both("web", "10.96.0.20", *endpoints, ports=(port(80, node_port=30020),))


def test_changes_are_still_applied(node):
    node.manifests.put("web", web(POD1))
    proxy = node.start(prefix=(*FULL_EVERYWHERE, str(node.folder), str(ROOT)))
    for endpoints in ((POD1,), (POD2, POD3), (), (POD1,)):
        node.manifests.put("web", web(*endpoints))
        wanted = frozenset(endpoints or {REFUSED})
        answers = {"10.96.0.20:80": wanted, f"{NODE}:30020": wanted}
        until(
            lambda answers=answers: node.answers(answers) == [],
            within_s=LONGEST_S,
            what=f"{endpoints} are in force",
        )
    proxy.stop()
    assert node.answers(answers) == []
