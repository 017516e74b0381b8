"""What the shipped manifests grant, promise and refuse, without asking an API server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import yaml

from kproxy.config import load_configuration
from tests.deploy.pod_template import Container, HostPath, Mount, pod_template
from tests.deploy.shipped import (
    API_SERVER,
    BASE,
    CLEANUP,
    EXAMPLE,
    KUBEADM,
    KUBEADM_PATCH,
    Object,
    Refused,
    kubeadm,
    kustomized,
    of_kind,
    one,
    patched,
    templated,
)

pytestmark = pytest.mark.cluster

FIELDS = {"spec.nodeName": "node-a"}
XTABLES_LOCK = HostPath("/run/xtables.lock", "FileOrCreate")
COMMAND = (
    "/usr/local/bin/kube-proxy",
    "--config=/var/lib/kube-proxy/config.conf",
    "--hostname-override=node-a",
)


@pytest.fixture(params=["base", "example", "chart", "kubeadm patch"])
def workload(request: pytest.FixtureRequest) -> Object:
    """Every DaemonSet of ours that runs kproxy."""
    match request.param:
        case "base":
            return of_kind(kustomized(BASE), "DaemonSet")
        case "example":
            return of_kind(kustomized(EXAMPLE), "DaemonSet")
        case "chart":
            return of_kind(templated(API_SERVER), "DaemonSet")
    return patched(KUBEADM / "daemonset.yaml", KUBEADM_PATCH)


def test_the_proxy_has_no_privilege_beyond_its_data_path(workload):
    proxy = the_proxy(workload)

    assert not proxy.privileged
    assert not proxy.may_gain_privileges
    assert proxy.read_only_root
    assert proxy.capabilities == {"NET_ADMIN", "NET_RAW"}
    assert security(workload, "containers")["seccompProfile"] == {"type": "RuntimeDefault"}


def test_nothing_of_the_node_can_be_written_but_through_the_kernel(workload):
    template = pod_template(workload, FIELDS)

    for container in (*template.init, *template.main):
        assert all(mount.read_only for mount in container.mounts), container.name
        assert container.read_only_root, container.name
        assert XTABLES_LOCK in [mount.source for mount in container.mounts], container.name


def test_what_takes_privileges_ends_before_the_proxy_starts(workload):
    settings = one_container(pod_template(workload, FIELDS).init)

    assert settings.privileged
    assert settings.argv == (*COMMAND, "--init-only")
    assert Mount(HostPath("/lib/modules", ""), "/lib/modules", read_only=True) in settings.mounts


def test_both_containers_start_as_kubeadm_starts_kube_proxy(workload):
    upstream = one_container(pod_template(one(kubeadm("daemonset")), FIELDS).main)

    assert the_proxy(workload).argv == upstream.argv == COMMAND


def test_every_image_is_pinned_to_the_same_version(workload):
    template = pod_template(workload, FIELDS)
    tags = {each.image.rpartition(":")[2] for each in (*template.init, *template.main)}

    assert tags == {"0.1.0"}


def test_it_starts_first_on_every_node_and_is_evicted_last(workload):
    spec = workload["spec"]["template"]["spec"]

    assert pod_template(workload, FIELDS).host_network
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["nodeSelector"].pop("kubernetes.io/os") == "linux"
    assert set(spec["nodeSelector"]) <= {"kproxy"}, "the label of a node that has been taken over"
    for container in (*spec["initContainers"], *spec["containers"]):
        assert set(container["resources"]) == {"requests"}, "a limit would starve a repair"


def test_a_restart_takes_minutes_of_trouble_and_unreadiness_seconds(workload):
    container = one(workload["spec"]["template"]["spec"]["containers"])
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}

    def seconds(probe: Object) -> int:
        return probe["periodSeconds"] * probe["failureThreshold"]

    ready, live = container["readinessProbe"], container["livenessProbe"]
    assert (ready["httpGet"]["path"], live["httpGet"]["path"]) == ("/healthz", "/livez")
    assert seconds(ready) <= 10
    assert seconds(live) >= 300
    for probe in (ready, live):
        assert probe["httpGet"]["host"] == "127.0.0.1"
        assert ports.get(probe["httpGet"]["port"], probe["httpGet"]["port"]) == 10256


def test_the_chart_makes_what_the_base_makes():
    assert comparable(templated(API_SERVER)) == comparable(kustomized(BASE))


@pytest.mark.parametrize("tool", ["kustomize", "helm"])
def test_a_changed_configuration_is_a_rolling_update(tool, tmp_path):
    """A file that changes under all nodes at once would end all proxies at once if it is wrong."""

    def names(clusterCIDR: str) -> tuple[str, str]:
        if tool == "helm":
            objects = templated(API_SERVER, f"config.clusterCIDR={clusterCIDR}")
        else:
            folder = tmp_path / clusterCIDR.partition("/")[0]
            shutil.copytree(BASE, folder)
            config = folder / "config.conf"
            config.write_text(config.read_text().replace('""', clusterCIDR))
            objects = kustomized(folder)
        daemon_set = of_kind(objects, "DaemonSet")
        (volume,) = (
            each["configMap"]["name"]
            for each in daemon_set["spec"]["template"]["spec"]["volumes"]
            if "configMap" in each
        )
        return of_kind(objects, "ConfigMap")["metadata"]["name"], volume

    one_name, another = names("10.244.0.0/16"), names("10.245.0.0/16")
    assert one_name[0] == one_name[1]
    assert another[0] == another[1]
    assert one_name[0] != another[0]


@pytest.mark.parametrize("name", ["base", "example", "chart"])
def test_kproxy_reads_the_shipped_configuration_without_a_remark(name, tmp_path):
    objects = templated(API_SERVER) if name == "chart" else kustomized(BASE.parent / name)
    files = of_kind(objects, "ConfigMap")["data"]
    (tmp_path / "config.conf").write_text(files["config.conf"])

    loaded = load_configuration(tmp_path / "config.conf", None)

    assert loaded.warnings == ()
    kubeconfig = loaded.configuration.client_connection.kubeconfig
    assert kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf"
    server = one(yaml.safe_load(files["kubeconfig.conf"])["clusters"])["cluster"]["server"]
    assert server.startswith("https://")
    assert "kubernetes.default" not in server


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ((), "apiServer"),
        (("apiServer=http://192.0.2.10:6443",), "apiServer"),
        ((API_SERVER, "image.tag=latest"), "tag"),
        ((API_SERVER, "config.mode=ebpf"), "mode"),
        ((API_SERVER, "config.healthzBindAddress=192.0.2.1:10256"), "healthzBindAddress"),
        ((API_SERVER, "podMonitor.enabled=true"), "metricsBindAddress"),
        ((API_SERVER, "tollerations=[]"), "tollerations"),
    ],
)
def test_the_chart_refuses_what_could_not_work(settings, says):
    with pytest.raises(Refused, match=says):
        templated(*settings)


def test_the_chart_hands_every_value_on():
    objects = templated(
        "apiServer=https://192.0.2.10:6443",
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
    ports = {each["name"]: each["hostPort"] for each in template["spec"]["containers"][0]["ports"]}

    assert the_proxy(daemon_set).image == "registry.example/kproxy:0.1.1"
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


def test_clean_up_asks_for_no_more_than_the_proxy():
    daemon_set = of_kind(kustomized(CLEANUP), "DaemonSet")
    template = pod_template(daemon_set, FIELDS)
    proxy = the_proxy(of_kind(kustomized(BASE), "DaemonSet"))

    for container in (*template.init, *template.main):
        assert not container.privileged
        assert container.capabilities <= proxy.capabilities
        assert container.image == proxy.image
    assert not daemon_set["spec"]["template"]["spec"]["automountServiceAccountToken"]


def the_proxy(workload: Object) -> Container:
    return one_container(pod_template(workload, FIELDS).main)


def one_container(containers: tuple[Container, ...]) -> Container:
    (only,) = containers
    return only


def security(workload: Object, key: str) -> Object:
    context: Object = one(workload["spec"]["template"]["spec"][key])["securityContext"]
    return context


def comparable(objects: list[Object]) -> dict[tuple[str, str], Object]:
    """Objects by kind and name, without labels, digests in names and the spelling of files."""
    (digested,) = (each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap")
    text = yaml.safe_dump(objects).replace(digested, "kproxy-DIGEST")
    return {
        (each["kind"], each["metadata"]["name"]): dict(_comparable(each))
        for each in yaml.safe_load(text)
    }


def _comparable(each: Object) -> Iterator[tuple[str, object]]:
    each["metadata"].pop("labels", None)
    if each["kind"] == "DaemonSet":
        each["spec"].pop("selector")
        each["spec"]["template"].pop("metadata")
    for key, value in each.items():
        is_files = each["kind"] == "ConfigMap" and key == "data"
        yield key, {k: yaml.safe_load(v) for k, v in value.items()} if is_files else value
