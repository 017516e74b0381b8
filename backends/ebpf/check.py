"""What the host offers to this data path."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from backends.ebpf import compiler, headers
from backends.ebpf.options import EbpfOptions, SocketHooks
from backends.kernel import cgroup, node
from backends.kernel.bpf import bpffs, kfuncs, links, maps
from backends.kernel.bpf.maps import MapType, Shape
from backends.kernel.bpf.programs import AttachType
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError, Finding

_OLDEST = (6, 1)
# Numbers in linux/capability.h. SYS_ADMIN holds BPF and PERFMON as well.
_SYS_ADMIN = 21
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
_OF_PODS = {"CAP_SYS_ADMIN": _SYS_ADMIN, "CAP_SYS_PTRACE": 19}  # to enter their namespaces
_JIT = Path("/proc/sys/net/core/bpf_jit_enable")
_SYMBOLS = Path("/proc/kallsyms")
_CLSACT = {"sch_ingress": "clsact_init", "cls_bpf": "cls_bpf_classify"}
_LOOPBACK = 1  # the number of lo in every network namespace
_AS_ROOT = "run as root, or in a container with these capabilities"


def check(family: Family, options: EbpfOptions) -> list[Finding]:
    """Return what was found, one line for each subject; a miss comes with its remedy."""
    release = os.uname().release
    findings = [_kernel(release), _capabilities(), _bpf()]
    if findings[-1].ok:
        findings += _attaching(release)
    findings += [_bytecode(family, options.cache), _jit(), _tracking(), _bpffs(options.bpffs)]
    if options.socket_hooks is not SocketHooks.OFF:
        findings.append(_cgroup(options.cgroup))
    if options.socket_hooks is SocketHooks.ALL:
        findings.append(_pods())
    return [*findings, node.forwarding(family), node.default_route(family)]


def _kernel(release: str) -> Finding:
    subject = "kernel >= {}.{}".format(*_OLDEST)
    if node.kernel_version(release) >= _OLDEST:
        return Finding(subject, True, release)
    return Finding(subject, False, release, "boot a newer kernel")


def _capabilities() -> Finding:
    effective = _effective()
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if effective >> _SYS_ADMIN & 1:
        missing = [name for name in missing if name == "CAP_NET_ADMIN"]
    if missing:
        return Finding("capabilities", False, f"{', '.join(missing)} not held", _AS_ROOT)
    return Finding("capabilities", True, ", ".join(_CAPABILITIES))


def _pods() -> Finding:
    """Return whether pods' namespaces can be looked into; tc serves their calls otherwise."""
    subject = "socket hooks of pods"
    effective = _effective()
    missing = [name for name, bit in _OF_PODS.items() if not effective >> bit & 1]
    if not missing:
        return Finding(subject, True, f"{', '.join(_OF_PODS)} held")
    detail = f"{', '.join(missing)} not held: tc serves the connections of pods, at a higher cost"
    return Finding(subject, False, detail, _AS_ROOT, blocking=False)


def _effective() -> int:
    found = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 16) if found is not None else 0


def _bpf() -> Finding:
    """Return whether this process may make a map at all: the kernel, and seccomp, may refuse it."""
    try:
        maps.create("kproxy_check", Shape(MapType.ARRAY, 4, 8, 1, 0)).close()
    except BackendError as error:
        remedy = "run as root; in a container let its seccomp profile admit bpf(2)"
        return Finding("bpf(2)", False, str(error), remedy)
    return Finding("bpf(2)", True, "usable")


def _attaching(release: str) -> Iterator[Finding]:
    """Tell how programs come to devices: by tcx, from Linux 6.6 on, else by clsact."""
    subject = "programs on devices"
    try:
        links.attached(_LOOPBACK, AttachType.TCX_INGRESS)
    except BackendError:
        missing = [module for module in _CLSACT if not _has(release, module)]
        if missing:
            remedy = f"install the kernel's modules package: modprobe {' '.join(missing)}"
            yield Finding(subject, False, f"no tcx, and no {' and no '.join(missing)}", remedy)
        else:
            yield Finding(subject, True, "by clsact; the kernel has no tcx")
    else:
        yield Finding(subject, True, "by tcx")


def _has(release: str, module: str) -> bool:
    """Say whether something is built in, loaded, or a module that can be loaded."""
    if f" {_CLSACT[module]}" in _text(_SYMBOLS):
        return True
    return f"/{module}.ko" in _text(Path("/lib/modules", release, "modules.dep"))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _bytecode(family: Family, cache: Path) -> Finding:
    """Return whether all programs are there, or else what compiles them."""
    subject = "programs"
    sources = sorted(compiler.SOURCES.glob("*.bpf.c"))
    if all(compiler.kept(source, family, cache=cache) for source in sources):
        return Finding(subject, True, "compiled already")
    if not compiler.BCC_VERSION.exists():
        remedy = "install python3-bpfcc, or use the image, which holds compiled programs"
        return Finding(subject, False, "to be compiled, and there is no bcc", remedy)
    try:
        with tempfile.TemporaryDirectory() as made:
            headers.find(Path(made), os.environ)
    except BackendError as error:
        return Finding(subject, False, "to be compiled, without kernel headers", error.detail)
    return Finding(subject, True, "to be compiled at the first start")


def _jit() -> Finding:
    subject = "compiler of the kernel (JIT)"
    try:
        if _JIT.read_text().strip() != "0":
            return Finding(subject, True, "on")
    except OSError:
        return Finding(subject, True, "always on, or not for this process to see")
    remedy = "sysctl -w net.core.bpf_jit_enable=1"
    return Finding(subject, False, "off: programs are interpreted", remedy, blocking=False)


def _tracking() -> Finding:
    """Return whether programs can ask which ports the kernel masquerades by."""
    subject = "connection tracking"
    missing = set().union(*map(compiler.kfuncs, compiler.SOURCES.glob("*.bpf.c")))
    with kfuncs.opened(missing) as found:
        missing -= found.keys()
    if not missing:
        return Finding(subject, True, "programs can ask the kernel's")
    detail = f"programs cannot ask the kernel's: it keeps {', '.join(sorted(missing))} from them"
    remedy = "where others masquerade: modprobe nf_conntrack, and restart kproxy with CAP_SYS_ADMIN"
    return Finding(subject, False, detail, remedy, blocking=False)


def _bpffs(path: Path) -> Finding:
    subject = "BPF file system"
    if bpffs.is_bpffs(path):
        return Finding(subject, True, str(path))
    remedy = f"{bpffs.by_hand(path)}, or name another one by --ebpf-bpffs"
    return Finding(subject, False, f"none at {path}", remedy)


def _cgroup(path: Path | None) -> Finding:
    subject = "cgroup v2"
    try:
        return Finding(subject, True, str(cgroup.root() if path is None else cgroup.at(path)))
    except BackendError as error:
        return Finding(subject, False, "none to attach socket hooks to", error.detail)
