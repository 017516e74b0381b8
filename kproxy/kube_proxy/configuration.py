"""From flags to a configuration, with kube-proxy's precedence (cmd/kube-proxy/app/options.go).

With a file, the file is the configuration and only the logging flags, `--hostname-override`, our
own and what is no setting count. Without one, the flags make the configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from kproxy.config.checks import HEALTHZ_PORT, METRICS_PORT, with_port
from kproxy.config.durations import Span, whole_seconds
from kproxy.config.fields import (
    Configuration,
    MinSyncPeriod,
    Mode,
    Section,
    chosen_min_sync_period,
)
from kproxy.config.loading import Loaded, checked, read_file
from kproxy.config.reading import Mistake, Reading
from kproxy.config.syntax import shown
from kproxy.config.values import plain_node_name, read_choice, read_mode
from kproxy.core.settings import DetectLocalMode
from kproxy.kube_proxy.flags import Flag
from kproxy.kube_proxy.table import BESIDES_A_FILE, EBPF_FLAGS, KUBE_PROXY_FLAGS, LOGGING_FLAGS

_COMMAND_LINE = "command line"


def load(values: Mapping[str, object]) -> Loaded:
    """Return the configuration that a kube-proxy command line asks for.

    Raises ConfigurationError with all that is wrong.
    """
    file = values.get("config")
    if isinstance(file, str) and file:
        origin = file
        reading = read_file(Path(file))
        reading.configuration = _with_logging(reading.configuration, values)
        reading.configuration = _with_flags(reading.configuration, EBPF_FLAGS, values)
    else:
        origin = _COMMAND_LINE
        reading = _from_flags(values)
    _set_host_name(reading, values)
    _set_take_over(reading, values)
    loaded = checked(reading, origin)
    return dataclasses.replace(
        loaded,
        warnings=loaded.warnings + tuple(_remarks(values)),
        without_effect=loaded.without_effect + tuple(_ignored(values)),
    )


def _from_flags(values: Mapping[str, object]) -> Reading:
    flags = [flag for flag in KUBE_PROXY_FLAGS if flag.setting]
    configuration = _with_flags(Configuration(), flags, values)
    reading = Reading()
    for flag, setting, field, read in (
        ("proxy-mode", "mode", "mode", read_mode),
        ("detect-local-mode", "detect_local_mode", "detectLocalMode", _read_local_mode),
    ):
        text = values.get(flag)
        if not text:
            continue
        reading.given.add(field)
        try:
            configuration = _with(configuration, setting, read(text))
        except ValueError as error:
            reading.problems.append(Mistake(field, shown(text), str(error)))
    configuration = _with_mode_flags(configuration, values)
    reading.configuration = _with_ports(configuration, values)
    if (
        values.get("cluster-cidr") == ""
        and configuration.detect_local_mode is DetectLocalMode.CLUSTER_CIDR
    ):
        reading.problems.append(Mistake("clusterCIDR", "''", "must be a CIDR"))
    return reading


def _read_local_mode(text: object) -> DetectLocalMode:
    return read_choice(text, DetectLocalMode)


def _with_mode_flags(configuration: Configuration, values: Mapping[str, object]) -> Configuration:
    """Put the flags that belong to whatever mode is chosen into the section of that mode."""
    mode = configuration.mode
    flags = section = "ipvs" if mode is Mode.IPVS else "iptables"
    if mode is Mode.NFTABLES:
        section = "nftables"
    settings = {
        f"{section}.sync_period_s": values.get(f"{flags}-sync-period", whole_seconds(30)),
        f"{section}.min_sync_period": _min_sync_period(values.get(f"{flags}-min-sync-period")),
    }
    marking = "nftables" if mode is Mode.NFTABLES else "iptables"
    settings[f"{marking}.masquerade_all"] = values.get("masquerade-all", False)
    for path, value in settings.items():
        configuration = _with(configuration, path, value)
    return configuration


def _min_sync_period(given: object) -> MinSyncPeriod:
    """Return what the flag says; without it that is one second, in the mode ipvs as well."""
    if isinstance(given, Span):
        return chosen_min_sync_period(given)
    return MinSyncPeriod(whole_seconds(1))


def _with_ports(configuration: Configuration, values: Mapping[str, object]) -> Configuration:
    """Complete the two addresses with the deprecated port flags, for which 0 means no server.

    No file can say that there is no server, so what is written to one is not turned off.
    """
    for name, port in (("healthz", HEALTHZ_PORT), ("metrics", METRICS_PORT)):
        path = f"{name}_bind_address"
        asked = values.get(f"{name}-port", port)
        assert isinstance(asked, int)
        address = with_port(getattr(configuration, path), asked or port)
        off = asked == 0 and not values.get("write-config-to")
        configuration = _with(configuration, path, "" if off else address)
    return configuration


def _with_logging(configuration: Configuration, values: Mapping[str, object]) -> Configuration:
    """Let the logging flags win over the file; patterns of `--vmodule` come before the file's."""
    of_file = configuration.logging
    configuration = _with_flags(configuration, LOGGING_FLAGS, values)
    logging = configuration.logging
    if "vmodule" in values:
        logging = msgspec.structs.replace(logging, vmodule=logging.vmodule + of_file.vmodule)
    if "log-flush-frequency" in values:
        span = msgspec.structs.replace(
            logging.flush_frequency, as_number=of_file.flush_frequency.as_number
        )
        logging = msgspec.structs.replace(logging, flush_frequency=span)
    return _with(configuration, "logging", logging)


def _set_host_name(reading: Reading, values: Mapping[str, object]) -> None:
    name = values.get("hostname-override")
    if not isinstance(name, str) or not name:
        return
    plain = plain_node_name(name)
    if not plain:
        problem = Mistake("hostnameOverride", repr(name), "must not be blank")
        reading.problems.append(problem)
        return
    reading.configuration = _with(reading.configuration, "hostname_override", plain)


def _set_take_over(reading: Reading, values: Mapping[str, object]) -> None:
    """Decide on taking over: the flag, else the file, else yes, as this is kube-proxy's place."""
    if "take-over" in values or "kproxy.takeOver" not in reading.given:
        wanted = values.get("take-over", True)
        reading.configuration = _with(reading.configuration, "kproxy.take_over", wanted)


def _remarks(values: Mapping[str, object]) -> Iterable[str]:
    for flag in KUBE_PROXY_FLAGS:
        if flag.remark and flag.name in values:
            yield f"flag --{flag.name} {flag.remark}"


def _ignored(values: Mapping[str, object]) -> Iterable[str]:
    """Yield one line if flags were given that a file makes void."""
    if not values.get("config"):
        return
    kept = BESIDES_A_FILE | {flag.name for flag in LOGGING_FLAGS}
    void = [f"--{name}" for name in values if name not in kept]
    if void:
        yield f"without effect next to --config: {', '.join(void)}"


def _with_flags(
    configuration: Configuration, flags: Iterable[Flag], values: Mapping[str, object]
) -> Configuration:
    for flag in flags:
        value = values.get(flag.name)
        if value is not None:
            configuration = _with(configuration, flag.setting, value)
    return configuration


def _with(configuration: Configuration, path: str, value: object) -> Configuration:
    changed = _replaced(configuration, path, value)
    assert isinstance(changed, Configuration)
    return changed


def _replaced(section: Section, path: str, value: object) -> Section:
    name, _, rest = path.partition(".")
    inner = _replaced(getattr(section, name), rest, value) if rest else value
    return msgspec.structs.replace(section, **{name: inner})
