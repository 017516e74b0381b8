"""That running containers leaves nothing behind on this machine."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.deploy.image.pods import Pod
from tests.deploy.pod_template import Container
from tests.support.net.namespace import Namespace
from tests.support.waiting import LONGEST_S, until

# Building the image from nothing does not count.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120, func_only=True)]

# Others on this machine may run the same tests at the same moment.
_WAITING = f": {uuid.uuid4()}; trap 'exit 7' TERM; echo waiting; while :; do sleep 0.05; done"
WAITS = Container(
    name="waits",
    image="kproxy",
    argv=("sh", "-c", _WAITING),
    env={},
    mounts=(),
    privileged=False,
    capabilities=frozenset(),
    read_only_root=False,
    may_gain_privileges=False,
)


@pytest.fixture
def pod(image, tmp_path):
    nowhere = Namespace("nowhere")
    pod = Pod(image, tmp_path, host=nowhere, volumes={})
    yield pod
    pod.close()
    nowhere.close()


def test_a_container_that_ends_leaves_nothing(pod, tmp_path):
    container = pod.start(WAITS)
    container.wait_for("waiting")
    # Two at the moment when the shell has forked, and the child is not `sleep` yet.
    assert processes(_WAITING), "or the check below cannot fail"

    assert container.stop() == 7

    assert left(tmp_path) == []


def test_a_container_that_is_still_there_at_the_end_leaves_nothing(pod, tmp_path):
    pod.start(WAITS).wait_for("waiting")

    pod.close()

    assert left(tmp_path) == []


def test_a_container_that_is_closed_before_the_runtime_knows_it_leaves_nothing(pod, tmp_path):
    pod.start(WAITS).close()

    assert left(tmp_path) == []


def test_a_container_that_is_closed_while_it_is_made_leaves_nothing(pod, tmp_path):
    container = pod.start(WAITS)
    until(lambda: any(tmp_path.glob("*/state/*")), within_s=LONGEST_S, what="it is known")

    container.close()

    assert left(tmp_path) == []


def left(folder):
    """Return what is left of a test's containers: processes, mounts, cgroups, crun's state."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    cgroups = Path("/sys/fs/cgroup").rglob("kproxy-container-*")
    state = folder.rglob("state/*")
    return [
        *processes(_WAITING),
        *(line for line in mounts if str(folder) in line),
        *map(str, (*cgroups, *state)),
    ]


def processes(word):
    """Return the processes that have this word in their command line."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = each.read_bytes()
        except OSError:
            continue  # it has ended
        if word.encode() in command.split(b"\0"):
            found.append(each.parent.name)
    return found
