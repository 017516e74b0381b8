"""The default seccomp profile of container runtimes, as an OCI runtime takes it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

# Debian's golang-github-containers-common. Docker's and containerd's differ from it in details.
PROFILE = Path("/usr/share/containers/seccomp.json")
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def runtime_default(capabilities: Collection[str], machine: str) -> dict[str, Any]:
    """Return the `linux.seccomp` of a container with these capabilities (without CAP_)."""
    profile = json.loads(PROFILE.read_text())
    granted = {f"CAP_{name}" for name in capabilities}
    traits = {"caps": granted, "arches": {_ARCHITECTURE[machine]}}
    (native,) = (each for each in profile["archMap"] if each["architecture"] == _NATIVE[machine])
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": [native["architecture"], *native["subArchitectures"]],
        "syscalls": [_rule(each) for each in profile["syscalls"] if _applies(each, traits)],
    }


def _applies(rule: Mapping[str, Any], traits: Mapping[str, set[str]]) -> bool:
    """Say whether a rule's conditions hold: all of `includes`, none of `excludes`."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return all(
        (name == "arches" and traits[name] & set(includes[name]))
        or (name == "caps" and traits[name] >= set(includes[name]))
        for name in includes
    ) and not any(traits[name] & set(excludes[name]) for name in excludes)


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rule[name] for name in ("names", "action", "args", "errnoRet") if rule.get(name)}
