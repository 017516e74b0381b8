"""Flags and their values as text: the help, and the page that lists them all."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterator, Mapping
from operator import attrgetter

from kproxy.config.durations import Span, format_duration
from kproxy.config.fields import Configuration, LogSpan
from kproxy.kube_proxy.flags import Flag
from kproxy.kube_proxy.table import KUBE_PROXY_FLAGS, SECTIONS
from kproxy.kube_proxy.values import STRINGS
from kproxy.text.go_yaml import number_as_json
from kproxy.text.urls import without_user

_WIDTH = 100
_INDENT = 45


def flag_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return the value of every flag, given or not, as Go prints it, and no password."""
    texts: dict[str, str] = {}
    for flag in KUBE_PROXY_FLAGS:
        value = values.get(flag.name)
        texts[flag.name] = _text(flag, _default(flag) if value is None else value)
    texts["master"] = without_user(texts["master"])
    return texts


def help_text() -> str:
    """Return what `kube-proxy --help` prints."""
    lines = [
        "Usage: kube-proxy [flags]",
        "",
        "kproxy in the place of kube-proxy: makes this node's kernel forward the traffic of",
        "Kubernetes Services. It takes the flags and the configuration file of kube-proxy 1.37.",
        "With --config, the file is the configuration, and flags marked * have no effect.",
    ]
    for title, flags in SECTIONS.items():
        lines += ["", f"{title}:"]
        for flag in flags:
            if not flag.remark:
                lines += _help_lines(flag, overruled=title not in ("Program", "Log"))
    lines += [
        "",
        "Exit codes: 0 done or stopped as asked, 1 anything else. Errors are one line each.",
    ]
    return "\n".join(lines) + "\n"


def _help_lines(flag: Flag, *, overruled: bool) -> Iterator[str]:
    mark = "*" if overruled and flag.name not in ("master", "hostname-override") else " "
    letter = f"-{flag.short}, " if flag.short else "    "
    head = f"{mark} {letter}--{flag.name} {flag.kind.name}"
    default = _text(flag, _default(flag))
    shown = default not in ("", "false", "0", "0s", "[]")
    told = f"{flag.help} (default {default})" if shown else flag.help
    first, *others = textwrap.wrap(told, _WIDTH - _INDENT)
    yield f"{head:<{_INDENT}}{first}" if len(head) < _INDENT else head
    if len(head) >= _INDENT:
        others.insert(0, first)
    for line in others:
        yield " " * _INDENT + line


def _default(flag: Flag) -> object:
    return attrgetter(flag.setting)(Configuration()) if flag.setting else flag.default


def _text(flag: Flag, value: object) -> str:
    if flag.kind is STRINGS:
        return f"[{','.join(value)}]" if isinstance(value, tuple) else "[]"
    match value:
        case bool():
            return "true" if value else "false"
        case Span():
            return format_duration(value)
        case float():
            return str(number_as_json(value))
        case LogSpan(span=span):
            return format_duration(span)
        case enum.Enum():
            return str(value.value)
        case dict():
            return ",".join(f"{k}={str(v).lower()}" for k, v in sorted(value.items()))
        case tuple():
            return ",".join(f"{item.file_pattern}={item.verbosity}" for item in value)
    return str(value)
