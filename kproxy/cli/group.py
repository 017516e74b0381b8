"""The `kproxy` command, its way of reporting errors, and where each subcommand lives."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from kproxy import __version__
from kproxy.proxy.failures import FAILED, Failed
from kproxy.proxy.logs import escape

WITH_PROBLEMS = 3
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_COMMANDS = {
    "check": "kproxy.cli.check:check",
    "cleanup": "kproxy.cli.cleanup:cleanup",
    "explain": "kproxy.cli.explain:explain",
    "kube-proxy": "kproxy.cli.kube_proxy:kube_proxy",
    "render": "kproxy.cli.render:render",
    "run": "kproxy.cli.run:run",
}


class KproxyGroup(click.Group):
    """Imports a command's module when it is asked for, and keeps every error to one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by name."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> NoReturn:
        """Run, and end the process with the exit code that the help promises."""
        try:
            code = super().main(
                args,
                prog_name or "kproxy",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()  # no error, but the help that was asked for by saying nothing
            sys.exit(error.exit_code)
        except click.ClickException as error:
            _report(error)
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(_INTERRUPTED)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            _report(Failed(f"cannot write the output: {error.strerror}"))
            # What is left in the buffer is written at exit, and must not fail there once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: click.ClickException) -> None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        message = escape(error.format_message().replace("\n", " ")).rstrip(".")
        click.echo(f"kproxy: {message} (see {context.command_path} --help)", err=True)
        return
    lines = error.lines if isinstance(error, Failed) else (error.format_message(),)
    for line in lines:
        click.echo(f"kproxy: {escape(line)}", err=True)


@click.group(
    "kproxy",
    cls=KproxyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Make this node's kernel forward the traffic of Kubernetes Services.

    \b
    What would happen to a packet, and why (needs no root, touches nothing):
      kproxy explain --manifests ./app --node-name node-1 \\
          --from 10.1.0.5 --to 10.96.0.10:53 --protocol udp

    \b
    What this host offers, what would be programmed, and the real thing:
      kproxy check
      kproxy render --manifests ./app --node-name node-1 --proxy-mode iptables
      kproxy run    --manifests ./app --node-name node-1 --proxy-mode iptables

    Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong, 3 done, but
    some of it was refused (run --once). Errors go to standard error, one line each.
    """
