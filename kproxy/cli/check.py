"""`kproxy check`: what this host offers to each data path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec

from kproxy.cli.options import ebpf_options, proxy_mode_option, with_ebpf
from kproxy.config.fields import Configuration, Mode
from kproxy.node import features as host_features
from kproxy.node.features import HostFeatures, ip_families
from kproxy.ports.data_path import BackendError, Finding
from kproxy.proxy.data_paths import DATA_PATHS, data_path
from kproxy.proxy.failures import FAILED
from kproxy.proxy.logs import escape

_FEATURES = {Mode.NFTABLES: host_features.nftables}
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@click.command()
@proxy_mode_option
@ebpf_options
def check(*, mode: Mode | None, ebpf_cgroup: str | None, ebpf_bpffs: str | None) -> int:
    """Say what this host offers to each data path, and for each miss what helps.

    Changes nothing. Without --proxy-mode it looks at all data paths.

    \b
      kproxy check
      kproxy check --proxy-mode iptables

    Exit codes: 0 the data path (iptables unless --proxy-mode names one) can work here, 1 it cannot,
    2 the command line is wrong.
    """
    host = HostFeatures(Path("/"), os.uname().release, _find_program)
    chosen = mode or Mode.IPTABLES
    kernel = Finding("kernel", ok=True, detail=host.release)
    privilege = host_features.privilege(host)
    _show("this host", [kernel, privilege, host_features.families(host)])
    works = privilege.ok
    plain = with_ebpf(Configuration(), bpffs=ebpf_bpffs, cgroup=ebpf_cgroup)
    for each in (chosen,) if mode else tuple(Mode):
        usable = _check_mode(msgspec.structs.replace(plain, mode=each), host)
        works = works and (usable or each is not chosen)
    return 0 if works else FAILED


def _check_mode(configuration: Configuration, host: HostFeatures) -> bool:
    """Show what there is for a data path and return whether it can work here."""
    mode = configuration.mode
    if mode not in DATA_PATHS:
        _show(f"{mode.value} (not available yet in this version)", _FEATURES[mode](host))
        return False
    path = data_path(configuration)
    usable = True
    for family in ip_families(host.root):
        try:
            findings = path.check(family)
        except BackendError as error:
            findings = [Finding("check", ok=False, detail=str(error))]
        _show(f"{mode.value}, {family.value}", findings)
        usable = usable and not any(each.blocking and not each.ok for each in findings)
    return usable


def _show(title: str, findings: Iterable[Finding]) -> None:
    click.echo(f"{title}:")
    for finding in findings:
        sign = "ok  " if finding.ok else "MISS" if finding.blocking else "note"
        click.echo(escape(f"  {sign} {finding.subject}: {finding.detail}"))
        if not finding.ok and finding.remedy:
            click.echo(escape(f"       {finding.remedy}"))


def _find_program(name: str) -> str | None:
    # A user's PATH often lacks the folders of administrators' programs.
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
