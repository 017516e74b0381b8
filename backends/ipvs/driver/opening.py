"""Opening the data path of one family: all that it needs is there, and nothing is written yet."""

from __future__ import annotations

import logging
from collections.abc import Callable

from backends.ipvs.driver import parts, policies, schedulers
from backends.ipvs.driver.backend import IpvsBackend, Parts
from backends.ipvs.driver.counters import Counters
from backends.ipvs.driver.link import ServiceLink, SharedLink
from backends.ipvs.driver.ours import OURS
from backends.ipvs.driver.owners import Owners
from backends.ipvs.driver.servers import Servers
from backends.ipvs.driver.sets import Sets
from backends.ipvs.driver.settings import NodeSettings
from backends.ipvs.options import IpvsOptions
from backends.ipvs.render.renderer import Renderer
from backends.ipvs.render.service_port import HASHING, Options
from backends.kernel import routing_rules
from backends.kernel.transactions import Transactions
from backends.kernel.xtables import variant
from backends.kernel.xtables.own_rules import OwnRules
from backends.kernel.xtables.tools import Variant
from backends.kube_proxy import ipvs_leftovers
from kproxy.core.addresses import Family

log = logging.getLogger(__name__)


def open_backend(
    family: Family,
    options: IpvsOptions,
    *,
    chosen: Variant,
    link: SharedLink,
    transactions: Transactions,
) -> IpvsBackend:
    """Return the data path of a family, whose rules are written in a variant.

    `link` and `transactions` are shared with the other family's. Raises BackendError, also where
    the kernel lacks something.
    """
    schedulers.require(options.scheduler)
    policies.require(family)
    parts.require(family, chosen)
    routing_rules.require(family)
    hashes = options.scheduler == HASHING or not schedulers.missing(HASHING)
    renderer = Renderer(family, Options(options.scheduler, hashes))
    sets = Sets(family)
    owners = Owners(
        sets,
        wanted=renderer.has_frontend_at,
        left_by_kube_proxy=_left_by_kube_proxy(family, options),
        excluded=options.excluded,
    )
    servers = Servers(family, owners)
    return IpvsBackend(
        family,
        Parts(
            renderer=renderer,
            settings=NodeSettings(family, options),
            sets=sets,
            link=ServiceLink(family, link),
            servers=servers,
            rules=OwnRules(
                family=family,
                variant=chosen,
                ours=OURS,
                source=renderer,
                transactions=transactions,
            ),
            counters=Counters(chosen, servers, sets),
        ),
    )


def choose_variant(family: Family, options: IpvsOptions) -> Variant:
    """Return the variant of iptables to write rules in. Raises BackendError."""
    chosen = variant.choose(family, OURS, wanted=options.variant)
    log.info("%s: writing rules with iptables %s", family.value, chosen.value)
    return chosen


def _left_by_kube_proxy(family: Family, options: IpvsOptions) -> Callable[[], ipvs_leftovers.Tells]:
    """Return what looks which virtual servers kube-proxy left, if they are to be taken over."""
    if options.take_over:
        return lambda: ipvs_leftovers.made_by_kube_proxy(family)
    return lambda: ipvs_leftovers.made_by_nobody
