"""Where things of ours are, below a BPF file system."""

from __future__ import annotations

from pathlib import Path

from kproxy.core.addresses import Family

_OURS, _SHARED = "kproxy", "gate"


def family_folder(root: Path, family: Family) -> Path:
    """Return where a family's pins are."""
    return root / _OURS / family.name.lower()


def shared_folder(root: Path) -> Path:
    """Return where pins are that families share."""
    return root / _OURS / _SHARED


def hooks(root: Path, family: Family) -> Path:
    """Return where the links of socket hooks are pinned."""
    return family_folder(root, family) / "hooks"


def in_force(root: Path, family: Family) -> Path:
    """Return the folder that is there while the programs are to take new connections.

    It says that all was attached once, with the table already written.
    """
    return family_folder(root, family) / "in-force"


def is_empty(root: Path) -> bool:
    """Say whether no family has pins there, so that no run left any."""
    return not any(family_folder(root, each).is_dir() for each in Family)
