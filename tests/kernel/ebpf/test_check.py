"""What the check of the host says, on this kernel and with places that are none."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from backends.ebpf import compiler
from backends.ebpf.check import check
from backends.ebpf.driver.gate import Gate
from backends.ebpf.driver.opening import open_backend
from backends.ebpf.options import EbpfOptions, SocketHooks
from backends.kernel.bpf import kfuncs
from backends.kernel.cgroup import root
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.net.namespace import Namespace

pytestmark = pytest.mark.kernel

USUAL = EbpfOptions(
    bpffs=Path("/sys/fs/bpf"),
    cache=Path("/nonexistent"),
    cgroup=None,
    socket_hooks=SocketHooks.ALL,
    service_entries=1024,
    flow_entries=1024,
    affinity_entries=1024,
    masquerade_bit=14,
    take_over=False,
)


@pytest.fixture(params=Family, ids=lambda family: family.value)
def family(request):
    return request.param


@pytest.fixture
def found(family, bpffs):
    """Return what is found with some options, by subject, in a namespace without any route."""
    namespace = Namespace("node")

    def look(**options):
        with namespace.entered():
            findings = check(family, dataclasses.replace(USUAL, **{"bpffs": bpffs, **options}))
        assert all(finding.ok or finding.remedy for finding in findings)
        return {finding.subject: finding for finding in findings}

    yield look
    namespace.close()


def missing(findings):
    return {subject for subject, finding in findings.items() if not finding.ok}


def test_here_everything_is_there_but_a_route(found):
    findings = found()
    assert missing(findings) == {"default route"}
    assert not findings["default route"].blocking
    assert findings["programs on devices"].detail.startswith("by ")


def test_a_folder_is_no_bpf_file_system_and_no_group(found, tmp_path):
    findings = found(bpffs=tmp_path, cgroup=tmp_path)
    assert missing(findings) == {"default route", "BPF file system", "cgroup v2"}
    assert f"mount -t bpf bpf {tmp_path}" in findings["BPF file system"].remedy
    assert f"{tmp_path} is no group of version 2" in findings["cgroup v2"].remedy


def test_a_start_names_the_group_that_is_none(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BackendError, match=f"{place} is no group of version 2.*--ebpf-cgroup"):
            open_backend(Family.IPV4, dataclasses.replace(USUAL, cgroup=place), Gate(USUAL.bpffs))


def test_a_kernel_that_does_not_tell_what_it_tracks_is_said_and_costs_nothing_else(
    found, bpffs, bytecode, monkeypatch, caplog
):
    monkeypatch.setattr(kfuncs, "offered", lambda _: {})
    noted = found()["connection tracking"]
    assert (noted.ok, noted.blocking) == (False, False)
    assert "bpf_skb_ct_lookup" in noted.detail
    assert "modprobe nf_conntrack" in noted.remedy

    wanted = dataclasses.replace(USUAL, bpffs=bpffs, cache=bytecode, socket_hooks=SocketHooks.OFF)
    open_backend(Family.IPV4, wanted, Gate(bpffs)).close()
    (said,) = [each.getMessage() for each in caplog.records if "nf_conntrack" in each.getMessage()]
    assert said.startswith("IPv4: the kernel has no bpf_ct_change_timeout, bpf_ct_release, bpf_skb")


@pytest.mark.parametrize("hooks", SocketHooks)
def test_what_only_pods_need_is_noted_where_hooks_serve_pods(found, monkeypatch, hooks):
    few = 1 << 12 | 1 << 38 | 1 << 39  # NET_ADMIN, PERFMON and BPF
    monkeypatch.setattr("backends.ebpf.check._effective", lambda: few)
    findings = found(socket_hooks=hooks)
    assert findings["capabilities"].ok
    if hooks is SocketHooks.ALL:
        noted = findings["socket hooks of pods"]
        assert not noted.ok
        assert not noted.blocking
        assert "CAP_SYS_ADMIN, CAP_SYS_PTRACE not held" in noted.detail
    else:
        assert "socket hooks of pods" not in findings


def test_a_group_is_needed_for_hooks_alone(found, cgroup, tmp_path):
    assert found(cgroup=cgroup)["cgroup v2"].ok
    assert "cgroup v2" not in found(cgroup=tmp_path, socket_hooks=SocketHooks.OFF)


def test_without_compiled_programs_a_compiler_and_headers_are_needed(found, tmp_path, monkeypatch):
    (tmp_path / "some.bpf.c").write_text("")
    monkeypatch.setattr(compiler, "SOURCES", tmp_path)
    assert found()["programs"].detail == "to be compiled at the first start"
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    assert "BCC_KERNEL_SOURCE" in found()["programs"].remedy
    monkeypatch.setattr(compiler, "BCC_VERSION", tmp_path / "none")
    assert "python3-bpfcc" in found()["programs"].remedy


def test_a_container_that_sees_its_own_group_as_the_root_is_told(tmp_path, cgroup, monkeypatch):
    """What `mount -t cgroup2` shows within a namespace of cgroups is the group of its maker."""
    line = f"30 20 0:26 / {cgroup} rw - cgroup2 cgroup2 rw\n"
    (tmp_path / "mountinfo").write_text(line)
    monkeypatch.setattr("backends.kernel.mounts._MOUNTS", tmp_path / "mountinfo")
    with pytest.raises(BackendError, match=f"{cgroup} is a group of its own"):
        root()
    (tmp_path / "mountinfo").write_text(line + f"31 20 0:26 / {cgroup.parent} rw - cgroup2 x rw\n")
    assert os.path.samefile(root(), cgroup.parent)
    (tmp_path / "mountinfo").write_text("")
    with pytest.raises(BackendError, match="not mounted"):
        root()
