"""The chart: what it refuses, how it hands values on, and what Helm does with it in a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.desk import Desk, block
from tests.deploy.pod_template import pod_template
from tests.deploy.shipped import API_SERVER, Object, Refused, of_kind, templated

pytestmark = pytest.mark.cluster

FIELDS = {"spec.nodeName": "node-a"}
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
OPEN = "config.metricsBindAddress=0.0.0.0:10249"
EVERYTHING = (
    "prometheusRule.enabled=true",
    "dashboard.enabled=true",
    "podMonitor.enabled=true",
    OPEN,
)
CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
DAEMON_SET = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "kproxy", "namespace": "kube-system"},
}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ((), "apiServer"),
        (("apiServer=http://192.0.2.10:6443",), "apiServer"),
        (("apiServer=https://192.0.2.10:6443/",), "apiServer"),
        (("apiServer=https://192.0.2.10:6443 #x",), "apiServer"),
        (
            ("apiServer=https://192.0.2.10:6443\n        insecure-skip-tls-verify: true",),
            "apiServer",
        ),
        (("apiServer=https://kubernetes.default.svc:443",), "without Services"),
        (("apiServer=https://Kubernetes.default",), "without Services"),
        ((API_SERVER, "image.tag=latest"), "tag"),
        ((API_SERVER, "image.digest=sha256:12"), "digest"),
        ((API_SERVER, "config.mode=nftables"), "mode"),
        ((API_SERVER, "config.healthzBindAddress=192.0.2.1:10256"), "healthzBindAddress"),
        ((API_SERVER, "config.healthzBindAddress=0.0.0.0:0"), "healthzBindAddress"),
        ((API_SERVER, "config.metricsBindAddress=0.0.0.0:65536"), "metricsBindAddress.*65535"),
        ((API_SERVER, "config.metricsBindAddress=127.0.0.1:10256"), "different ports"),
        ((API_SERVER, "podLabels.seen=true"), "podLabels"),
        ((API_SERVER, "podAnnotations.seen=1"), "podAnnotations"),
        ((API_SERVER, "nodeSelector.kproxy=null"), "nodeSelector"),
        ((API_SERVER, r"podLabels.app\.kubernetes\.io/name=x"), "app.kubernetes.io/name"),
        ((API_SERVER, r"podLabels.app\.kubernetes\.io/instance=x"), "app.kubernetes.io/instance"),
        ((API_SERVER, "podMonitor.enabled=true"), "Prometheus can reach"),
        *(
            (
                (API_SERVER, "podMonitor.enabled=true", f"config.metricsBindAddress={host}:10249"),
                "Prometheus can reach",
            )
            for host in ("127.0.0.2", "localhost", "[::1]")
        ),
        ((API_SERVER, "tollerations=[]"), "tollerations"),
    ],
)
def test_the_chart_refuses_what_could_not_work(settings, says):
    with pytest.raises(Refused, match=says):
        templated(*settings)


def test_the_chart_hands_every_value_on():
    objects = templated(
        "apiServer=https://[2001:db8::10]:6443",
        "image.repository=registry.example/kproxy",
        "image.tag=0.1.1",
        "config.metricsBindAddress=0.0.0.0:9999",
        "config.conntrack.maxPerCore=0",
        "podMonitor.enabled=true",
        "prometheusRule.enabled=true",
        "dashboard.enabled=true",
        "podLabels.team=network",
        "podAnnotations.seen=yes",
        "imagePullSecrets[0].name=registry",
    )
    daemon_set = of_kind(objects, "DaemonSet")
    template = daemon_set["spec"]["template"]
    config_map = next(each for each in objects if "config.conf" in each.get("data", {}))
    config = yaml.safe_load(config_map["data"]["config.conf"])
    kubeconfig = yaml.safe_load(config_map["data"]["kubeconfig.conf"])
    ports = {each["name"]: each["hostPort"] for each in template["spec"]["containers"][0]["ports"]}

    assert images(objects) == {"registry.example/kproxy:0.1.1"}
    assert kubeconfig["clusters"][0]["cluster"]["server"] == "https://[2001:db8::10]:6443"
    assert ports == {"healthz": 10256, "metrics": 9999}
    assert config["conntrack"] == {"maxPerCore": 0}
    assert config["clientConnection"]["kubeconfig"] == "/var/lib/kube-proxy/kubeconfig.conf"
    assert template["metadata"]["labels"]["team"] == "network"
    assert template["metadata"]["annotations"] == {"seen": "yes"}
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    selector = of_kind(objects, "PodMonitor")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert of_kind(objects, "PrometheusRule")["spec"]["groups"]
    assert any("kproxy.json" in each.get("data", {}) for each in objects)


@pytest.mark.parametrize(
    ("settings", "capabilities", "host_pid"),
    [
        (("config.mode=iptables",), {"NET_ADMIN", "NET_RAW"}, False),
        (("config.mode=ipvs",), {"NET_ADMIN", "NET_RAW"}, False),
        (("config.mode=ebpf",), {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"}, True),
        (
            ("config.mode=iptables", "keepEbpf=true"),
            {"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"},
            True,
        ),
        *(
            (
                ("config.mode=ebpf", f"config.kproxy.ebpf.socketHooks={hooks}"),
                {"NET_ADMIN", "NET_RAW", "BPF", "PERFMON"},
                False,
            )
            for hooks in ("host", "off")
        ),
    ],
)
def test_the_privileges_are_those_of_the_data_path(settings, capabilities, host_pid):
    template = pod_template(of_kind(templated(API_SERVER, *settings), "DaemonSet"), FIELDS)

    (proxy,) = template.main
    assert proxy.capabilities == capabilities
    assert template.host_pid == host_pid


def test_a_digest_names_the_image_whatever_the_tag_is():
    objects = templated(API_SERVER, "image.tag=0.1.1", f"image.digest={DIGEST}")

    assert images(objects) == {f"kproxy@{DIGEST}"}


@pytest.mark.parametrize("release", ["123", "true", "1.5", "null"])
def test_a_release_may_have_a_name_that_yaml_takes_for_something_else(release):
    objects = templated(API_SERVER, *EVERYTHING, release=release)

    assert {type(each) for each in named(objects)} == {str}
    assert of_kind(objects, "DaemonSet")["metadata"]["name"] == release


def test_a_rollback_finds_the_configuration_of_before(plane, tmp_path):
    """Pods of the revision before read it until they are gone, so the upgrade has to leave it."""
    desk = installed(plane, tmp_path)
    before = mounted(plane)

    desk.edits("my-values.yaml", "10.244.0.0/16", "10.245.0.0/16")
    desk.types("helm upgrade")
    assert mounted(plane) != before
    assert kept(plane) == {before, mounted(plane)}

    desk.runs("helm rollback kproxy -n kube-system")
    assert mounted(plane) == before

    desk.runs("helm uninstall kproxy -n kube-system")
    desk.types("delete cm -l app.kubernetes.io/name=kproxy")
    assert kept(plane) == set()


def test_the_label_is_given_up_by_giving_all_values_without_it(plane, tmp_path):
    desk = installed(plane, tmp_path)
    assert node_selector(plane) == {"kubernetes.io/os": "linux", "kproxy": ""}

    desk.edits("my-values.yaml", 'nodeSelector: {kproxy: ""}\n', "")
    desk.types("helm upgrade")

    assert node_selector(plane) == {"kubernetes.io/os": "linux"}


def installed(plane, folder: Path) -> Desk:
    """Install the chart as the operator's page does."""
    desk = Desk(plane, folder)
    (folder / "my-values.yaml").write_text(block("yaml", "apiServer:"))
    desk.types("helm install")
    return desk


def mounted(plane) -> str:
    """Return the name of the ConfigMap that pods of now mount."""
    volumes = plane.api.get(DAEMON_SET)["spec"]["template"]["spec"]["volumes"]
    (name,) = (each["configMap"]["name"] for each in volumes if "configMap" in each)
    return str(name)


def kept(plane) -> set[str]:
    every = {each["metadata"]["name"] for each in plane.api.list(CONFIG_MAPS)}
    return {name for name in every if name.startswith("kproxy-")}


def node_selector(plane) -> dict[str, str]:
    selector: dict[str, str] = plane.api.get(DAEMON_SET)["spec"]["template"]["spec"]["nodeSelector"]
    return selector


def images(objects: list[Object]) -> set[str]:
    template = pod_template(of_kind(objects, "DaemonSet"), FIELDS)
    return {each.image for each in (*template.init, *template.main)}


def named(part: object) -> Iterator[object]:
    """Yield every name, namespace and label in objects, at any depth."""
    if isinstance(part, list):
        for each in part:
            yield from named(each)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("name", "namespace", "serviceAccountName"):
                yield value
            elif key in ("labels", "matchLabels"):
                yield from value.values()
            else:
                yield from named(value)
