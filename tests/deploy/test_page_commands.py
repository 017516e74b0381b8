"""The operator's page on a cluster as kubeadm makes it: there, and back from wherever one is.

Nodes are objects only; `until_images` plays scheduler and kubelets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.desk import Desk, command
from tests.deploy.nodes import node, until_images
from tests.deploy.shipped import KUBEADM, KUBEADM_PATCH, PAGE, Object, kubeadm, patched, text_of
from tests.support.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.cluster

DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
}
UPSTREAM = "registry.k8s.io/kube-proxy:v1.37.1"
OURS = "kproxy:0.1.0"
OURS_BY_MANIFEST = "registry.example/kproxy:0.1.0"
SAVE = "> kube-proxy.yaml"
REPLACE = "replace -f kube-proxy.yaml"
PATCH = "kubeproxydaemonset+strategic.yaml"
LABELS_DECIDE = "leave-labelled-nodes.yaml"


@pytest.fixture
def kubeadm_cluster(plane: ControlPlane) -> ControlPlane:
    """A cluster with kube-proxy as kubeadm installs it, and without anybody to run its pods."""
    objects = [each for name in ("rbac", "configmap", "daemonset") for each in kubeadm(name)]
    plane.apply(text_of(objects))
    return plane


@pytest.fixture
def two_nodes(kubeadm_cluster: ControlPlane) -> Iterator[ControlPlane]:
    """Two nodes with kube-proxy on each, and the controller that puts it there."""
    for name in ("node-a", "node-b"):
        kubeadm_cluster.api.apply(node(name))
    with kubeadm_cluster.controllers("daemonset-controller"):
        until_images(kubeadm_cluster, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})
        yield kubeadm_cluster


@pytest.fixture
def desk(kubeadm_cluster: ControlPlane, tmp_path: Path) -> Desk:
    return Desk(kubeadm_cluster, tmp_path)


def test_the_image_swap_changes_the_image_and_nothing_else(kubeadm_cluster, desk):
    before = spec(kubeadm_cluster)["template"]

    desk.types("set image")

    after = spec(kubeadm_cluster)["template"]
    assert after["spec"]["containers"][0].pop("image") == OURS
    assert before["spec"]["containers"][0].pop("image") == UPSTREAM
    assert after == before


def test_the_patch_for_kubeadm_does_the_same_in_a_cluster_as_in_a_file(kubeadm_cluster, desk):
    wanted = patched(KUBEADM / "daemonset.yaml", KUBEADM_PATCH)

    desk.types(f"--patch-file deploy/kubeadm/patches/{PATCH}")

    live = spec(kubeadm_cluster)
    kubeadm_cluster.api.apply(wanted)
    assert spec(kubeadm_cluster) == live


@pytest.mark.parametrize(
    "steps",
    [
        ["set image"],
        ["set image", "set image again"],
        ["set image", PATCH],
        ["OnDelete", "set image"],
        ["set image", PATCH, "replace -f", "set image"],
    ],
    ids=" and ".join,
)
def test_what_was_saved_undoes_whatever_was_done(kubeadm_cluster, desk, steps):
    desk.types(SAVE)
    before = spec(kubeadm_cluster)

    for step in steps:
        if step == "set image again":
            desk.runs(command("set image").replace(OURS, "kproxy:0.1.1"))
        else:
            desk.types(step)
    assert spec(kubeadm_cluster) != before
    desk.types(REPLACE)

    assert spec(kubeadm_cluster) == before
    assert desk.types("-o jsonpath='{.spec.template.spec.containers[*].image}'") == UPSTREAM


def test_a_named_revision_brings_kube_proxy_back_without_the_file(two_nodes, desk):
    desk.types("set image")
    until_images(two_nodes, {"node-a": [OURS], "node-b": [OURS]})

    assert UPSTREAM in desk.types("rollout history")
    desk.types("rollout undo")
    until_images(two_nodes, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})


def test_a_canary_takes_one_node_and_its_undoing_gives_it_back(two_nodes, desk):
    desk.types(SAVE)
    untouched = names(two_nodes, "node-b")

    desk.types("OnDelete")
    desk.types("set image")
    desk.types("delete pod", "--wait=false")
    until_images(two_nodes, {"node-a": [OURS], "node-b": [UPSTREAM]})

    desk.types(REPLACE)
    until_images(two_nodes, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})
    assert names(two_nodes, "node-b") == untouched

    desk.types("set image")
    desk.types("RollingUpdate")
    until_images(two_nodes, {"node-a": [OURS], "node-b": [OURS]})


def test_a_label_takes_one_node_after_the_other_and_gives_it_back(two_nodes, desk):
    desk.types(f"patch ds kube-proxy --patch-file deploy/kubeadm/{LABELS_DECIDE}")
    make_my_cluster(desk)
    until_images(two_nodes, {"node-a": [UPSTREAM], "node-b": [UPSTREAM]})

    desk.types("label node node-a kproxy=")
    until_images(two_nodes, {"node-a": [OURS_BY_MANIFEST], "node-b": [UPSTREAM]})
    desk.types("apply -k deploy/kustomize/cleanup")
    until_images(two_nodes, {"node-a": [OURS_BY_MANIFEST], "node-b": [OURS, UPSTREAM]})

    desk.types("label node node-a kproxy-")
    until_images(two_nodes, {"node-a": [OURS, UPSTREAM], "node-b": [OURS, UPSTREAM]})


def test_the_label_decides_again_after_it_was_given_up(two_nodes, desk):
    """All nodes taken over, the label not needed any more, and the whole way back."""
    desk.types(SAVE)
    desk.types(f"patch ds kube-proxy --patch-file deploy/kubeadm/{LABELS_DECIDE}")
    make_my_cluster(desk)
    desk.types("label nodes --all kproxy=")
    until_images(two_nodes, {"node-a": [OURS_BY_MANIFEST], "node-b": [OURS_BY_MANIFEST]})

    desk.types("delete ds kube-proxy")
    start, patch = (desk.folder / "my-cluster/kustomization.yaml").read_text().split("patches:\n")
    (desk.folder / "my-cluster/kustomization.yaml").write_text(start)
    desk.types("apply -k my-cluster")
    two_nodes.api.apply(node("node-c"))
    ours = [OURS_BY_MANIFEST]
    until_images(two_nodes, {"node-a": ours, "node-b": ours, "node-c": ours})

    (desk.folder / "my-cluster/kustomization.yaml").write_text(f"{start}patches:\n{patch}")
    desk.types("label nodes --all kproxy=")
    desk.types("apply -k my-cluster")
    desk.types("patch --local -f kube-proxy.yaml")
    until_images(two_nodes, {"node-a": ours, "node-b": ours, "node-c": ours})
    for name in ("node-a", "node-b", "node-c"):
        desk.runs(command("label node node-a kproxy-").replace("node-a", name))
    theirs = [UPSTREAM]
    until_images(two_nodes, {"node-a": theirs, "node-b": theirs, "node-c": theirs})

    desk.types("delete -k my-cluster", "--wait=false")
    desk.types("delete cm -l app.kubernetes.io/name=kproxy")
    left = two_nodes.api.list("/api/v1/namespaces/kube-system/configmaps")
    assert [each for each in left if each["metadata"]["name"].startswith("kproxy")] == []


def test_explain_is_asked_about_all_namespaces_and_answers_as_shown(kubeadm_cluster, desk):
    """Without a kubelet nobody can exec: what would run in the pod runs beside kubectl."""
    endpoints = {"10.244.1.11": "node-a", "10.244.2.12": "node-b"}
    shop = service("shop", "web", "10.96.10.1", endpoints)
    bank = service("bank", "web", "10.96.10.2", endpoints)
    kubeadm_cluster.apply(text_of([node("node-a"), *shop, *bank]))
    whole = command("kproxy explain")
    asked, _, inside = whole.partition("kubectl -n kube-system exec -i kproxy-cr66v -- ")
    inside = inside.replace("/dev/shm/now", str(desk.folder / "now")).replace(
        "/var/lib/kube-proxy/config.conf", "deploy/kustomize/example/config.conf"
    )

    said = desk.runs(asked + inside, NODE_NAME="node-a")

    last = whole.splitlines()[-1]
    shown = PAGE.read_text().partition(f"{last}\n")[2].partition("```")[0]
    assert said.strip() == shown.strip()
    elsewhere = (asked + inside).replace("10.96.10.1", "10.96.10.2")
    assert "bank/web" in desk.runs(elsewhere, NODE_NAME="node-a")
    assert not (desk.folder / "now").exists()


def make_my_cluster(desk: Desk) -> None:
    desk.types("cp -r deploy/kustomize/example")
    desk.types("sed -i")
    desk.types("apply -k my-cluster")


def spec(cluster: ControlPlane) -> Object:
    found: Object = cluster.api.get(DAEMON_SET)["spec"]
    return found


def names(cluster: ControlPlane, on_node: str) -> list[str]:
    return [
        each["metadata"]["name"]
        for each in cluster.api.list("/api/v1/namespaces/kube-system/pods")
        if each["spec"].get("nodeName") == on_node
    ]


def service(namespace: str, name: str, cluster_ip: str, endpoints: dict[str, str]) -> list[Object]:
    """Return a Service on port 80, endpoints on 8080 by address and node, and their namespace."""
    meta = {"name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": cluster_ip, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**meta, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [
                {"addresses": [address], "nodeName": on_node}
                for address, on_node in endpoints.items()
            ],
        },
    ]
