"""What a privileged process leaves behind for one that has CAP_NET_ADMIN alone.

In a container without privileges /proc/sys cannot be written. The rules themselves can, so only
the settings are prepared, and the guard without which route_localnet must not be on.
"""

from __future__ import annotations

from backends.iptables.driver.backend import IptablesBackend
from backends.iptables.driver.localnet import GUARD, GUARD_CHAIN
from backends.kernel.xtables.wording import jump_key, split_key
from kproxy.core.image import Changes, Key
from kproxy.core.table import NodeRules, TableChanges

_GUARD_JUMP = jump_key("filter", "INPUT", GUARD_CHAIN)


def prepare(backend: IptablesBackend, rules: NodeRules) -> int:
    """Put the settings in place; return how many kernel objects were missing.

    Rules of an earlier run stay as they are. Raises BackendError.
    """
    image = backend.render(TableChanges(backend.family, rules=rules))
    wanted = {key: value for key, value in image.items() if value is not None and _needed(key)}
    have = backend.observe()
    missing = {key: value for key, value in wanted.items() if have.get(key) != value}
    if missing:
        backend.commit(Changes(missing, frozenset()))
    return len(missing)


def _needed(key: Key) -> bool:
    return key in (GUARD, _GUARD_JUMP) or split_key(key)[0] == "sysctl"
