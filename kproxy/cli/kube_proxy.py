"""`kube-proxy`: kproxy under the name, and with the command line, of what it replaces."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from kproxy import __version__
from kproxy.config.loading import ConfigurationError, Loaded, node_name
from kproxy.config.writing import as_yaml
from kproxy.kube_proxy.configuration import load
from kproxy.kube_proxy.flags import UsageError, parse
from kproxy.kube_proxy.table import KUBE_PROXY_FLAGS, WINDOWS_FLAGS
from kproxy.kube_proxy.text import flag_texts, help_text
from kproxy.proxy.command_line import CommandLine
from kproxy.proxy.failures import Failed
from kproxy.proxy.logs import escape

NAME = "kube-proxy"
_VERSION = f"kproxy {__version__} (in the place of kube-proxy v1.37.1)"
_FAILED = 1  # kube-proxy knows no other code
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(words: Sequence[str]) -> int:
    """Do what a kube-proxy command line asks for; return the exit code."""
    try:
        return _run(words)
    except Failed as error:
        for line in error.lines:
            _say(line)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


class _AllWords(click.Command):
    """A command that gets its words as they are; click would take out the first `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = tuple(args)
        return []


@click.command(NAME, cls=_AllWords, add_help_option=False)
def kube_proxy(words: tuple[str, ...]) -> int:
    """Take kube-proxy's place in a cluster, with kube-proxy's own flags."""
    return main(words)


def _run(words: Sequence[str]) -> int:
    try:
        parsed = parse(words, KUBE_PROXY_FLAGS, WINDOWS_FLAGS)
        if parsed.values.get("help"):
            _print(help_text())
            return 0
        for word in filter(None, parsed.arguments):
            raise UsageError(f"takes no arguments, got {word!r}")
    except UsageError as error:
        raise Failed(f"{error} (see {NAME} --help)") from error
    if parsed.values.get("version"):
        _print(f"{_VERSION}\n")
        return 0
    return _act(parsed.values)


def _act(values: Mapping[str, object]) -> int:
    try:
        loaded = load(values)
        name = node_name(None, loaded.configuration, socket.gethostname())
    except ConfigurationError as error:
        raise Failed(*error.lines) from error
    except ValueError as error:
        raise Failed(str(error)) from error
    written = values.get("write-config-to")
    if isinstance(written, str) and written:
        _write(Path(written), loaded)
        return 0
    # Here only: what comes before needs no client, no servers and no data path.
    from kproxy.proxy import cluster

    options = _options(values, loaded, name)
    if values.get("cleanup"):
        return cluster.clean_up(options)
    if values.get("init-only"):
        return cluster.initialise(options)
    return cluster.serve(options)


def _options(values: Mapping[str, object], loaded: Loaded, name: str) -> CommandLine:
    file = values.get("config")
    return CommandLine(
        loaded=loaded,
        node_name=name,
        master=str(values.get("master", "")),
        config_file=Path(file) if isinstance(file, str) and file else None,
        flags=flag_texts(values),
    )


def _write(path: Path, loaded: Loaded) -> None:
    for line in loaded.warnings:
        _say(line)
    try:
        path.write_text(as_yaml(loaded.configuration), encoding="utf-8")
    except OSError as error:
        raise Failed(f"cannot write {path}: {error.strerror}") from error


def _print(text: str) -> None:
    try:
        if sys.stdout is None:  # it was closed before we started
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer is written at exit, and must not fail there once more.
        sys.stdout = None
        raise Failed(f"cannot write to standard output: {error.strerror}") from error


def _say(line: str) -> None:
    sys.stderr.write(f"{NAME}: {escape(line)}\n")
