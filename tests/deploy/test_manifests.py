"""What the shipped manifests grant, promise and refuse, without asking an API server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import yaml

from kproxy.config.loading import load_configuration
from tests.deploy.pod_template import Container, HostPath, Mount, pod_template
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
    kustomized_for,
    of_kind,
    one,
    patched,
    templated,
)

pytestmark = pytest.mark.cluster

FIELDS = {"spec.nodeName": "node-a"}
IN_IPVS_MODE, IN_EBPF_MODE = "config.mode=ipvs", "config.mode=ebpf"
HOST_ALONE = (IN_EBPF_MODE, "config.kproxy.ebpf.socketHooks=host")
RULES = frozenset({"NET_ADMIN", "NET_RAW"})  # all that the modes iptables and ipvs take
EBPF = RULES | {"SYS_ADMIN", "SYS_PTRACE"}
EBPF_OF_THE_HOST_ALONE = RULES | {"BPF", "PERFMON"}
BPFFS = HostPath("/sys/fs/bpf", "Directory")
CGROUP = HostPath("/sys/fs/cgroup", "Directory")
XTABLES_LOCK = HostPath("/run/xtables.lock", "FileOrCreate")
COMMAND = (
    "/usr/local/bin/kube-proxy",
    "--config=/var/lib/kube-proxy/config.conf",
    "--hostname-override=node-a",
)


def in_chart(mode: str) -> list[Object]:
    """Return what the chart makes in a mode."""
    return templated(API_SERVER, f"config.mode={mode}")


@pytest.fixture(
    params=[
        "base",
        "base in ipvs mode",
        "base in ebpf mode",
        "base in ebpf mode, host alone",
        "example",
        "chart",
        "chart in ipvs mode",
        "chart in ebpf mode",
        "kubeadm patch",
    ]
)
def workload(request: pytest.FixtureRequest) -> Object:
    """Every DaemonSet of ours that runs kproxy."""
    match request.param:
        case "base in ipvs mode":
            return of_kind(kustomized_for("ipvs"), "DaemonSet")
        case "base in ebpf mode":
            return of_kind(kustomized_for("ebpf"), "DaemonSet")
        case "base in ebpf mode, host alone":
            return of_kind(kustomized_for("ebpf", hooks="host"), "DaemonSet")
        case "chart in ipvs mode":
            return of_kind(templated(API_SERVER, IN_IPVS_MODE), "DaemonSet")
        case "chart in ebpf mode":
            return of_kind(templated(API_SERVER, IN_EBPF_MODE), "DaemonSet")
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
    into_pods = EBPF if pod_template(workload, FIELDS).host_pid else EBPF_OF_THE_HOST_ALONE
    assert proxy.capabilities == (into_pods if is_ebpf(workload) else RULES)
    assert security(workload, "containers")["seccompProfile"] == {"type": "RuntimeDefault"}


def test_nothing_of_the_node_can_be_written_but_through_the_kernel(workload):
    template = pod_template(workload, FIELDS)

    for container in (*template.init, *template.main):
        written = {mount.source for mount in container.mounts if not mount.read_only}
        assert written <= ({BPFFS, CGROUP} if is_ebpf(workload) else set()), container.name
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


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ((), ("iptables",)),
        ((IN_IPVS_MODE,), ("ipvs",)),
        ((IN_EBPF_MODE,), ("ebpf",)),
        (HOST_ALONE, ("ebpf", "host")),
    ],
    ids=["iptables", "ipvs", "ebpf", "ebpf, host alone"],
)
def test_the_chart_makes_what_the_base_makes(settings, base):
    chart = templated(API_SERVER, *settings)
    assert comparable(chart) == comparable(kustomized_for(*base))


@pytest.mark.parametrize("render", [kustomized_for, in_chart], ids=["base", "chart"])
def test_mode_ipvs_takes_another_configuration_and_nothing_else(render):
    plain, ipvs = comparable(render("iptables")), comparable(render("ipvs"))
    config = ("ConfigMap", "kproxy-DIGEST")

    assert plain.pop(config)["data"]["config.conf"].pop("mode") == "iptables"
    assert ipvs.pop(config)["data"]["config.conf"].pop("mode") == "ipvs"
    assert plain == ipvs


def test_only_who_looks_into_pods_sees_the_nodes_processes(workload):
    template = pod_template(workload, FIELDS)

    assert template.host_pid == ("SYS_PTRACE" in the_proxy(workload).capabilities)


def test_what_init_mounts_for_the_ebpf_data_path_is_seen_by_the_node_and_the_proxy():
    template = pod_template(of_kind(kustomized_for("ebpf"), "DaemonSet"), FIELDS)
    settings, proxy = one_container(template.init), one_container(template.main)

    assert Mount(BPFFS, "/sys/fs/bpf", read_only=False, shared=True) in settings.mounts
    assert Mount(BPFFS, "/sys/fs/bpf", read_only=False) in proxy.mounts
    assert settings.privileged, "nobody else may share what it mounts"


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


@pytest.mark.parametrize(
    "name",
    ["base", "ipvs", "ebpf", "ebpf, host alone", "example", "chart", "chart, ipvs", "chart, ebpf"],
)
def test_kproxy_reads_the_shipped_configuration_without_a_remark(name, tmp_path):
    match name:
        case "ipvs" | "ebpf":
            objects = kustomized_for(name)
        case "ebpf, host alone":
            objects = kustomized_for("ebpf", hooks="host")
        case "chart":
            objects = templated(API_SERVER)
        case "chart, ipvs":
            objects = templated(API_SERVER, IN_IPVS_MODE)
        case "chart, ebpf":
            objects = templated(API_SERVER, IN_EBPF_MODE)
        case _:
            objects = kustomized(BASE.parent / name)
    files = of_kind(objects, "ConfigMap")["data"]
    (tmp_path / "config.conf").write_text(files["config.conf"])

    loaded = load_configuration(tmp_path / "config.conf", None)

    assert (loaded.warnings, loaded.without_effect) == ((), ())
    kubeconfig = loaded.configuration.client_connection.kubeconfig
    assert kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf"
    server = one(yaml.safe_load(files["kubeconfig.conf"])["clusters"])["cluster"]["server"]
    assert server.startswith("https://")
    assert "kubernetes.default" not in server


def test_clean_up_asks_for_no_more_than_the_proxy():
    daemon_set = of_kind(kustomized(CLEANUP), "DaemonSet")
    template = pod_template(daemon_set, FIELDS)
    proxy = the_proxy(of_kind(kustomized_for("ebpf"), "DaemonSet"))

    for container in (*template.init, *template.main):
        assert not container.privileged
        assert container.capabilities <= proxy.capabilities
        assert container.image == proxy.image
    assert not daemon_set["spec"]["template"]["spec"]["automountServiceAccountToken"]


def test_clean_up_finds_room_on_a_full_node():
    spec = of_kind(kustomized(CLEANUP), "DaemonSet")["spec"]["template"]["spec"]

    assert spec["priorityClassName"] == "system-node-critical"
    for container in (*spec["initContainers"], *spec["containers"]):
        assert set(container["resources"]) == {"requests"}, container["name"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, container["name"]


def test_clean_up_comes_from_the_registry_that_is_written_into_it(tmp_path):
    folder = tmp_path / "cleanup"
    shutil.copytree(CLEANUP, folder)
    file = folder / "kustomization.yaml"
    file.write_text(file.read_text().replace("newName: kproxy", "newName: registry.example/kproxy"))

    template = pod_template(of_kind(kustomized(folder), "DaemonSet"), FIELDS)

    images = {each.image for each in (*template.init, *template.main)}
    assert images == {"registry.example/kproxy:0.1.0"}


@pytest.mark.parametrize("name", ["base", "example", "chart"])
def test_metrics_are_open_to_the_node_only_until_somebody_asks_for_more(name):
    objects = templated(API_SERVER) if name == "chart" else kustomized(BASE.parent / name)
    config = yaml.safe_load(of_kind(objects, "ConfigMap")["data"]["config.conf"])

    assert config["metricsBindAddress"] == "127.0.0.1:10249"


def is_ebpf(workload: Object) -> bool:
    """Say whether this is for the ebpf data path."""
    return "bpffs" in [each["name"] for each in workload["spec"]["template"]["spec"]["volumes"]]


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
    each["metadata"].pop("annotations", None)  # of Helm
    if each["kind"] == "DaemonSet":
        each["spec"].pop("selector")
        each["spec"]["template"].pop("metadata")
        pod = each["spec"]["template"]["spec"]
        for container in (pod, *pod["initContainers"], *pod["containers"]):
            for key in {"volumes", "volumeMounts"} & set(container):  # in no order
                container[key].sort(key=lambda one: (one["name"], one.get("mountPath")))
    for key, value in each.items():
        is_files = each["kind"] == "ConfigMap" and key == "data"
        yield key, {k: yaml.safe_load(v) for k, v in value.items()} if is_files else value
