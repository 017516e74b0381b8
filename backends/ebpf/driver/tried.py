"""Which programs passed their trial on this kernel: noted beside the bytecode, for later starts.

Nothing is pinned after a boot, so without a note each would verify all programs twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from backends.ebpf.unit import Unit, encode

log = logging.getLogger(__name__)

_TRIALS = "*trial*.py"  # what they are like: a note of other ones says nothing


def unless_tried(folder: Path, units: Sequence[Unit], trial: Callable[[], None]) -> None:
    """Do a trial unless the folder knows that the same one went well, and note it if it does.

    The same: of these programs, on this build of the kernel. Raises what the trial raises.
    """
    note = folder / f"tried-{_digest(units)}"
    if note.exists():
        return
    trial()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.touch(mode=0o600)
    except OSError as error:
        log.debug("%s is not written, so programs are tried again after a boot: %s", note, error)


def _digest(units: Sequence[Unit]) -> str:
    digest = hashlib.sha256()
    for part in _parts(units):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _parts(units: Sequence[Unit]) -> Iterator[bytes]:
    kernel = os.uname()
    for text in (kernel.release, kernel.version, kernel.machine):
        yield text.encode()
    for unit in units:
        yield encode(unit)
    for source in sorted(Path(__file__).parent.glob(_TRIALS)):
        yield source.read_bytes()
