"""Removing everything of ours, and nothing else: no compiler and no program is needed for it."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock

from backends.ebpf import places
from backends.ebpf.driver import (
    attach,
    device_layout,
    forwarding,
    gate,
    hooks,
    host,
    loader,
)
from backends.ebpf.driver.loopback import Loopback
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

log = logging.getLogger(__name__)

# The last family to leave removes what all share, and must know that it is the last.
_one_family = Lock()


def clean_up(family: Family, root: Path) -> int:
    """Detach and unpin all programs of a family; return how many kernel objects there were.

    What is attached goes before what it calls, and the rule that lets packets through last; what
    families share goes with the last of them. Raises BackendError.
    """
    removed = 0
    with _one_family:
        if is_here(family, root):
            removed += hooks.remove(places.hooks(root, family))
            removed += gate.leave(root, family) + attach.remove_own_links(root, family)
            removed += _close_loopback(family, root)
            removed += loader.unload(places.family_folder(root, family))
    return removed + forwarding.remove(family)


def _close_loopback(family: Family, root: Path) -> int:
    """Turn off what was turned on for loopback; a container may not, and nothing else waits."""
    try:
        return Loopback(family, root).close()
    except BackendError as error:
        log.warning("%s: %s; going on without", family.value, error)
        return 0


def is_here(family: Family, root: Path) -> bool:
    """Say whether a folder of ours below a BPF file system is this network namespace's.

    Containers may share the file system of their machine, and not its network.
    """
    if not places.family_folder(root, family).is_dir():
        return False
    settings = loader.published_map(root, family, "host")
    if settings is None:
        return True  # it was made and never published: nothing of it is attached
    with settings:
        found = device_layout.parse_host(settings.lookup(device_layout.ONLY) or b"")
    return found.netns_cookie in (0, host.netns_cookie())
