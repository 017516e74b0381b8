"""Removing everything that kproxy put into the kernel."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from pathlib import Path

import msgspec

from kproxy.config.fields import Configuration
from kproxy.core.addresses import Family
from kproxy.node import lock as node_lock
from kproxy.node.features import has_net_admin
from kproxy.ports.data_path import BackendError
from kproxy.proxy.data_paths import DATA_PATHS, data_path
from kproxy.proxy.failures import Failed

_PAUSE_S = 0.5


def remove_everything(configuration: Configuration) -> list[str]:
    """Clean up after every data path; return what to tell of it, a line for each family.

    The configuration says where they were, whatever its mode is. What is not kproxy's stays as it
    is. Raises Failed with a line for each thing that could not be removed, and removes nothing
    where a kproxy runs.
    """
    if not has_net_admin(Path("/proc/self/status").read_text()):
        raise Failed("needs CAP_NET_ADMIN to change the kernel's rules: run it as root")
    told: list[str] = []
    try:
        lock = node_lock.take(told.append, lambda: time.sleep(_PAUSE_S), wait=False)
    except node_lock.Held as error:
        raise Failed(str(error)) from error
    with closing(lock) if lock else nullcontext():
        errors = _remove(configuration, told)
    if errors:
        raise Failed(*told, *errors)
    return told


def _remove(configuration: Configuration, told: list[str]) -> list[str]:
    """Clean up after every data path; add what there was to `told`, return what went wrong."""
    errors: list[str] = []
    for mode in DATA_PATHS:
        path = data_path(msgspec.structs.replace(configuration, mode=mode))
        for family in Family:
            try:
                removed = path.clean_up(family)
            except BackendError as error:
                errors.append(f"{mode.value} {family.value}: {error}")
            else:
                told.append(f"{mode.value} {family.value}: removed {removed} kernel objects")
    return errors
