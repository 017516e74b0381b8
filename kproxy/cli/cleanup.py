"""`kproxy cleanup`: removes everything that kproxy put into the kernel."""

from __future__ import annotations

from pathlib import Path

import click

from kproxy.backend import BackendError
from kproxy.cli.group import Failed
from kproxy.config_fields import Configuration
from kproxy.core.addresses import Family
from kproxy.host_features import has_net_admin
from kproxy.wiring import DATA_PATHS, data_path


@click.command()
def cleanup() -> None:
    """Remove everything that kproxy put into the kernel, of every data path and IP family.

    Stop `kproxy run` first. What is not kproxy's stays as it is. Needs root (CAP_NET_ADMIN).

    Exit codes: 0 nothing of kproxy's is left, 1 something could not be removed.
    """
    if not has_net_admin(Path("/proc/self/status").read_text()):
        raise Failed("needs CAP_NET_ADMIN to change the kernel's rules: run it as root")
    errors: list[str] = []
    for mode in DATA_PATHS:
        path = data_path(Configuration(mode=mode))
        for family in Family:
            try:
                removed = path.clean_up(family)
            except BackendError as error:
                errors.append(f"{mode.value} {family.value}: {error}")
            else:
                click.echo(f"{mode.value} {family.value}: removed {removed} kernel objects")
    if errors:
        raise Failed(*errors)
