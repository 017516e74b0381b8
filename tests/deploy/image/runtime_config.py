"""What an OCI runtime is to do for a container of a pod on the host's network. Pure.

The fields are those of the OCI runtime specification; their values are what containerd fills in
for such a container (its oci package, and the CRI plugin's specOpts).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.deploy.pod_template import ConfigMap, Container, EmptyDir, HostPath, Mount, Token

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_UNTRUSTED = ["nosuid", "noexec", "nodev"]

Volumes = Mapping[HostPath | ConfigMap | Token, Path]
"""Where on this machine the content of each volume is."""


def runtime_config(
    container: Container,
    *,
    root: Path,
    image_env: Iterable[str],
    network: Path,
    host_pid: bool,
    volumes: Volumes,
    capabilities: Iterable[str],
    seccomp: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of a bundle's config.json.

    `network` is the namespace that takes the host's place, `capabilities` are those that the
    container gets (without CAP_), `seccomp` is the profile of those that are not privileged.
    """
    names = sorted(f"CAP_{name}" for name in capabilities)
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(container.argv),
            "env": [*image_env, *(f"{name}={value}" for name, value in container.env.items())],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
            "noNewPrivileges": not container.may_gain_privileges,
        },
        "root": {"path": str(root), "readonly": container.read_only_root},
        "mounts": [
            *_kernel_mounts(container),
            *(_mount(each, volumes) for each in container.mounts),
        ],
        "linux": {
            "namespaces": [
                *([] if host_pid else [{"type": "pid"}]),
                {"type": "ipc"},
                {"type": "mount"},
                {"type": "network", "path": str(network)},
            ],
            **({} if container.privileged else _confinement(seccomp)),
        },
    }


def _confinement(seccomp: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
        "seccomp": seccomp,
    }


def _kernel_mounts(container: Container) -> list[dict[str, Any]]:
    writable = "rw" if container.privileged else "ro"
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _UNTRUSTED},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": [*_UNTRUSTED, writable],
        },
    ]


def _mount(mount: Mount, volumes: Volumes) -> dict[str, Any]:
    if isinstance(mount.source, EmptyDir):
        return {
            "destination": mount.target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=777"],
        }
    spread = "rslave" if isinstance(mount.source, HostPath) else "rprivate"
    if mount.shared:
        spread = "rshared"
    return {
        "destination": mount.target,
        "type": "bind",
        "source": str(volumes[mount.source]),
        "options": ["rbind", spread, "ro" if mount.read_only else "rw"],
    }
