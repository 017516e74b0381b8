"""`kproxy cleanup`: removes everything that kproxy put into the kernel."""

from __future__ import annotations

import click

from kproxy.cli.options import ebpf_bpffs_option, with_ebpf
from kproxy.config.fields import Configuration
from kproxy.proxy.clean_up import remove_everything


@click.command()
@ebpf_bpffs_option
def cleanup(*, ebpf_bpffs: str | None) -> None:
    """Remove everything that kproxy put into the kernel, of every data path and IP family.

    Stop `kproxy run` first. What is not kproxy's stays as it is. Needs root (CAP_NET_ADMIN).

    Exit codes: 0 nothing of kproxy's is left, 1 something could not be removed.
    """
    for line in remove_everything(with_ebpf(Configuration(), bpffs=ebpf_bpffs)):
        click.echo(line)
