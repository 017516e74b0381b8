"""What the host offers to this data path."""

from __future__ import annotations

from collections.abc import Iterator

from backends.ipvs.driver import parts, policies, schedulers
from backends.ipvs.driver.ours import OURS
from backends.ipvs.driver.settings import TRACKING
from backends.ipvs.options import IpvsOptions
from backends.ipvs.render.service_port import HASHING
from backends.kernel import dummy_links, node, routing_rules
from backends.kernel.virtual_servers import NoIpvs, VirtualServers
from backends.kernel.xtables import findings
from backends.kernel.xtables.findings import Needs
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError, Finding

_AS_ROOT = "run as root on the node"


def check(family: Family, options: IpvsOptions) -> list[Finding]:
    """Return what was found, one line for each subject; a miss comes with its remedy.

    Where the kernel has no ipvs, that alone matters.
    """
    try:
        with VirtualServers("asking for ipvs"):
            found = [Finding("ip_vs", True, "usable")]
    except NoIpvs as error:
        return [Finding("ip_vs", False, error.REASON, error.REMEDY)]
    try:
        found += _kernel(family, options)
    except BackendError as error:
        found.append(Finding("ipvs", False, str(error), _AS_ROOT))
    needs = Needs(OURS, parts.parts(family), parts.make_trial_set, consequences={})
    return [
        *found,
        *findings.findings(family, needs, options.variant),
        node.forwarding(family),
        findings.bridge(family),
        node.default_route(family),
    ]


def _kernel(family: Family, options: IpvsOptions) -> Iterator[Finding]:
    yield _scheduler(options.scheduler, "")
    if options.scheduler != HASHING:
        consequence = (
            "no sessionAffinity for local pods and the node itself under externalTrafficPolicy "
            "Local"
        )
        yield _scheduler(HASHING, consequence)
    yield _tracking()
    yield _possible("dummy links", dummy_links.are_possible(), dummy_links.REMEDY)
    yield _possible("routing rules", routing_rules.are_possible(family), routing_rules.REMEDY)
    reason = policies.unenforced(family)
    yield Finding(
        "network policies",
        not reason,
        reason or "no engine is known to miss it",
        policies.REMEDY if reason else "",
    )


def _scheduler(name: str, consequence: str) -> Finding:
    """Return whether virtual servers can choose so; one is needed where nothing goes without it."""
    subject = f"scheduler {name}"
    reason = schedulers.missing(name)
    if not reason:
        return Finding(subject, True, "usable")
    detail = f"{reason}: {consequence}" if consequence else reason
    return Finding(subject, False, detail, schedulers.remedy(name), blocking=not consequence)


def _tracking() -> Finding:
    subject = TRACKING.name
    if TRACKING.exists():
        return Finding(subject, True, "on" if TRACKING.holds() else "off; kproxy turns it on")
    detail = "the kernel's ipvs knows no connection tracking (CONFIG_IP_VS_NFCT)"
    return Finding(subject, False, detail, "boot a kernel that has it")


def _possible(subject: str, possible: bool, remedy: str) -> Finding:
    return Finding(subject, possible, "usable" if possible else "the kernel has none", remedy)
