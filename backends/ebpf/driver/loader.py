"""Versions of the programs below the BPF file system: made beside, published by one rename.

    <bpffs>/kproxy/<name>/current/maps/…, programs/…, version-<digest>/
                          next/           one that is being made, or was in force until now
                          former-<n>/     what others may still run

The names are those of the families, and that of what they share (gate.py).

A version holds all that its programs need. Maps of the same shape go over into the next version,
and with them the flows in them; into maps with another number of entries what connections need is
copied. Who gives a map's bytes another meaning gives it another name, or its values another size.
The folder beside `current` is no more than a wish until the rename, and no more than a memory after
it; it goes when `retire` says that nothing runs of it any more.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from backends.ebpf.driver import carrying
from backends.ebpf.driver.objects import Objects, may_be_carried_over, shapes
from backends.ebpf.places import family_folder
from backends.ebpf.unit import Unit, encode
from backends.kernel.bpf import bpffs, kfuncs, maps, objects, programs
from backends.kernel.bpf.maps import Map, Shape
from backends.kernel.bpf.syscall import Descriptor, KernelRefusal
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_CURRENT, _NEXT, _FORMER = "current", "next", "former-"
_MAPS, _PROGRAMS = "maps", "programs"


class Version:
    """The maps and programs of a folder, from `open_version` until `close`.

    `is_published`: it is the one in force; else `publish` makes it that.
    """

    def __init__(self, folder: Path, units: Sequence[Unit], digest: str, *, held: Objects) -> None:
        self.maps = held.maps
        self.programs = held.programs
        self.is_published = False
        self._caught_up = False
        self._folder = folder
        self._units = units
        self._digest = digest
        self._held = held

    def publish(self) -> None:
        """Put the version in the place of the one in force, in one step. Raises BackendError.

        What is attached stays so: whoever attached it exchanges the programs now, then `retire`
        removes what nobody runs any more.
        """
        if self.is_published:
            return
        current, following = self._folder / _CURRENT, self._folder / _NEXT
        with _refused(f"publishing {current}"):
            if current.exists():
                self._take_over(current)
                bpffs.exchange(following, current)
                self.is_published = True
                _set_aside(self._folder)
            else:
                following.rename(current)
                self.is_published = True

    def catch_up(self) -> None:
        """Take over the connections that former programs opened while this version was published.

        Packets meet programs of this version by now. Raises BackendError.
        """
        with _refused(f"taking over connections below {self._folder}"):
            for former in self._folder.glob(f"{_FORMER}*"):
                self._take_over(former)
        self._caught_up = True

    def retire(self) -> int:
        """Remove versions that were in force before, or never were; return how many pins.

        Not before every program that is attached is one of this version: the maps through which
        the old ones call their stages end with them. Raises BackendError.
        """
        if not self._caught_up:  # whoever published it ended before that
            self.catch_up()
        with _refused(f"removing former versions below {self._folder}"):
            return sum(bpffs.remove(each) for each in self._folder.glob(f"{_FORMER}*"))

    def mend(self) -> int:
        """Pin again what somebody unpinned or replaced, and put stages and constants right.

        Returns how much there was to do: 0 unless somebody else was here, or before `publish`.
        Raises BackendError.
        """
        if not self.is_published:
            return 0
        current = self._folder / _CURRENT
        with _refused(f"mending {current}"):
            _make_folders(current)
            mended = sum(_pin(each, path) for path, each in self._pins(current))
            _marker(current, self._digest).mkdir(exist_ok=True)
        mended += self._held.fill_constants()
        return mended + sum(self._held.fill_stages(unit) for unit in self._units)

    def close(self) -> None:
        """Let go of the descriptors; what is published or attached stays."""
        self._held.close()

    def write(self) -> None:
        """Pin everything into the folder of the next version, the digest last."""
        following = self._folder / _NEXT
        _make_folders(following)
        for path, each in self._pins(following):
            objects.pin(each, path)
        _marker(following, self._digest).mkdir()

    def _take_over(self, version: Path) -> None:
        """Copy what connections need out of another version's maps, where they are not ours."""
        for name in carrying.MAPS & self.maps.keys():
            former = _opened(version / _MAPS / name)
            if former is None:
                continue
            with former:
                if not objects.is_same(former, self.maps[name]):
                    carrying.copy(former, self.maps[name])

    def _pins(self, folder: Path) -> Iterator[tuple[Path, Descriptor]]:
        for name, table in self.maps.items():
            yield folder / _MAPS / name, table
        for name, program in self.programs.items():
            yield folder / _PROGRAMS / name, program


