"""Kernel headers to compile with: those of any kernel from 6.1 on do."""

from __future__ import annotations

import itertools
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kproxy.ports.data_path import BackendError

_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64", "ppc64le": "powerpc", "s390x": "s390"}
_MODULES, _SOURCES = Path("lib/modules"), Path("usr/src")
_ARCHIVE = Path("sys/kernel/kheaders.tar.xz")
_REMEDY = (
    "install the headers of any kernel from 6.1 on (Debian: linux-headers-$(dpkg "
    "--print-architecture)), or set BCC_KERNEL_SOURCE to such a tree"
)


def find(folder: Path, environment: Mapping[str, str], root: Path = Path("/")) -> Path:
    """Return a kernel's source tree with all that a compiler needs.

    What has to be put together is kept in `folder`. Raises BackendError, with the remedy.
    """
    parts = locate(environment, root)
    if len(parts) > 1:
        return _kept(folder, "+".join(part.resolve().name for part in parts), parts)
    if parts[0].is_file():
        return _kept(folder, f"kheaders-{os.uname().release}", parts)
    return parts[0]


def locate(environment: Mapping[str, str], root: Path = Path("/")) -> list[Path]:
    """Return what makes a whole tree: a folder, halves of one, or the archive of the kernel.

    Raises BackendError, with the remedy.
    """
    doing = "looking for kernel headers"
    named = environment.get("BCC_KERNEL_SOURCE")
    if named:
        if not _whole([Path(named)]):
            detail = f"{named}, which BCC_KERNEL_SOURCE names, is not whole; {_REMEDY}"
            raise BackendError(doing, detail, transient=False)
        return [Path(named)]
    whole = next(filter(_whole, _candidates(root)), None)
    if whole:
        return whole
    archive = root / _ARCHIVE
    if not archive.exists():
        raise BackendError(doing, f"found none; {_REMEDY}", transient=False)
    return [archive]


def _candidates(root: Path) -> Iterator[list[Path]]:
    """Yield trees, and halves that make a tree: the running kernel's first, then newer ones."""
    running = root / _MODULES / os.uname().release
    others = sorted((root / _MODULES).glob("*"), key=_age, reverse=True)
    for modules in (running, *others):
        build, source = modules / "build", modules / "source"
        yield [build]
        yield [source, build]
    for tree in sorted((root / _SOURCES).glob("linux-headers-*"), key=_age, reverse=True):
        yield [tree]
        # Debian's halves: linux-headers-6.1.0-56-common and linux-headers-6.1.0-56-amd64.
        stem = tree.name.removesuffix("-common")
        if stem != tree.name:
            for half in (root / _SOURCES).glob(f"{stem}-*"):
                if half != tree:
                    yield [tree, half]


def _age(path: Path) -> list[tuple[int, str]]:
    """Return a key by which 6.10 comes after 6.9."""
    runs = itertools.groupby(path.name, str.isdigit)
    texts = ((digits, "".join(run)) for digits, run in runs)
    return [(int(text), "") if digits else (-1, text) for digits, text in texts]


def _whole(parts: Iterable[Path]) -> bool:
    arch = _ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    needed = (
        "include/linux/kconfig.h",
        "include/generated/autoconf.h",
        f"arch/{arch}/include/asm",
        f"arch/{arch}/include/generated/uapi/asm",
    )
    return all(any((part / name).exists() for part in parts) for name in needed)


def _kept(folder: Path, name: str, parts: list[Path]) -> Path:
    """Return the tree of this name in the folder, made of the parts if it is not there whole."""
    tree = folder / name
    if _whole([tree]):
        return tree
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
            new = Path(made) / name
            if parts[0].is_dir():
                _merge(parts, new)
            else:
                with tarfile.open(parts[0]) as archive:
                    archive.extractall(new)  # it is the kernel's own
            shutil.rmtree(tree, ignore_errors=True)  # it points at what was uninstalled
            try:
                new.rename(tree)
            except OSError:
                if not _whole([tree]):  # else another process was quicker
                    raise
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        doing = f"putting kernel headers into {tree}"
        raise BackendError(doing, str(error), transient=True) from error
    return tree


def _merge(parts: list[Path], tree: Path) -> None:
    """Make a tree of links to what is in the parts, folders in several of them merged."""
    tree.mkdir(parents=True)
    found: dict[str, list[Path]] = {}
    for part in parts:
        for each in part.iterdir():
            found.setdefault(each.name, []).append(each)
    for name, places in found.items():
        folders = [place for place in places if place.is_dir()]
        if len(folders) > 1:
            _merge(folders, tree / name)
        else:
            (tree / name).symlink_to(places[-1].resolve())
