"""Debian's kernel for the virtual machine: where it is, and how it comes from its package.

`python -m tests.support.vm.kernel` fetches it if it is missing. The package is unpacked and not
installed: that would make an initial RAM disk and a boot entry on this machine. The one that was
fetched stays; the newest comes once its folder in the cache is removed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.support.commands import output_of
from tests.support.fetched import Unavailable, exit_code, kept

_META_PACKAGE = "linux-image-amd64"
_LONGEST_S = 300


def find() -> Path:
    """Return the file of the kernel, whose modules are beside it. Raises Unavailable."""
    for image in _folder().glob("boot/vmlinuz-*"):
        return image
    raise Unavailable("Debian's kernel is not here yet: run `make programs`")


def fetch() -> None:
    """Get the kernel if it is missing; it appears as a whole. Raises Unavailable."""
    try:
        find()
    except Unavailable:
        print(f"fetching Debian's kernel from its package {_META_PACKAGE} (70 MB)", flush=True)
    else:
        return
    to = _folder()
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        try:
            _unpack(Path(folder))
        except AssertionError as error:
            raise Unavailable(f"Debian's kernel cannot be fetched: {error}") from error
        Path(folder, "content").rename(to)


def _unpack(folder: Path) -> None:
    depends = output_of("apt-cache", "depends", _META_PACKAGE, timeout_s=_LONGEST_S)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    assert found is not None, f"{_META_PACKAGE} depends on no kernel: {depends}"
    output_of("apt-get", "download", "-qq", found[1], cwd=folder, timeout_s=_LONGEST_S)
    (package,) = folder.glob("*.deb")
    content = folder / "content"
    output_of("dpkg-deb", "--extract", package, content, timeout_s=_LONGEST_S)
    (modules,) = content.glob("lib/modules/*")
    output_of("depmod", "--basedir", content, modules.name, timeout_s=_LONGEST_S)


def _folder() -> Path:
    return kept("debian-kernel")


if __name__ == "__main__":
    sys.exit(exit_code(fetch))
