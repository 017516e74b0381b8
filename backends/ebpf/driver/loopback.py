"""The loopback device, as the node's own connections need it.

Their packets come back to the node through it with an address of the node's as source, or one of
127.0.0.0/8: accept_local and route_localnet let them in there, and on no other device. A packet
from outside never comes in by it, so that this opens nothing. IPv6 has no such settings.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from backends.ebpf.places import family_folder
from backends.kernel import sysctl
from kproxy.core.addresses import Family


class Loopback:
    """Turns the settings on, and off again what was off. Any call may raise BackendError.

    Folders below the BPF file system `root` remember what was off: they outlive the agent as
    programs do, and no longer.
    """

    def __init__(self, family: Family, root: Path) -> None:
        self._settings = sysctl.LOOPBACK_SETTINGS if family is Family.IPV4 else ()
        self._notes = family_folder(root, family) / "loopback"

    def open(self) -> int:
        """Turn on what is off; return how many settings that were."""
        off = [setting for setting in self._settings if not sysctl.loopback(setting)]
        for setting in off:
            self._note(setting).mkdir(parents=True, exist_ok=True)
            sysctl.set_loopback(setting, "1")
        return len(off)

    def close(self) -> int:
        """Turn off what we turned on; return how many settings that were."""
        noted = [setting for setting in self._settings if self._note(setting).exists()]
        for setting in noted:
            sysctl.set_loopback(setting, "0")
            self._note(setting).rmdir()
        with suppress(OSError):  # it was not there
            self._notes.rmdir()
        return len(noted)

    def _note(self, setting: str) -> Path:
        return self._notes / setting
