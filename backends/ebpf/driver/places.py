"""Where things of a family are, below the BPF file system, beside what the loader has there."""

from __future__ import annotations

from pathlib import Path

from backends.ebpf.driver import loader
from kproxy.core.addresses import Family


def hooks(root: Path, family: Family) -> Path:
    """Return where the links of socket hooks are pinned."""
    return loader.family_folder(root, family) / "hooks"


def in_force(root: Path, family: Family) -> Path:
    """Return the folder that is there while the programs are to take new connections.

    It says that all was attached once, with the table already written.
    """
    return loader.family_folder(root, family) / "in-force"
