"""Places of a test's own in the kernel: a BPF file system, a control group, kept bytecode."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ebpf.place import cgroup_root
from tests.support.ebpf.sources import Sources


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system that nobody else sees the objects of; they go with it."""
    folder = tmp_path / "bpffs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty control group (v2), whose programs nobody meets but who enters it."""
    folder = cgroup_root() / f"kproxy-test-{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


@pytest.fixture(scope="session")
def bytecode() -> Path:
    """A folder that keeps what was compiled, for all tests on this machine."""
    return bytecode_folder()


@pytest.fixture
def sources(tmp_path: Path, bytecode: Path) -> Sources:
    """C that a test writes itself, compiled."""
    return Sources(tmp_path, bytecode)


def bytecode_folder() -> Path:
    """Return the folder that keeps what was compiled."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "kproxy", "ebpf")
