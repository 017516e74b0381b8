"""A BPF file system where there is none."""

from __future__ import annotations

import os
import subprocess

import pytest

from backends.kernel.bpf import bpffs
from kproxy.ports.data_path import BackendError

pytestmark = pytest.mark.kernel


def test_it_is_mounted_once_and_found_again(tmp_path):
    place = tmp_path / "here"
    place.mkdir()
    assert not bpffs.is_bpffs(place)
    try:
        assert bpffs.provide(place)
        assert bpffs.is_bpffs(place)
        assert not bpffs.provide(place)
        assert os.stat(place).st_mode & 0o777 == 0o700
    finally:
        subprocess.run(["umount", place], check=True)
    assert not bpffs.is_bpffs(place)


def test_a_folder_that_is_missing_is_named_with_the_remedy(tmp_path):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(
        BackendError,
        match=f"at {nowhere}: No such file.*mkdir -p {nowhere} && mount -t bpf bpf {nowhere}",
    ):
        bpffs.provide(nowhere)
