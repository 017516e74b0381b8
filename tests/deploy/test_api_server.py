"""What a real API server makes of the shipped manifests, and of the swap on a kubeadm cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.deploy.nodes import node, until_images
from tests.deploy.shipped import (
    API_SERVER,
    BASE,
    CLEANUP,
    EXAMPLE,
    KUBEADM,
    KUBEADM_PATCH,
    Object,
    kubeadm,
    kustomized,
    page_command,
    patched,
    templated,
    text_of,
)

pytestmark = pytest.mark.cluster

# These exist only where prometheus-operator is installed.
CUSTOM = {"PodMonitor", "PrometheusRule"}
DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
}
UPSTREAM = "registry.k8s.io/kube-proxy:v1.37.1"
OURS = "kproxy:0.1.0"


@pytest.fixture
def kubeadm_cluster(plane: ControlPlane) -> ControlPlane:
    """A cluster with kube-proxy as kubeadm installs it, and without anybody to run its pods."""
    objects = [each for name in ("rbac", "configmap", "daemonset") for each in kubeadm(name)]
    plane.apply(text_of(objects))
    return plane


@pytest.mark.parametrize(
    "objects",
    [
        lambda: kustomized(BASE),
        lambda: kustomized(EXAMPLE),
        lambda: kustomized(CLEANUP),
        lambda: templated(API_SERVER),
        lambda: templated(
            API_SERVER,
            "config.metricsBindAddress=0.0.0.0:10249",
            "podMonitor.enabled=true",
            "prometheusRule.enabled=true",
            "dashboard.enabled=true",
        ),
    ],
    ids=["base", "example", "cleanup", "chart", "chart with all options"],
)
def test_the_api_server_accepts_what_is_shipped(plane, objects: Callable[[], list[Object]]):
    sent = [each for each in objects() if each["kind"] not in CUSTOM]

    said = plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=text_of(sent),
    )  # fmt: skip

    assert said.count("serverside-applied (server dry run)") == len(sent)


def test_the_image_swap_changes_the_image_and_nothing_else(kubeadm_cluster):
    before = kubeadm_cluster.api.get(DAEMON_SET)["spec"]["template"]

    kubeadm_cluster.kubectl(*page_command("set image"))

    after = kubeadm_cluster.api.get(DAEMON_SET)["spec"]["template"]
    assert after["spec"]["containers"][0].pop("image") == OURS
    assert before["spec"]["containers"][0].pop("image") == UPSTREAM
    assert after == before


def test_the_patch_for_kubeadm_does_the_same_in_a_cluster_as_in_a_file(kubeadm_cluster):
    wanted = patched(KUBEADM / "daemonset.yaml", KUBEADM_PATCH)

    kubeadm_cluster.kubectl(*page_command("kubeproxydaemonset+strategic.yaml"))

    live = kubeadm_cluster.api.get(DAEMON_SET)["spec"]
    kubeadm_cluster.api.apply(wanted)
    assert kubeadm_cluster.api.get(DAEMON_SET)["spec"] == live


def test_a_canary_takes_one_node_and_its_undoing_gives_it_back(two_nodes):
    """By the commands of the operator's page; nobody waits for a kubelet here."""
    delete_pod = (*page_command("delete pod"), "--wait=false")

    two_nodes.kubectl(*page_command("OnDelete"))
    two_nodes.kubectl(*page_command("set image"))
    two_nodes.kubectl(*delete_pod)
    until_images(two_nodes, {"node-a": [OURS], "node-b": [UPSTREAM]})

    two_nodes.kubectl(*page_command("rollout undo"))
    two_nodes.kubectl(*delete_pod)
    until_images(two_nodes, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})

    two_nodes.kubectl(*page_command("set image"))
    two_nodes.kubectl(*page_command("RollingUpdate"))
    until_images(two_nodes, {"node-a": [OURS], "node-b": [OURS]})


def test_a_label_takes_one_node_after_the_other_and_gives_it_back(two_nodes):
    """By the commands of the operator's page for manifests of our own."""
    ours = "registry.example/kproxy:0.1.0"

    two_nodes.kubectl(*page_command("leave-labelled-nodes.yaml"))
    two_nodes.kubectl("apply", "-k", str(EXAMPLE))
    until_images(two_nodes, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})

    two_nodes.kubectl(*page_command("label node node-a kproxy="))
    until_images(two_nodes, {"node-a": [ours], "node-b": [UPSTREAM]})
    two_nodes.kubectl(*page_command("apply -k deploy/kustomize/cleanup"))
    until_images(two_nodes, {"node-a": [ours], "node-b": [OURS, UPSTREAM]})

    two_nodes.kubectl(*page_command("label node node-a kproxy-"))
    until_images(two_nodes, {"node-a": [OURS, UPSTREAM], "node-b": [OURS, UPSTREAM]})


@pytest.fixture
def two_nodes(kubeadm_cluster: ControlPlane) -> Iterator[ControlPlane]:
    """Two nodes with kube-proxy on each, and the controller that puts it there."""
    for name in ("node-a", "node-b"):
        kubeadm_cluster.api.apply(node(name))
    with kubeadm_cluster.controllers("daemonset-controller"):
        until_images(kubeadm_cluster, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})
        yield kubeadm_cluster
