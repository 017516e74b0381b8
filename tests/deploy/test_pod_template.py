"""What a container runtime makes of a pod template."""

from __future__ import annotations

import pytest

from tests.deploy.pod_template import (
    ALL,
    RUNTIME_DEFAULT,
    TOKEN_FOLDER,
    ConfigMap,
    Container,
    EmptyDir,
    HostPath,
    Mount,
    Token,
    expanded,
    pod_template,
)
from tests.deploy.shipped import Object, kubeadm, one


def test_kubeadms_daemon_set_starts_kube_proxy_like_this():
    template = pod_template(one(kubeadm("daemonset")), {"spec.nodeName": "node-a"})

    assert template.container("kube-proxy") == Container(
        name="kube-proxy",
        image="registry.k8s.io/kube-proxy:v1.37.1",
        argv=(
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=node-a",
        ),
        env={"NODE_NAME": "node-a"},
        mounts=(
            Mount(ConfigMap("kube-proxy"), "/var/lib/kube-proxy", read_only=True),
            Mount(HostPath("/run/xtables.lock", "FileOrCreate"), "/run/xtables.lock", False),
            Mount(HostPath("/lib/modules", ""), "/lib/modules", read_only=True),
            Mount(Token(), TOKEN_FOLDER, read_only=True),
        ),
        privileged=True,
        capabilities=ALL,
        read_only_root=False,
        may_gain_privileges=True,
    )
    assert template.host_network
    assert not template.host_pid
    assert template.service_account == "kube-proxy"


@pytest.mark.parametrize(
    ("word", "seen"),
    [
        ("--name=$(NAME)", "--name=node-a"),
        ("$(NAME)$(NAME)", "node-anode-a"),
        ("$(OTHER)", "$(OTHER)"),
        ("$$(NAME)", "$(NAME)"),
        ("$NAME", "$NAME"),
    ],
)
def test_references_are_replaced_as_the_kubelet_does(word, seen):
    assert expanded(word, {"NAME": "node-a"}) == seen


@pytest.mark.parametrize(
    ("capabilities", "granted"),
    [
        ({}, RUNTIME_DEFAULT),
        ({"drop": ["ALL"]}, frozenset()),
        ({"drop": ["ALL"], "add": ["NET_ADMIN"]}, {"NET_ADMIN"}),
        ({"drop": ["NET_RAW"]}, RUNTIME_DEFAULT - {"NET_RAW"}),
        ({"drop": ["NET_RAW"], "add": ["NET_RAW"]}, RUNTIME_DEFAULT),
        ({"add": ["ALL"]}, ALL),
    ],
)
def test_capabilities_are_dropped_first_and_added_then(capabilities, granted):
    container = read(security={"capabilities": capabilities})

    assert container.capabilities == granted


def test_a_volume_in_memory_is_writable_unless_mounted_read_only():
    scratch = {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    mounts = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "scratch", "mountPath": "/seen", "readOnly": True},
    ]

    container = read(volumes=[scratch], volumeMounts=mounts, token=False)

    folder = EmptyDir(in_memory=True, size_limit="1Mi")
    assert container.mounts == (Mount(folder, "/tmp", False), Mount(folder, "/seen", True))


def test_a_volume_that_no_manifest_has_is_an_error():
    with pytest.raises(ValueError, match="secrets"):
        read(volumes=[{"name": "secrets", "secret": {"secretName": "x"}}])


def read(
    *,
    security: Object | None = None,
    volumes: list[Object] | None = None,
    token: bool = True,
    **container: object,
) -> Container:
    spec: Object = {
        "automountServiceAccountToken": token,
        "volumes": volumes or [],
        "containers": [
            {"name": "c", "image": "i:1", "securityContext": security or {}, **container}
        ],
    }
    (only,) = pod_template({"spec": {"template": {"spec": spec}}}, {}).main
    return only
