"""Whether a network namespace translates on its own, as the sidecar of a service mesh makes it."""

from __future__ import annotations

from backends.kernel import nft
from backends.kernel.xtables import legacy
from kproxy.core.addresses import Family

_TABLE = "nat"
# Four chains' policies and the entry that ends every table.
_ENTRIES_WITHOUT_RULES = 5


def are_there(family: Family) -> bool:
    """Say whether nat chains of either variant hold rules for a family. Raises BackendError."""
    legacy_table = legacy.info(family, _TABLE)
    if legacy_table is not None and legacy_table.entries > _ENTRIES_WITHOUT_RULES:
        return True
    return nft.supported() and any(
        chain.entrance is not None and chain.entrance.kind == _TABLE and chain.uses
        for chain in nft.chains_of_either(family)
    )