def open_version(
    root: Path, folder: Path, units: Sequence[Unit], sizes: Mapping[str, int]
) -> Version:
    """Return the version that is in force if it is this one, else a new one, ready to publish.

    It is in a folder of ours below the BPF file system `root`. `sizes` are the numbers of entries
    by the names of maps, where the sources' shall not hold. Raises BackendError; of a program,
    VerifierRefusal. What is in force stays so in any case.
    """
    if not bpffs.is_bpffs(root):
        detail = f"it is no BPF file system; mount one: mount -t bpf bpf {root}"
        raise BackendError(f"pinning below {root}", detail, transient=False)
    wanted, digest = shapes(units, sizes), _digest(units)
    with _refused(f"making room below {folder}"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _set_aside(folder)
    version = _in_force(folder, units, wanted, digest)
    return version or _new(folder, units, wanted, digest)


def published_map(root: Path, family: Family, name: str) -> Map | None:
    """Open a map of the version in force without its programs; None where there is none.

    Raises KernelRefusal.
    """
    return map_in(family_folder(root, family), name)


def map_in(folder: Path, name: str) -> Map | None:
    """Open a map of the version in force in a folder; None where there is none.

    Raises KernelRefusal.
    """
    return _opened(folder / _CURRENT / _MAPS / name)


def is_published(root: Path, family: Family) -> bool:
    """Say whether a version is in force."""
    return (family_folder(root, family) / _CURRENT).is_dir()


def unload(folder: Path) -> int:
    """Remove every pin of a folder of ours; return how many there were. Raises BackendError."""
    with _refused(f"removing {folder}"):
        removed = bpffs.remove(folder)
        with contextlib.suppress(OSError):  # others are there, or nothing is
            folder.parent.rmdir()
    return removed


def _in_force(
    folder: Path, units: Sequence[Unit], wanted: Mapping[str, Shape], digest: str
) -> Version | None:
    """Return the version in force if it is the wanted one, and whole."""
    current = folder / _CURRENT
    if not _marker(current, digest).is_dir():
        return None
    held = Objects()
    for name, shape in wanted.items():
        table = _of_shape(current / _MAPS / name, shape)
        if table is None:
            held.close()
            return None
        held.hold_map(name, table)
    try:
        held.fill_constants()
        for unit in units:
            for name in unit.programs:
                held.hold_program(name, programs.pinned(current / _PROGRAMS / name))
            held.fill_stages(unit)
    except KernelRefusal as error:
        held.close()
        if error.number != errno.ENOENT:
            raise
        return None
    version = Version(folder, units, digest, held=held)
    version.is_published = True
    return version


def _new(folder: Path, units: Sequence[Unit], wanted: Mapping[str, Shape], digest: str) -> Version:
    """Make a version beside the one in force, with the maps of that in the same shape."""
    held = Objects()
    try:
        for name, shape in wanted.items():
            if may_be_carried_over(name):
                table = _of_shape(folder / _CURRENT / _MAPS / name, shape)
                if table is not None:
                    held.hold_map(name, table)
        held.make(units, wanted)
        version = Version(folder, units, digest, held=held)
        with _refused(f"pinning {folder / _NEXT}"):
            version.write()
    except BaseException:
        held.close()
        with contextlib.suppress(OSError):  # else the next start sets it aside
            bpffs.remove(folder / _NEXT)
        raise
    return version


def _of_shape(path: Path, shape: Shape) -> Map | None:
    """Open a map by its pin, if it is there and of this shape."""
    table = _opened(path)
    if table is not None and table.shape != shape:
        table.close()
        return None
    return table


def _opened(path: Path) -> Map | None:
    try:
        return maps.pinned(path)
    except KernelRefusal as error:
        if error.number != errno.ENOENT:
            raise
        return None


def _set_aside(folder: Path) -> None:
    """Keep what is beside the version in force until `retire`, as programs of it may run."""
    following = folder / _NEXT
    if not following.exists():
        return
    for number in itertools.count():
        former = folder / f"{_FORMER}{number}"
        if not former.exists():
            following.rename(former)
            return


def _make_folders(version: Path) -> None:
    for each in (version, version / _MAPS, version / _PROGRAMS):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)


def _pin(descriptor: Descriptor, path: Path) -> bool:
    """Pin an object unless it is pinned there; say whether there was something to do."""
    try:
        with objects.get(path) as there:
            if objects.is_same(there, descriptor):
                return False
        path.unlink()
    except KernelRefusal as error:
        if error.number != errno.ENOENT:
            raise
    objects.pin(descriptor, path)
    return True


def _marker(version: Path, digest: str) -> Path:
    return version / f"version-{digest}"


def _digest(units: Sequence[Unit]) -> str:
    """Return what tells versions apart: programs, and which functions of the kernel they get."""
    content = b"".join(encode(unit) for unit in units)
    names = kfuncs.offered(name for unit in units for name in unit.kfuncs)
    content += " ".join(sorted(names)).encode()
    return hashlib.sha256(content).hexdigest()[:32]


@contextmanager
def _refused(doing: str) -> Iterator[None]:
    """Tell of a file system's refusal as a data path does."""
    try:
        yield
    except OSError as error:
        raise KernelRefusal(doing, error.errno or errno.EIO) from error
