"""Taking extensions away from the iptables programs, which really refuse their rules then."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_ALWAYS_THERE = "libxt_comment.so"

Hide = Callable[..., None]


def extensions_without(folder: Path, hidden: Collection[str]) -> None:
    """Fill a folder, for XTABLES_LIBDIR, with all installed extensions but some files."""
    places = [Path(each) / "xtables" for each in _FOLDERS]
    installed = next(each for each in places if (each / _ALWAYS_THERE).exists())
    for file in installed.iterdir():
        if file.name not in hidden:
            (folder / file.name).symlink_to(file)


@pytest.fixture
def hide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hide:
    """Return what hides files of extensions from programs that the test starts."""

    def hide(*names: str) -> None:
        folder = tmp_path / "extensions"
        folder.mkdir()
        extensions_without(folder, names)
        monkeypatch.setenv("XTABLES_LIBDIR", str(folder))

    return hide
