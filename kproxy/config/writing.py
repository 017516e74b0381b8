"""The effective configuration, in the form in which kube-proxy itself tells it.

kube-proxy keeps one period and one `masqueradeAll` for all modes, so it writes those of the mode
that is chosen and zero for the others, and it forgets `portRange`.
"""

from __future__ import annotations

import enum

import msgspec

from kproxy.config.durations import Span, format_duration
from kproxy.config.fields import Configuration, LogSpan, MinSyncPeriod, Mode, Own, Section
from kproxy.config.reading import API_VERSION, KIND
from kproxy.text.go_yaml import number_as_json, to_yaml

_OMITTED_IF_EMPTY = frozenset({"featureGates", "vmodule", "splitStream", "windowsRunAsService"})
IN_KUBE_PROXYS_PLACE = Own(take_over=True)


def as_document(configuration: Configuration) -> dict[str, object]:
    """Return a configuration as the fields of a `KubeProxyConfiguration` file.

    The section `kproxy` has only what differs from its default in kube-proxy's place, and mostly
    is not there at all, so that kube-proxy reads the file without a remark.
    """
    document = _fields(_as_kept(configuration))
    own = _differences(configuration.kproxy, IN_KUBE_PROXYS_PLACE)
    if own:
        document["kproxy"] = own
    else:
        del document["kproxy"]
    return {"apiVersion": API_VERSION, "kind": KIND, **document}


def as_yaml(configuration: Configuration) -> str:
    """Return the text that `--write-config-to` writes."""
    return to_yaml(as_document(configuration))


def _as_kept(configuration: Configuration) -> Configuration:
    """Return what is left of a configuration where the sections of other modes are forgotten."""
    forgotten: dict[str, object] = {"port_range": ""}
    mode = configuration.mode
    kept = {Mode.IPVS: "ipvs", Mode.NFTABLES: "nftables"}.get(mode, "iptables")
    for name in ("iptables", "ipvs", "nftables"):
        changes: dict[str, object] = {}
        if name != kept:
            changes = {"sync_period_s": Span(0), "min_sync_period": MinSyncPeriod(Span(0))}
        if (name == "nftables") is not (mode is Mode.NFTABLES) and name != "ipvs":
            changes["masquerade_all"] = False
        forgotten[name] = msgspec.structs.replace(getattr(configuration, name), **changes)
    return msgspec.structs.replace(configuration, **forgotten)


def _fields(section: Section) -> dict[str, object]:
    document: dict[str, object] = {}
    for info in msgspec.structs.fields(section):
        value = getattr(section, info.name)
        if value or info.encode_name not in _OMITTED_IF_EMPTY:
            document[info.encode_name] = _value(value)
    return document


def _value(value: object) -> object:
    match value:
        case Span():
            return format_duration(value)
        case Section():
            return _fields(value)
        case LogSpan(span=span, as_number=as_number):
            return span.nanoseconds if as_number else format_duration(span)
        case MinSyncPeriod(span=span):
            return format_duration(span)
        case enum.Enum():
            return value.value
        case tuple():
            return [_value(item) for item in value]
        case float():
            return number_as_json(value)
    return value


def _differences(section: Section, plain: Section) -> dict[str, object]:
    """Return only the fields that differ."""
    different: dict[str, object] = {}
    for info in msgspec.structs.fields(section):
        value, default = getattr(section, info.name), getattr(plain, info.name)
        if isinstance(value, Section) and isinstance(default, Section):
            if inner := _differences(value, default):
                different[info.encode_name] = inner
        elif value != default:
            different[info.encode_name] = _value(value)
    return different
