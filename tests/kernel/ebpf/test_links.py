"""Links to control groups and devices: order, change in place, and what the kernel tells."""

import os
import socket
import struct

import pytest

from backends.kernel.bpf import links, objects, programs
from backends.kernel.bpf.links import Order
from backends.kernel.bpf.programs import AttachType, Code, ProgramType
from backends.kernel.bpf.syscall import KernelRefusal
from tests.support import waiting
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel

LO = 1


def returning(number, type_, attach_type=0):
    body = struct.pack("=BBhiBBhi", 0xB7, 0, 0, number, 0x95, 0, 0, 0)
    return programs.load(Code(f"gives_{number}", type_, attach_type, body, {}), {})


@pytest.fixture
def namespace():
    made = Namespace("links")
    with made.entered():
        yield made
    made.close()


@pytest.fixture
def group(cgroup):
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def connect4(number):
    return returning(number, ProgramType.CGROUP_ADDRESS, AttachType.CONNECT4)


def test_a_link_to_a_control_group_is_told_changed_and_taken_off(group, cgroup):
    first, second = connect4(0), connect4(1)
    link = links.attach_to_cgroup(first, group, AttachType.CONNECT4)
    told = link.info()
    assert (told.program, told.attach_type) == (first.number, AttachType.CONNECT4)
    assert told.target == os.stat(cgroup).st_ino
    assert [each.program for each in attached(group)] == [first.number]

    link.update(second)
    assert [each.program for each in attached(group)] == [second.number]
    assert link.info() == told._replace(program=second.number)

    link.detach()
    assert attached(group) == ()
    assert link.info().target == 0


def attached(group):
    return links.attached(group, AttachType.CONNECT4).programs


def test_a_pinned_link_outlives_who_made_it(group, bpffs):
    link = links.attach_to_cgroup(connect4(1), group, AttachType.CONNECT4)
    objects.pin(link, bpffs / "connect4")
    link.close()
    assert len(attached(group)) == 1

    (bpffs / "connect4").unlink()
    # The kernel lets go of it once no CPU can be looking at the name any more.
    waiting.until(lambda: not attached(group), within_s=waiting.LONGEST_S, what="it is taken off")


def test_a_link_to_no_control_group_says_so(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(KernelRefusal, match=f"CONNECT4 to the control group {tmp_path}: EBADF"):
        links.attach_to_cgroup(connect4(1), folder, AttachType.CONNECT4)
    os.close(folder)


def test_links_to_a_device_run_in_the_order_that_was_asked_for(namespace):
    middle, first, last = (returning(n, ProgramType.TC) for n in (1, 2, 3))
    revision = links.attached(LO, AttachType.TCX_INGRESS).revision
    made = [
        links.attach_to_device(program, LO, AttachType.TCX_INGRESS, order)
        for program, order in ((middle, Order.AFTER), (first, Order.BEFORE), (last, Order.AFTER))
    ]
    seen = links.attached(LO, AttachType.TCX_INGRESS)

    assert [each.program for each in seen.programs] == [p.number for p in (first, middle, last)]
    assert [each.link for each in seen.programs] == [made[n].info().number for n in (1, 0, 2)]
    assert seen.revision > revision
    assert made[0].info().target == LO
    assert links.attached(LO, AttachType.TCX_EGRESS).programs == ()


def test_a_link_to_no_device_says_so(namespace):
    with pytest.raises(KernelRefusal, match="TCX_EGRESS to the device number 9999: E"):
        links.attach_to_device(
            returning(1, ProgramType.TC), 9999, AttachType.TCX_EGRESS, Order.AFTER
        )


def test_a_program_of_a_hook_decides(group, cgroup):
    """Of a child in the control group alone: it may not connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = links.attach_to_cgroup(connect4(0), group, AttachType.CONNECT4)
        assert connects_from(cgroup, server) is False
        link.update(connect4(1))
        assert connects_from(cgroup, server) is True
        link.close()


def connects_from(cgroup, server):
    child = os.fork()
    if not child:
        status = 2
        try:
            (cgroup / "cgroup.procs").write_text("0")
            with socket.socket() as client:
                status = int(client.connect_ex(server.getsockname()) != 0)
        finally:
            os._exit(status)
    return {0: True, 1: False}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
