"""`kproxy explain`: where would this packet go, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from kproxy.cli.options import (
    config_options,
    configuration_of,
    manifests_option,
    node_name_of,
    warn,
)
from kproxy.cli.own_addresses import local_address_option, own_of
from kproxy.cli.snapshot import take_snapshot
from kproxy.cli.verdicts import answer, describe, parse_flow, parse_packet
from kproxy.config.fields import Mode
from kproxy.config.loading import to_settings
from kproxy.core.addresses import Family, family_of
from kproxy.core.diagnosis import Diagnosis
from kproxy.core.resolve import Packet, Verdict, resolve
from kproxy.core.table import ForwardingTable
from kproxy.proxy.failures import FAILED, BadUsage


@dataclass(frozen=True, slots=True)
class Oracle:
    """Answers for packets: the tables of both families, and what counts as this node's own."""

    tables: dict[Family, ForwardingTable]
    diagnosis: Diagnosis
    local_addresses: Collection[str]

    def verdict(self, packet: Packet) -> Verdict:
        """Return what a new connection deserves."""
        table = self.tables[family_of(packet.destination)]
        verdict = resolve(table, packet, self.local_addresses)
        return self.diagnosis.explained(packet, verdict)


@click.command(no_args_is_help=True)
@manifests_option(required=True)
@config_options
@local_address_option
@click.option("--from", "source", metavar="IP", help="Who sends the packet.")
@click.option(
    "--in-interface",
    metavar="IF",
    help="The interface it comes in by. Leave it out for a packet that the node itself sends.",
)
@click.option("--to", metavar="IP:PORT", help="Where it is sent, an IPv6 address as [::1]:80.")
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp", "sctp"], case_sensitive=False),
    help="TCP if unset.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--flows",
    metavar="FILE",
    type=click.File("rb"),
    help='Answer JSON lines {"from", "to", "protocol", "in_interface"?} one for one; - is stdin.',
)
def explain(
    *,
    manifests: Path,
    config: Path | None,
    mode: Mode | None,
    node_name: str | None,
    local_addresses: tuple[str, ...],
    source: str | None,
    in_interface: str | None,
    to: str | None,
    protocol: str | None,
    output: str,
    flows: BinaryIO | None,
) -> int:
    """Say where a packet would go, and why.

    The answer is the same for every data path; only defaults that belong to a mode differ. Needs
    no root and touches nothing.

    \b
    A pod asks for a Service, then somebody outside uses a NodePort:
      kproxy explain --manifests ./app --node-name node-1 \\
          --from 10.1.0.5 --to 10.96.0.10:80 --protocol tcp
      kproxy explain --manifests ./app --node-name node-1 --local-address 192.0.2.1 \\
          --from 198.51.100.7 --in-interface eth0 --to 192.0.2.1:30080 --protocol tcp

    \b
    Many packets at once:
      echo '{"from": "10.1.0.5", "to": "10.96.0.10:80", "protocol": "tcp"}' |
          kproxy explain --manifests ./app --node-name node-1 --flows -

    Exit codes: 0 answered, whatever the verdict; 1 a line of --flows could not be understood (its
    answer is {"error": …}); 2 the command line or the configuration is wrong. Manifests with
    errors are reported on standard error, and the answer is given without them.
    """
    packet = _asked_packet(source, to, protocol, in_interface, flows)
    loaded = configuration_of(config, mode)
    name = node_name_of(node_name, loaded.configuration)
    own = own_of(local_addresses)
    snapshot = take_snapshot(manifests, to_settings(loaded.configuration, name), own.networks)
    for line in (*loaded.warnings, *snapshot.remarks):
        warn(line)
    oracle = Oracle(snapshot.tables, snapshot.diagnosis, own.addresses)
    if flows is not None:
        return _answer_all(flows, oracle)
    assert packet is not None
    verdict = oracle.verdict(packet)
    if output == "json":
        click.echo(msgspec.json.encode(answer(verdict)))
    else:
        click.echo(describe(packet, verdict))
    return 0


def _asked_packet(
    source: str | None,
    to: str | None,
    protocol: str | None,
    in_interface: str | None,
    flows: BinaryIO | None,
) -> Packet | None:
    """Return the one packet asked about, None if `--flows` asks about many."""
    single = (source, to, protocol, in_interface)
    if flows is not None:
        if any(part is not None for part in single):
            raise BadUsage("--flows stands alone, without --from, --to, --protocol, --in-interface")
        return None
    if source is None or to is None:
        raise BadUsage("give --from IP and --to IP:PORT, or --flows FILE")
    try:
        return parse_packet(source, to, protocol or "tcp", in_interface)
    except ValueError as error:
        raise BadUsage(f"--{error}") from error


def _answer_all(flows: BinaryIO, oracle: Oracle) -> int:
    """Answer each line as soon as it is there; return the exit code."""
    code = 0
    encode = msgspec.json.Encoder().encode
    with contextlib.closing(flows), click.open_file("-", "wb") as out:
        for line in flows:
            try:
                reply = encode(answer(oracle.verdict(parse_flow(line))))
            except ValueError as error:
                reply = encode({"error": str(error)})
                code = FAILED
            out.write(reply + b"\n")
            out.flush()
    return code
