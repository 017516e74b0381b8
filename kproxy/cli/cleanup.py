"""`kproxy cleanup`: removes everything that kproxy put into the kernel."""

from __future__ import annotations

import click

from kproxy.proxy.clean_up import remove_everything


@click.command()
def cleanup() -> None:
    """Remove everything that kproxy put into the kernel, of every data path and IP family.

    Stop `kproxy run` first. What is not kproxy's stays as it is. Needs root (CAP_NET_ADMIN).

    Exit codes: 0 nothing of kproxy's is left, 1 something could not be removed.
    """
    for line in remove_everything():
        click.echo(line)
