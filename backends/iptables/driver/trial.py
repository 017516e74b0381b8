"""Trying rules where they cannot hurt: in a network namespace that lasts as long as a thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from backends.iptables.driver.parts import SET, Part
from backends.iptables.render.rules import AffinitySet
from backends.kernel import ipset
from backends.kernel.xtables import tools
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_CLONE_NEWNET = 0x40000000  # linux/sched.h


def refusals(family: Family, variant: Variant, trials: Iterable[Part]) -> dict[Part, str]:
    """Return the parts whose rules this host refuses, each with the reason.

    The kernel may load modules for them, as it would for real rules. Raises BackendError if
    there can be no namespace or no ipset.
    """
    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(_refusals, family, variant, trials).result()


def _refusals(family: Family, variant: Variant, trials: Iterable[Part]) -> dict[Part, str]:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        raise BackendError("making a network namespace", reason, transient=False)
    for reason in ipset.ensure([AffinitySet(SET, family, 1)]).values():
        raise BackendError("making an ipset", reason, transient=False)
    refused = {}
    for trial in trials:
        rule = f"-A KPROXY-TRIAL {trial.rule}"
        try:
            tools.restore(
                family, variant, [f"*{trial.table}", ":KPROXY-TRIAL - [0:0]", rule, "COMMIT"]
            )
        except BackendError as error:
            refused[trial] = error.detail
    return refused
