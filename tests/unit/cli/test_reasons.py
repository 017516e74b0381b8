"""What `kproxy explain` gives as the reason where nothing is forwarded, and what the log says."""

import json
import logging
import random

import pytest

from kproxy.core.compile import Compiler
from kproxy.core.objects import EndpointSlice, Kind, Service
from kproxy.core.settings import Settings
from kproxy.core.store import Deleted, Replaced, Upserted
from kproxy.proxy.unserved import UnservedOfCluster, UnservedOfFolder
from kproxy.watch.manifests.content import read_content
from kproxy.watch.manifests.source import load

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: plant-sensor, namespace: factory}
spec: {clusterIP: 10.96.14.20, ports: [{protocol: TCP, port: 80, targetPort: 9376}]}
---
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: plant-sensor-1, namespace: factory, labels: {LABEL}}
addressType: IPv4
ports: [{name: "", port: 9376, protocol: TCP}]
endpoints: [{addresses: ["10.1.2.3"]}, {addresses: ["10.4.5.6"], conditions: {ready: true}}]
---
""".replace("LABEL", "kubernetes.io/service-name: plant-sensor")
CAMERA = """\
apiVersion: v1
kind: Service
metadata: {name: camera}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  clusterIP: 10.96.33.3
  ports: [{nodePort: 30033, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: camera-2xk9p, labels: {kubernetes.io/service-name: camera}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
- addresses: [10.244.1.40]
  NODE
"""
OURS = "kubernetes.io/service-name: plant-sensor"
THE_SLICE = "EndpointSlice factory/plant-sensor-1"
LEFT_OUT = f"{THE_SLICE} (all.yaml) is left out: its"
NO_SLICE = f"no EndpointSlice in namespace factory has the label {OURS}"


def edited(*changes):
    text = SLICE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


MISTAKES = [
    ("the port has another name", edited(('name: ""', "name: http")),
     f"{THE_SLICE} has no TCP port without a name, as port 80 of the Service is; it has 'http' "
     "TCP: name both alike"),
    ("the port has another protocol", edited(("protocol: TCP", "protocol: UDP")),
     f"{THE_SLICE} has no TCP port without a name, as port 80 of the Service is; it has one "
     "without a name UDP: name both alike"),
    ("there is no label", edited((OURS, "app: plant-sensor")),
     f"{LEFT_OUT} metadata.labels have no kubernetes.io/service-name, so it belongs to no Service"),
    ("the label has a letter too many", edited((OURS, OURS + "s")),
     f"{THE_SLICE} has the label kubernetes.io/service-name: 'plant-sensors', which is no Service; "
     "for this one write plant-sensor"),
    ("the label lacks a letter, and the slice is named after it",
     edited((OURS, OURS[:-1]), ("name: plant-sensor-1", "name: x-1")),
     "EndpointSlice factory/x-1 has the label kubernetes.io/service-name: 'plant-senso', which is "
     "no Service; for this one write plant-sensor"),
    ("there are no ports", edited(('ports: [{name: "", port: 9376, protocol: TCP}]', "ports: []")),
     f"{THE_SLICE} has no ports; write those that its endpoints listen at"),
    ("none is ready", edited(('["10.1.2.3"]', '["10.1.2.3"], conditions: {ready: false}'),
                             ("ready: true", "ready: false")),
     f"none of the 2 endpoints is ready in {THE_SLICE}"),
    ("the last one ends", edited(('{addresses: ["10.1.2.3"]}, ', ""),
                                 ("ready: true", "ready: false, serving: false, terminating: yes")),
     f"the only endpoint, 10.4.5.6, is not ready (1 terminating) in {THE_SLICE}"),
    ("there are no endpoints", SLICE.partition("endpoints:")[0] + "endpoints: []\n",
     f"{THE_SLICE} has no endpoints"),
    ("it is in another namespace", edited(("namespace: factory", "namespace: default")),
     f"EndpointSlice default/plant-sensor-1 has the label {OURS}, but is not in the Service's "
     "namespace factory"),
    ("the apiVersion is another", edited(("discovery.k8s.io/v1", "v1")),
     f"{LEFT_OUT} apiVersion 'v1' is passed over; write discovery.k8s.io/v1"),
    ("the apiVersion is an old one", edited(("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1")),
     f"{LEFT_OUT} apiVersion 'discovery.k8s.io/v1beta1' is passed over; write "
     "discovery.k8s.io/v1, and nodeName and zone in place of topology"),
    ("the kind has a small letter", edited(("EndpointSlice", "Endpointslice")),
     f"{LEFT_OUT} kind 'Endpointslice' is passed over; write EndpointSlice"),
    ("it is of the old kind", "apiVersion: v1\nkind: Endpoints\n"
     "metadata: {name: plant-sensor, namespace: factory}\n",
     "Endpoints factory/plant-sensor (all.yaml) is left out: it is not used; Services get their "
     "endpoints from EndpointSlices"),
    ("it is refused", edited(("10.1.2.3", "10.1.2")),
     f"{LEFT_OUT} endpoints[0].addresses[0] is no IP address"),
    ("it is of the other family", edited(("IPv4", "IPv6"), ("10.1.2.3", "fd00::1"),
                                         ("10.4.5.6", "fd00::2")),
     f"{THE_SLICE} has addressType IPv6, and not IPv4"),
    ("it has names for addresses", edited(("IPv4", "FQDN")),
     f"{THE_SLICE} has addressType FQDN, and not IPv4"),
    ("there is none", "", NO_SLICE),
    ("all are of others", edited(("plant-sensor", "web")),
     NO_SLICE),
]  # fmt: skip


@pytest.fixture
def ask(invoke, tmp_path):
    """Return verdict and reason for a packet, with this text as the only manifest."""

    def ask(text, to, source="10.244.1.5", *more):
        (tmp_path / "all.yaml").write_text(text)
        where = ("--manifests", tmp_path, "--node-name", "node-a", "--local-address", "192.0.2.1")
        result = invoke("explain", *where, "--from", source, "--to", to, "-o", "json", *more)
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout)
        return answer["verdict"], answer["reason"]

    return ask


@pytest.mark.parametrize(
    ("text", "cause"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_the_reason_of_a_refusal_is_the_slice_the_port_or_the_label(ask, text, cause):
    expected = ("reject", f"no usable endpoint anywhere: {cause}")
    assert ask(SERVICE + text, "10.96.14.20:80") == expected


def test_the_right_slice_gives_no_cause_to_complain(ask):
    assert ask(SERVICE + SLICE, "10.96.14.20:80")[0] == "forward"


@pytest.mark.parametrize(
    ("node", "cause"),
    [
        ("zone: z1", "its only endpoint has no nodeName in EndpointSlice default/camera-2xk9p; "
         "write the node that it runs on"),
        ("deprecatedTopology: {kubernetes.io/hostname: node-a}",
         "its only endpoint has no nodeName in EndpointSlice default/camera-2xk9p; write the node "
         "that it runs on"),
        ("nodeName: Node-A", "this is node-a, and its endpoints are on 'Node-A'"),
        ("nodeName: node-b\n- addresses: [10.244.1.41]",
         "this is node-a, and its endpoints are on 'node-b' (1 have no nodeName)"),
    ],
)  # fmt: skip
def test_the_reason_of_a_drop_is_where_the_endpoints_are(ask, node, cause):
    verdict = ask(CAMERA.replace("NODE", node), "192.0.2.1:30033", "198.51.100.7")
    policy = "externalTrafficPolicy is Local and no endpoint is on this node"
    assert verdict == ("drop", f"{policy}: {cause}")


def test_a_source_that_is_not_admitted_is_no_matter_of_endpoints(ask):
    ranges = "loadBalancerSourceRanges: [203.0.113.0/24]\n  type: LoadBalancer"
    text = CAMERA.replace("type: NodePort", ranges).replace(
        "targetPort: 8080}]\n",
        "targetPort: 8080}]\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}\n",
    )
    reason = ask(text.replace("NODE", "nodeName: b"), "192.0.2.9:80", "198.51.100.7")
    assert reason == ("drop", "198.51.100.7 is outside loadBalancerSourceRanges")


def test_a_wrong_port_of_a_cluster_ip_is_answered_with_the_right_one(ask):
    verdict = ask(SERVICE + SLICE, "10.96.14.20:8080")
    assert verdict == (
        "reject",
        "10.96.14.20 is a clusterIP without TCP 8080; Service factory/plant-sensor has TCP 80",
    )


LABELLED = SERVICE.replace("namespace: factory", "namespace: factory, labels: {version: 1.10}")
SMALL = SERVICE.replace("kind: Service", "kind: service")
REFUSED_CAMERA = CAMERA.replace("port: 80,", 'port: "80",')


@pytest.mark.parametrize(
    ("text", "to", "reason"),
    [
        (LABELLED, "10.96.14.20:80", "no Service has this destination; but Service "
         "factory/plant-sensor (all.yaml) is left out: its metadata.labels.version must be text; "
         "put it in quotes"),
        (SMALL, "10.96.14.20:81", "no Service has this destination; but Service "
         "factory/plant-sensor (all.yaml) is left out: its kind 'service' is passed over; write "
         "Service"),
        (REFUSED_CAMERA, "192.0.2.1:30033", "192.0.2.1 is this node's own address, and no NodePort "
         "is met; but Service default/camera (all.yaml) is left out: its spec.ports[0].port must "
         "be a number, and is text; write 80 without quotes"),
        (REFUSED_CAMERA, "192.0.2.2:30033", "no Service has this destination"),
        (LABELLED, "10.96.14.21:80", "no Service has this destination"),
    ],
)  # fmt: skip
def test_what_a_refused_service_would_have_got_is_not_just_nobodys(ask, text, to, reason):
    assert ask(text.replace("NODE", ""), to) == ("pass", reason)


def test_of_many_causes_a_few_are_named_in_one_short_line(ask):
    names = [f"plant-sensor-{i}" for i in range(60)]
    ports = ", ".join(f"{{name: p{'x' * 50}{i}, port: {i + 1}}}" for i in range(60))
    slices = [edited(("plant-sensor-1", name), ('{name: "", port: 9376, protocol: TCP}', ports))
              for name in names]  # fmt: skip
    _, reason = ask(SERVICE + "".join(slices), "10.96.14.20:80")
    assert reason.endswith("; and 57 EndpointSlices more")
    assert "and 56 more: name both alike" in reason
    assert len(reason) < 2000


def test_what_a_label_says_cannot_break_the_line(ask):
    label = 'kubernetes.io/service-name: "plant\\n\\e[31m' + "r" * 9999 + '"'
    _, reason = ask(SERVICE + edited((OURS, label)), "10.96.14.20:80")
    assert "'plant\\n\\x1b[31mrrr" in reason
    assert len(reason) < 500


def test_what_is_left_out_is_told_in_a_short_line_whatever_it_is_called(ask):
    long = edited(("metadata: {name: plant-sensor-1", f'metadata: {{name: "x\\n{"y" * 9999}"'))
    _, reason = ask(SERVICE + long, "10.96.14.20:80")
    assert "EndpointSlice factory/x" in reason
    assert len(reason) < 1500


class Cluster:
    """A compiler that is followed as the loop does it."""

    def __init__(self, folder, make=None):
        self.folder = folder
        self.left_out = ()
        self.compiler = Compiler(Settings("node-a"))
        self.unserved = (make or self.of_folder)(self.compiler)

    def of_folder(self, compiler):
        return UnservedOfFolder(compiler, "node-a", lambda: self.left_out)

    def read(self, text):
        (self.folder / "all.yaml").write_text(text)
        loaded = load(self.folder)
        self.left_out = loaded.left_out
        return self.take(*loaded.changes())

    def take(self, *changes):
        self.compiler.apply(changes, self.unserved.differed)
        return [tuple(line) for line in self.unserved.news()]


WHERE = "Service factory/plant-sensor: port 80 TCP, IPv4"
REFUSED = f"{WHERE}: no usable endpoint anywhere, clients are refused: "
STATES = ("none is ready", "the last one ends", "there are no endpoints")


@pytest.mark.parametrize(("why", "text", "cause"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_the_log_has_each_cause_once_and_a_mistake_is_a_warning(tmp_path, why, text, cause):
    cluster = Cluster(tmp_path)
    level = logging.INFO if why in STATES else logging.WARNING
    own = [line for line in cluster.read(SERVICE + text) if "plant-sensor: " in line[1]]
    assert own == [(level, REFUSED + cause)]
    assert cluster.read(SERVICE + text) == []
    assert cluster.read(SERVICE + SLICE) == []
    assert (level, REFUSED + cause) in cluster.read(SERVICE + text), "it is back"


def test_who_repairs_one_mistake_hears_of_the_next_although_no_rule_changes(tmp_path):
    cluster = Cluster(tmp_path)
    http = ('name: ""', "name: http")
    said = [
        cluster.read(SERVICE + text)
        for text in (edited(http, ("namespace: factory", "namespace: default")),
                     edited(http, (OURS, "a: b")), edited(http), SLICE)
    ]  # fmt: skip
    assert [len(lines) for lines in said] == [1, 1, 1, 0]
    assert "is not in the Service's namespace" in said[0][0][1]
    assert "have no kubernetes.io/service-name" in said[1][0][1]
    assert "name both alike" in said[2][0][1]


def test_the_log_tells_of_a_drop_only_where_no_endpoint_names_its_node(tmp_path):
    cluster = Cluster(tmp_path)
    assert cluster.read(CAMERA.replace("NODE", "nodeName: node-b")) == []
    ((level, text),) = cluster.read(CAMERA.replace("NODE", "zone: z"))
    assert level == logging.WARNING
    assert text == (
        "Service default/camera: port 80 TCP, IPv4: policy Local and no endpoint on this node, "
        "packets are dropped: its only endpoint has no nodeName in EndpointSlice "
        "default/camera-2xk9p; write the node that it runs on"
    )


def many(count):
    text = "".join(
        SERVICE.replace("plant-sensor", f"s{i:03}").replace("14.20", f"{i // 250}.{i % 250 + 1}")
        for i in range(count)
    )
    slices = "".join(
        edited(("plant-sensor", f"s{i:03}"), ('name: ""', "name: http")) for i in range(count)
    )
    objects = read_content("all.yaml", (text + slices).encode()).objects.values()
    services = tuple(each for each in objects if isinstance(each, Service))
    slices = tuple(each for each in objects if isinstance(each, EndpointSlice))
    return Replaced(Kind.SERVICE, services), Replaced(Kind.ENDPOINT_SLICE, slices)


def test_of_hundreds_of_mistakes_in_a_folder_fifty_are_named(tmp_path):
    lines = Cluster(tmp_path).take(*many(300))
    assert len(lines) == 51
    assert lines[-1] == (logging.WARNING, "250 more service ports forward nothing")


def test_a_cluster_hears_at_the_start_of_ten_names_that_do_not_match_and_never_again(tmp_path):
    cluster = Cluster(tmp_path, lambda compiler: UnservedOfCluster(compiler, "node-a"))
    services, slices = many(30)
    assert cluster.take(services) == [], "half of the facts is no reason to complain"
    lines = cluster.take(slices)
    assert [level for level, _ in lines] == [logging.INFO] * 11
    assert lines[0][1].endswith("it has 'http' TCP: name both alike")
    assert lines[-1][1] == "20 more service ports forward nothing"
    assert cluster.take(Deleted(Kind.ENDPOINT_SLICE, slices.objects[0].key)) == []
    assert cluster.take(Upserted(slices.objects[0])) == []


@pytest.mark.parametrize("why", [row[0] for row in MISTAKES])
def test_a_cluster_is_told_of_nothing_else(tmp_path, why):
    text = next(row[1] for row in MISTAKES if row[0] == why)
    cluster = Cluster(tmp_path, lambda compiler: UnservedOfCluster(compiler, "node-a"))
    told = ("the port has another name", "the port has another protocol", "there are no ports")
    assert len(cluster.read(SERVICE + text)) == (why in told)


@pytest.mark.parametrize("seed", range(10))
def test_what_is_said_in_the_end_is_the_same_by_every_way(tmp_path, seed):
    """However it came about, what is still wrong was said, and what is right is forgotten."""
    choose = random.Random(seed)
    texts = [row[1] for row in MISTAKES]
    cluster = Cluster(tmp_path)
    said = []
    for text in choose.choices(texts, k=12):
        said += cluster.read(SERVICE + text)
        fresh = Cluster(tmp_path).read(SERVICE + text)
        assert set(fresh) <= set(said)
    assert cluster.read(SERVICE + SLICE) == []
    assert cluster.read(SERVICE + texts[0]) == Cluster(tmp_path).read(SERVICE + texts[0])
