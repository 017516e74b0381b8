"""Which kernel headers are found, and how halves are put together."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from backends.ebpf import headers
from kproxy.ports.data_path import BackendError

COMMON = ("include/linux/kconfig.h", "arch/{arch}/include/asm/page.h", "include/linux/types.h")
GENERATED = (
    *("include/generated/autoconf.h", "arch/{arch}/include/generated/uapi/asm/types.h"),
    "include/config/auto.conf",
)
RUNNING = os.uname().release


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def plant(tree, *groups):
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    for name in (each.format(arch=arch) for group in groups for each in group):
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(file))
    return tree


def has_all(tree):
    names = ("include/linux/kconfig.h", "include/linux/types.h", "include/generated/autoconf.h")
    return all((tree / name).is_file() for name in names)


def test_the_tree_that_is_named_is_used(root, folder):
    tree = plant(root / "mine", COMMON, GENERATED)
    assert headers.find(folder, {"BCC_KERNEL_SOURCE": str(tree)}, root) == tree


def test_a_named_tree_that_is_a_half_is_refused_with_the_remedy(root, folder):
    plant(root / "usr/src/linux-headers-6.1.0-1", COMMON, GENERATED)
    half = plant(root / "half", COMMON)
    with pytest.raises(BackendError, match=r"half, which BCC_KERNEL_SOURCE names.*install the he"):
        headers.find(folder, {"BCC_KERNEL_SOURCE": str(half)}, root)


def test_a_whole_tree_is_used_where_it_is(root, folder):
    tree = plant(root / "lib/modules/6.1.0-9/build", COMMON, GENERATED)
    assert headers.find(folder, {}, root) == tree
    assert not folder.exists()


def test_the_running_kernel_comes_first_then_the_newest(root, folder):
    for release in ("66.9.0", "66.10.0", "66.1.0"):
        plant(root / "lib/modules" / release / "build", COMMON, GENERATED)
    assert headers.find(folder, {}, root) == root / "lib/modules/66.10.0/build"

    plant(root / "lib/modules" / RUNNING / "build", COMMON, GENERATED)
    assert headers.find(folder, {}, root) == root / "lib/modules" / RUNNING / "build"


@pytest.mark.parametrize("by_modules", [True, False])
def test_the_halves_of_a_distribution_are_put_together_once(root, folder, by_modules):
    where = root / ("opt" if by_modules else "usr/src")
    common = plant(where / "linux-headers-6.1.0-5-common", COMMON)
    half = plant(where / "linux-headers-6.1.0-5-amd64", GENERATED)
    for each in (common, half):
        plant(each, ("Makefile",))
    plant(root / "usr/src/linux-headers-6.0.0-1-common", COMMON)  # its other half went
    if by_modules:
        modules = root / "lib/modules/6.1.0-5-amd64"
        modules.mkdir(parents=True)
        (modules / "source").symlink_to(common)
        (modules / "build").symlink_to(half)
    tree = headers.find(folder, {}, root)

    assert tree.parent == folder
    assert has_all(tree)
    assert (tree / "Makefile").read_text() == str(half / "Makefile")
    made = tree.stat().st_ino
    assert headers.find(folder, {}, root).stat().st_ino == made
    assert [each.name for each in folder.iterdir()] == [tree.name]


def test_a_tree_of_links_to_what_was_uninstalled_is_made_anew(root, folder):
    common = plant(root / "old/linux-headers-6.1.0-5-common", COMMON)
    (root / "usr/src").mkdir(parents=True)
    installed = root / "usr/src/linux-headers-6.1.0-5-common"
    installed.symlink_to(common)
    plant(root / "usr/src/linux-headers-6.1.0-5-amd64", GENERATED)
    tree = headers.find(folder, {}, root)
    shutil.rmtree(common)
    assert not has_all(tree)
    with pytest.raises(BackendError, match="found none"):
        headers.find(folder, {}, root)

    installed.unlink()
    installed.symlink_to(plant(root / "new/linux-headers-6.1.0-5-common", COMMON))
    assert headers.find(folder, {}, root) == tree
    assert has_all(tree)


def test_two_processes_may_put_the_same_halves_together(root, folder, monkeypatch):
    plant(root / "usr/src/linux-headers-6.1.0-5-common", COMMON)
    plant(root / "usr/src/linux-headers-6.1.0-5-amd64", GENERATED)
    rename = Path.rename

    def slower(new, tree):
        shutil.copytree(new, tree, symlinks=True)
        rename(new, tree)

    monkeypatch.setattr(Path, "rename", slower)
    assert has_all(headers.find(folder, {}, root))
    assert len(list(folder.iterdir())) == 1


def test_the_archive_that_a_kernel_carries_is_unpacked(root, folder):
    tree = plant(root / "packed", COMMON, GENERATED)
    (root / "sys/kernel").mkdir(parents=True)
    with tarfile.open(root / "sys/kernel/kheaders.tar.xz", "w:xz") as archive:
        archive.add(tree, ".")
    found = headers.find(folder, {}, root)

    assert found == folder / f"kheaders-{RUNNING}"
    assert has_all(found)


def test_a_spoilt_archive_leaves_nothing_half(root, folder):
    (root / "sys/kernel").mkdir(parents=True)
    (root / "sys/kernel/kheaders.tar.xz").write_bytes(b"no archive")
    with pytest.raises(BackendError, match=r"putting kernel headers into .*kheaders-"):
        headers.find(folder, {}, root)
    assert list(folder.iterdir()) == []


def test_no_headers_at_all_are_an_error_with_the_remedy(root, folder):
    with pytest.raises(BackendError, match="found none; install the headers of any kernel") as no:
        headers.find(folder, {}, root)
    assert not no.value.transient
    assert "BCC_KERNEL_SOURCE" in str(no.value)
