"""Trying rules where they cannot hurt: in a network namespace that lasts as long as a thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from backends.kernel.xtables import tools
from backends.kernel.xtables.parts import F, Part
from backends.kernel.xtables.tools import Variant
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError

_CLONE_NEWNET = 0x40000000  # linux/sched.h


def refusals(
    family: Family,
    variant: Variant,
    trials: Iterable[Part[F]],
    make_sets: Callable[[Family], None],
) -> dict[Part[F], str]:
    """Return the parts whose rules this host refuses, each with the reason.

    `make_sets` makes what they name. The kernel may load modules for them, as it would for real
    rules. Raises BackendError if there can be no namespace or no set.
    """

    def work() -> dict[Part[F], str]:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            reason = os.strerror(ctypes.get_errno())
            raise BackendError("making a network namespace", reason, transient=False)
        make_sets(family)
        return dict(_refused(family, variant, trials))

    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(work).result()


def _refused(
    family: Family, variant: Variant, trials: Iterable[Part[F]]
) -> Iterable[tuple[Part[F], str]]:
    for trial in trials:
        rule = f"-A KPROXY-TRIAL {trial.rule}"
        try:
            tools.restore(
                family, variant, [f"*{trial.table}", ":KPROXY-TRIAL - [0:0]", rule, "COMMIT"]
            )
        except BackendError as error:
            yield trial, error.detail
