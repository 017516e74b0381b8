"""`kproxy render`: what would be programmed."""

from __future__ import annotations

from pathlib import Path

import click

from kproxy.cli.options import (
    config_options,
    configuration_of,
    manifests_option,
    node_name_of,
    warn,
)
from kproxy.cli.own_addresses import local_address_option, own_of
from kproxy.cli.snapshot import take_snapshot
from kproxy.config.fields import Mode
from kproxy.config.loading import to_settings
from kproxy.core.addresses import Family
from kproxy.proxy.data_paths import NotAvailable, data_path
from kproxy.proxy.failures import BadUsage

_FAMILIES = {
    "ipv4": (Family.IPV4,),
    "ipv6": (Family.IPV6,),
    "both": (Family.IPV4, Family.IPV6),
}


@click.command(no_args_is_help=True)
@manifests_option(required=True)
@config_options
@local_address_option
@click.option("--family", type=click.Choice(list(_FAMILIES)), default="both", show_default=True)
def render(
    *,
    manifests: Path,
    config: Path | None,
    mode: Mode | None,
    node_name: str | None,
    local_addresses: tuple[str, ...],
    family: str,
) -> None:
    """Print what would be programmed into the kernel of a node, from nothing.

    Touches nothing and needs no root. For iptables it is the input of iptables-restore --noflush
    and of its IPv6 sibling.

    \b
      kproxy render --manifests ./app --node-name node-1 --proxy-mode iptables --family ipv4

    Exit codes: 0 printed, 2 the command line or the configuration is wrong. Manifests with errors
    are reported on standard error and left out.
    """
    loaded = configuration_of(config, mode)
    name = node_name_of(node_name, loaded.configuration)
    settings = to_settings(loaded.configuration, name)
    snapshot = take_snapshot(manifests, settings, own_of(local_addresses).networks)
    for line in (*loaded.warnings, *snapshot.remarks):
        warn(line)
    try:
        path = data_path(loaded.configuration)
    except NotAvailable as error:
        raise BadUsage(str(error)) from error
    for each in _FAMILIES[family]:
        click.echo(f"# {each.value}\n{path.preview(snapshot.tables[each])}", nl=False)
