"""What a container runtime is told by a pod template: the command line, mounts and privileges.

Tests start our program from this, so that what they prove holds for what the manifests say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
ALL = frozenset({"ALL"})
# What containerd grants where nothing is dropped (its oci package; CRI-O grants a subset).
RUNTIME_DEFAULT = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")


@dataclass(frozen=True, slots=True)
class HostPath:
    """A file or folder of the node; `made_as` is the volume's type, empty if it must exist."""

    path: str
    made_as: str


@dataclass(frozen=True, slots=True)
class ConfigMap:
    """The keys of a ConfigMap, one file each."""

    name: str


@dataclass(frozen=True, slots=True)
class EmptyDir:
    """A folder that is empty when the pod starts and goes with it."""

    in_memory: bool
    size_limit: str


@dataclass(frozen=True, slots=True)
class Token:
    """The files `token`, `ca.crt` and `namespace` that admission adds to every pod."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One volume where the container sees it; `shared`: the node sees what is mounted there."""

    source: HostPath | ConfigMap | EmptyDir | Token
    target: str
    read_only: bool
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """One container as its runtime starts it.

    - `argv`: with every `$(NAME)` replaced from `env`.
    - `capabilities`: without the prefix CAP_; `ALL` if the container is privileged.
    - `read_only_root`: nothing but the writable mounts can be written.
    """

    name: str
    image: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    privileged: bool
    capabilities: frozenset[str]
    read_only_root: bool
    may_gain_privileges: bool


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The containers in the order in which they start, and whose network they see."""

    init: tuple[Container, ...]
    main: tuple[Container, ...]
    host_network: bool
    host_pid: bool
    service_account: str

    def container(self, name: str) -> Container:
        """Return the container of this name. Raises KeyError if there is none."""
        return {each.name: each for each in (*self.init, *self.main)}[name]


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def pod_template(workload: Mapping[str, Any], fields: Mapping[str, str]) -> PodTemplate:
    """Read the pod template of a DaemonSet, Deployment or Job.

    `fields` answers the downward API: "spec.nodeName" -> "node-a". Raises KeyError for a field
    that it lacks, ValueError for a kind of volume that no manifest of ours has.
    """
    spec = workload["spec"]["template"]["spec"]
    volumes = {each["name"]: _volume(each) for each in spec.get("volumes", ())}
    token = spec.get("automountServiceAccountToken", True)

    def read(key: str) -> tuple[Container, ...]:
        return tuple(_container(each, volumes, fields, token=token) for each in spec.get(key) or ())

    return PodTemplate(
        init=read("initContainers"),
        main=read("containers"),
        host_network=spec.get("hostNetwork", False),
        host_pid=spec.get("hostPID", False),
        service_account=spec.get("serviceAccountName", "default"),
    )


def _container(
    spec: Mapping[str, Any],
    volumes: Mapping[str, HostPath | ConfigMap | EmptyDir],
    fields: Mapping[str, str],
    *,
    token: bool,
) -> Container:
    env = dict(_environment(spec, fields))
    security = spec.get("securityContext", {})
    privileged = security.get("privileged", False)
    mounts = [
        Mount(
            volumes[each["name"]],
            each["mountPath"],
            read_only=_read_only(each, volumes[each["name"]]),
            shared=each.get("mountPropagation") == "Bidirectional",
        )
        for each in spec.get("volumeMounts", ())
    ]
    if token:
        mounts.append(Mount(Token(), TOKEN_FOLDER, read_only=True))
    return Container(
        name=spec["name"],
        image=spec["image"],
        argv=tuple(
            expanded(word, env) for word in (*spec.get("command", ()), *spec.get("args", ()))
        ),
        env=env,
        mounts=tuple(mounts),
        privileged=privileged,
        capabilities=ALL if privileged else _capabilities(security.get("capabilities", {})),
        read_only_root=security.get("readOnlyRootFilesystem", False),
        may_gain_privileges=security.get("allowPrivilegeEscalation", True),
    )


def _read_only(mount: Mapping[str, Any], source: HostPath | ConfigMap | EmptyDir) -> bool:
    return isinstance(source, ConfigMap) or mount.get("readOnly", False)


def _environment(spec: Mapping[str, Any], fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for each in spec.get("env", ()):
        if "value" in each:
            yield each["name"], each["value"]
        else:
            yield each["name"], fields[each["valueFrom"]["fieldRef"]["fieldPath"]]


def expanded(word: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) as the kubelet does: unknown names stay as they are, `$$` is one dollar."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return env.get(match.group(1), match.group())

    return _REFERENCE.sub(replacement, word)


def _capabilities(spec: Mapping[str, list[str]]) -> frozenset[str]:
    """What a runtime makes of `add` and `drop`: first the drops, then the additions."""
    dropped, added = frozenset(spec.get("drop", ())), frozenset(spec.get("add", ()))
    if "ALL" in added:
        return ALL
    return added if "ALL" in dropped else (RUNTIME_DEFAULT - dropped) | added


def _volume(spec: Mapping[str, Any]) -> HostPath | ConfigMap | EmptyDir:
    match spec:
        case {"hostPath": {"path": path, **rest}}:
            return HostPath(path, rest.get("type", ""))
        case {"configMap": {"name": name}}:
            return ConfigMap(name)
        case {"emptyDir": folder}:
            return EmptyDir(folder.get("medium") == "Memory", folder.get("sizeLimit", ""))
    raise ValueError(f"volume {spec['name']}: no manifest of ours has one of this kind")
