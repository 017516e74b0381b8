"""Which service ports an object is made for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backends.iptables.render.dispatch import Dispatch
from backends.kernel.xtables.wording import split_key
from kproxy.core.image import Key
from kproxy.core.table import ServicePortKey


def owners(
    keys: Iterable[Key], own: Mapping[str, ServicePortKey], trees: Iterable[Dispatch]
) -> frozenset[ServicePortKey]:
    """Return whose objects these are; `own` tells that of chains and ipsets by name.

    Those alone whose own chains or sets are among them, if there are any; else all to which the
    chains of the trees lead.
    """
    names = {split_key(key)[-1] for key in keys}
    owning = frozenset(own[name] for name in names & own.keys())
    return owning or frozenset(
        own[target]
        for tree in trees
        for name in names
        if name in tree
        for rule in tree.chain(name)
        if (target := rule.split()[-1]) in own
    )
