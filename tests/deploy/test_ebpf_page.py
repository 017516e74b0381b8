"""The page of the eBPF data path, on a cluster of kproxy in iptables mode: there and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.desk import Desk, block
from tests.deploy.nodes import node, until_modes
from tests.deploy.pod_template import pod_template
from tests.deploy.shipped import EBPF_PAGE, Object, of_kind
from tests.support.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

IPTABLES, EBPF = ["iptables"], ["ebpf, privileges of ebpf"]
LEAVING_EBPF = ["iptables, privileges of ebpf"]
DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "kproxy", "namespace": "kube-system"},
}


@pytest.fixture
def desk(plane: ControlPlane, tmp_path: Path) -> Iterator[Desk]:
    """Two nodes with kproxy in iptables mode on each."""
    for name in ("node-a", "node-b"):
        plane.api.apply(node(name))
    desk = Desk(plane, tmp_path)
    for step in ("cp -r deploy/kustomize/example", "sed -i", "label nodes --all kproxy="):
        desk.types(step)
    with plane.controllers("daemonset-controller"):
        desk.types("apply -k my-cluster")
        until_modes(plane, {"node-a": IPTABLES, "node-b": IPTABLES})
        yield desk


def test_one_node_goes_to_ebpf_first_and_then_all_and_all_come_back(desk, plane):
    kustomization = desk.folder / "my-cluster/kustomization.yaml"
    before = kustomization.read_text()
    one_node = before + block("yaml", "path: /spec/updateStrategy", EBPF_PAGE)

    kustomization.write_text(one_node)
    for step in ("mode: ebpf", "echo 'components:", "apply -k my-cluster"):
        desk.types(step, page=EBPF_PAGE)
    until_modes(plane, {"node-a": IPTABLES, "node-b": IPTABLES})
    desk.types("delete pod", "--wait=false", page=EBPF_PAGE)
    until_modes(plane, {"node-a": EBPF, "node-b": IPTABLES})

    desk.edits("my-cluster/kustomization.yaml", one_node.removeprefix(before), "")
    desk.types("apply -k my-cluster", page=EBPF_PAGE)
    until_modes(plane, {"node-a": EBPF, "node-b": EBPF})

    desk.types("mode: iptables", page=EBPF_PAGE)
    desk.types("apply -k my-cluster", page=EBPF_PAGE)
    until_modes(plane, {"node-a": LEAVING_EBPF, "node-b": LEAVING_EBPF})
    desk.types("sed -i '/^components:", page=EBPF_PAGE)
    desk.types("apply -k my-cluster", page=EBPF_PAGE)
    until_modes(plane, {"node-a": IPTABLES, "node-b": IPTABLES})
    assert kustomization.read_text() == before


def test_fewer_privileges_are_two_more_lines(plane, tmp_path):
    desk = Desk(plane, tmp_path)
    for step in ("cp -r deploy/kustomize/example", "sed -i"):
        desk.types(step)
    for step in ("mode: ebpf", "echo 'components:", "kustomize/ebpf-host]", "socketHooks: host"):
        desk.types(step, page=EBPF_PAGE)

    objects = list(yaml.safe_load_all(desk.runs("kubectl kustomize my-cluster")))

    daemon_set = of_kind(objects, "DaemonSet")
    (proxy,) = pod_template(daemon_set, {"spec.nodeName": "node-a"}).main
    assert proxy.capabilities == {"NET_ADMIN", "NET_RAW", "BPF", "PERFMON"}
    config = yaml.safe_load(of_kind(objects, "ConfigMap")["data"]["config.conf"])
    assert (config["mode"], config["kproxy"]) == ("ebpf", {"ebpf": {"socketHooks": "host"}})


def test_the_chart_takes_the_same_two_steps(plane, tmp_path):
    desk = Desk(plane, tmp_path)
    values = block("yaml", "apiServer:")
    one_node = block("yaml", "rollingUpdate: null", EBPF_PAGE)
    (tmp_path / "my-values.yaml").write_text(values)
    desk.types("helm install")

    desk.edits("my-values.yaml", "config: {", "config: {mode: ebpf, ")
    written = (tmp_path / "my-values.yaml").read_text()
    (tmp_path / "my-values.yaml").write_text(written + one_node)
    desk.types("helm upgrade")
    assert strategy(plane) == {"type": "OnDelete"}
    assert pod(plane)["hostPID"]

    desk.edits("my-values.yaml", one_node, "")
    desk.types("helm upgrade")
    assert strategy(plane)["type"] == "RollingUpdate"


def strategy(cluster: ControlPlane) -> Object:
    found: Object = cluster.api.get(DAEMON_SET)["spec"]["updateStrategy"]
    return found


def pod(cluster: ControlPlane) -> Object:
    found: Object = cluster.api.get(DAEMON_SET)["spec"]["template"]["spec"]
    return found
