"""The manifests that `deploy/` ships, rendered by the tools that an operator uses."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import programs
from tests.support.waiting import LONGEST_S

Object = dict[str, Any]

DEPLOY = Path(__file__).parents[2] / "deploy"
BASE = DEPLOY / "kustomize/base"
EXAMPLE = DEPLOY / "kustomize/example"
CLEANUP = DEPLOY / "kustomize/cleanup"
EBPF = DEPLOY / "kustomize/ebpf"
CHART = DEPLOY / "helm/kproxy"
KUBEADM_PATCH = DEPLOY / "kubeadm/patches/kubeproxydaemonset+strategic.yaml"
ALERTS = DEPLOY / "monitoring/alerts.yaml"
DASHBOARD = DEPLOY / "monitoring/dashboard.json"
PAGE = DEPLOY / "README.md"
IPVS_PAGE = DEPLOY / "ipvs.md"
EBPF_PAGE = DEPLOY / "ebpf.md"
PAGES = (PAGE, IPVS_PAGE, EBPF_PAGE)
KUBEADM = Path(__file__).with_name("kubeadm")

# What the chart must be told; the same as in the base.
API_SERVER = "apiServer=https://control-plane.invalid:6443"


class Refused(Exception):
    """A tool did not accept what it was given."""


def kustomized(folder: Path) -> list[Object]:
    """Return what `kubectl apply -k` would send."""
    return _objects(_said("kubectl", "kustomize", str(folder)))


def kustomized_for(mode: str, hooks: str = "all") -> list[Object]:
    """Return what the base comes to in a mode, as the operator's page says it is chosen.

    `hooks` are the `socketHooks` of mode ebpf.
    """
    components, own = ("../ebpf",) if mode == "ebpf" else (), ""
    if hooks != "all":
        components, own = ("../ebpf-host",), f"kproxy: {{ebpf: {{socketHooks: {hooks}}}}}\n"
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "kustomize")
        shutil.copytree(BASE.parent, tree)
        config = tree / "base/config.conf"
        config.write_text(config.read_text().replace("mode: iptables", f"mode: {mode}") + own)
        cluster = tree / "cluster"
        cluster.mkdir()
        (cluster / "kustomization.yaml").write_text(
            f"resources: [../base]\ncomponents: [{', '.join(components)}]\n"
        )
        return kustomized(cluster)


def templated(*settings: str, release: str = "kproxy") -> list[Object]:
    """Return what `helm install` would send; `settings` are name=value, values as in YAML."""
    flags = [word for each in settings for word in ("--set", each)]
    return _objects(
        _said("helm", "template", release, str(CHART), "--namespace", "kube-system", *flags)
    )


def patched(workload: Path, patch: Path) -> Object:
    """Return a workload after a strategic merge patch, made without an API server."""
    said = _said(
        "kubectl",
        "patch",
        "--local",
        f"--filename={workload}",
        f"--patch-file={patch}",
        "--output=yaml",
    )
    return one(_objects(said))


def kubeadm(name: str) -> list[Object]:
    """Return the objects of one of kubeadm's manifests: rbac, configmap or daemonset."""
    return _objects((KUBEADM / f"{name}.yaml").read_text())


def of_kind(objects: Sequence[Object], kind: str) -> Object:
    """Return the only object of a kind."""
    return one([each for each in objects if each["kind"] == kind])


def one(objects: Sequence[Object]) -> Object:
    """Return the only object."""
    (only,) = objects
    return only


def text_of(objects: Sequence[Mapping[str, Any]]) -> str:
    """Return the objects as the documents of one YAML text."""
    return yaml.safe_dump_all(objects, sort_keys=False)


def _objects(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each is not None]


@cache
def _said(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(programs.find(name)), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_S,
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
    )
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout
