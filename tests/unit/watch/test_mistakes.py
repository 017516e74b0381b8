"""What people write wrong in manifests: each time object, field, value and what would be right."""

import pytest

from kproxy.core.objects import Kind
from kproxy.watch.manifests.content import read_content
from kproxy.watch.manifests.fields import misnamed
from kproxy.watch.manifests.near_misses import near_miss
from kproxy.watch.manifests.problems import Problem, Severity
from kproxy.watch.manifests.refusals import MAX_REFUSALS

TYPO = """\
apiVersion: v1
kind: Service
metadata:
  name: api
  labels: {version: 1.10, canary: true}
spec:
  type: NodePort
  clusterIP: 10.96.50.6
  ports:
  - {name: http, port: "80", targetPort: 8080, nodePort: 30081}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: none
  ports: [{port: 5432}]
---
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  clusterIP: 10.96.50.7
  ports: [{port: 53, protocol: udp}]
---
apiVersion: v1
kind: Service
metadata: {name: My_App}
spec:
  clusterIP: 10.96.50.8
  ports: [{port: 53, protocol: UDP}]
---
apiVersion: v1
kind: service
metadata: {name: low}
spec:
  clusterIP: 10.96.50.9
  ports: [{port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec:
  clusterIP: 10.96.50.10
  ports: [{port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: lab, labels: {version: 1.10}}
spec:
  clusterIP: 10.96.50.11
  ports: [{port: 53, protocol: UDP}]
"""


def lines(text):
    return [problem.text() for problem in read_content("typo.yaml", text.encode()).problems]


def test_a_file_of_everyday_mistakes_is_answered_line_by_line():
    assert lines(TYPO) == [
        "typo.yaml:5: Service default/api: metadata.labels.version: must be text; put it "
        "in quotes, and so 'canary' (value 1.10)",
        "typo.yaml:10: Service default/api: spec.ports[0].port: must be a number, and is text; "
        "write 80 without quotes (value '80')",
        "typo.yaml:16: Service default/db: spec.clusterIP: is no IP address; a headless Service "
        "has None (value 'none')",
        "typo.yaml:24: Service default/dns: spec.ports[0].protocol: must be TCP, UDP or SCTP; "
        "write UDP (value 'udp')",
        "typo.yaml:28: Service default/My_App: metadata.name: must be lower-case letters, digits "
        "and '-', with a letter or digit at both ends; my-app would do (value 'My_App')",
        "typo.yaml:34: service default/low: kind: is passed over; write Service (value 'service')",
        "typo.yaml:42: is a template that was not rendered ({{ .Release.Name }}); render it first",
        "typo.yaml:49: Service default/lab: metadata.labels.version: must be text; put it "
        "in quotes (value 1.10)",
    ]


def service(metadata="", spec="", ports="{port: 80}"):
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: a{metadata}}}\n"
        f"spec: {{clusterIP: 10.96.0.1, ports: [{ports}]{spec}}}\n"
    )


def endpoint_slice(endpoint="addresses: [10.1.0.1]", port="port: 80", top="addressType: IPv4"):
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: a-1, labels: {kubernetes.io/service-name: a}}\n"
        f"{top}\nports: [{{{port}}}]\nendpoints: [{{{endpoint}}}]\n"
    )


def node(labels="", status=""):
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: n, labels: {{{labels}}}}}\n{status}\n"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        (service(", labels: {a: }"), "metadata.labels.a", 'write ""'),
        (service(", labels: {a.b/c: 1, d: 2, e: 3, f: 4, g: 5}"), "metadata.labels.a.b/c",
         "put it in quotes, and so 'd', 'e', 'f' and 1 more (value 1)"),
        (service(", labels: 3"), "metadata.labels", "must be a mapping, and is a number"),
        (service(", namespace: Prod_1"), "metadata.namespace", "prod-1 would do"),
        (service(spec=", type: nodeport"), "spec.type", "write NodePort (value 'nodeport')"),
        (service(spec=", sessionAffinity: clientIP"), "spec.sessionAffinity", "write ClientIP"),
        (service(spec=", externalTrafficPolicy: local"), "spec.externalTrafficPolicy",
         "must be Cluster or Local; write Local (value 'local')"),
        (service(spec=", externalIPs: 192.0.2.1"), "spec.externalIPs",
         "must be a list, and is text; put it in [ ] (value '192.0.2.1')"),
        (service(spec=", externalIPs: [192.0.2.1:80]"), "spec.externalIPs[0]", "without the port"),
        (service(spec=", externalIPs: ['[2001:db8::1]']"), "spec.externalIPs[0]",
         "without the brackets"),
        (service(spec=", externalIPs: [192.0.2.1/32]"), "spec.externalIPs[0]",
         "without the prefix length"),
        (service(spec=", externalIPs: [' 192.0.2.1']"), "spec.externalIPs[0]", "blanks around"),
        (service(spec=", externalIPs: ['${IP}']"), "spec.externalIPs[0]",
         "looks like a placeholder that nothing filled in (value '${IP}')"),
        (service(ports="{port: '{{ .port }}'}"), "spec.ports[0].port",
         "is a template that was not rendered; render it first (value '{{ .port }}')"),
        (service(spec=", externalIPs: [“192.0.2.1”]"), "spec.externalIPs[0]",
         "its quotes are those of a text processor"),
        (service(ports="{port: 080}"), "spec.ports[0].port", "write 80 without quotes"),
        (service(ports="port:80"), "spec.ports[0]", "a colon needs a blank behind it"),
        (service(ports="{port: http}"), "spec.ports[0].port",
         "must be a number, and is text (value 'http')"),
        (service(ports="{port: 80, name: 8080}"), "spec.ports[0].name",
         "must be text, and is a number; put it in quotes (value 8080)"),
        (service(ports="{port: 80, name: Web_1}"), "spec.ports[0].name", "web-1 would do"),
        (service(ports="{port: 80, nodePort: yes}"), "spec.ports[0].nodePort",
         "must be a number, and is true or false (value yes)"),
        (endpoint_slice(top="addressType: ipv4"), "addressType", "write IPv4 (value 'ipv4')"),
        (endpoint_slice("addresses: 10.1.0.1"), "endpoints[0].addresses", "put it in [ ]"),
        (endpoint_slice("addresses: [10.1.0.1], conditions: {ready: 'true'}"),
         "endpoints[0].conditions.ready", "write true without quotes (value 'true')"),
        ("apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: k}\n"
         "spec: {cidrs: 10.96.0.0/12}\n", "spec.cidrs", "put it in [ ] (value '10.96.0.0/12')"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_what_would_be_right(text, field, said):
    (problem,) = read_content("a.yaml", text.encode()).problems
    assert problem.severity is Severity.ERROR
    assert (problem.field, problem.line is None) == (field, False)
    assert said in problem.text()


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        (service(", label: {}"), "metadata.label", "write labels"),
        (service(spec=", clusterIp: 10.96.0.1"), "spec.clusterIp", "write clusterIP"),
        (service(spec=", Type: NodePort"), "spec.Type", "write type"),
        (service(spec=", nodePort: 30080"), "spec.nodePort", "it belongs into spec.ports"),
        (service(ports="{port: 80, nodeport: 30080}"), "spec.ports[0].nodeport", "write nodePort"),
        (service(ports="{port: 80, \u00a0name: b}"), "spec.ports[0].\u00a0name",
         "begins or ends with a character that looks like a blank and is none"),
        (service(ports=""), "spec.ports", "nothing is served"),
        (service(spec=", type: LoadBalancer, allocateLoadBalancerNodePorts: false, "
                 "loadBalancerIP: 203.0.113.1"),
         "spec.loadBalancerIP", "write status.loadBalancer.ingress (value '203.0.113.1')"),
        (endpoint_slice("addresses: [10.1.0.1], nodename: n"), "endpoints[0].nodename",
         "write nodeName"),
        (endpoint_slice("addresses: [10.1.0.1], ready: false"), "endpoints[0].ready",
         "it belongs into endpoints[].conditions"),
        (endpoint_slice("ip: 10.1.0.1"), "endpoints[0].addresses", "this endpoint is not used"),
        (endpoint_slice("addresses: [10.1.0.1, 10.1.0.2]"), "endpoints[0].addresses",
         "holds 2 addresses, of which the first alone is used; write an endpoint for each"),
        (endpoint_slice("}, {addresses: []}, {addresses: []"), "endpoints[0].addresses",
         "not used (and 2 more in this object)"),
        (endpoint_slice(port="name: x"), "ports[0].port", "this port is not used"),
        (endpoint_slice(port="name: , port: 80"), "ports[0].name", 'write ""'),
        (endpoint_slice(top="addressType: FQDN"), "addressType", "FQDN is not used"),
        (endpoint_slice(top="addressType: IPv4\nsubsets: []"), "subsets",
         "has no effect here; an EndpointSlice has endpoints and ports"),
        (endpoint_slice("addresses: [10.1.0.1], topology: {kubernetes.io/hostname: node-a}"),
         "endpoints[0].topology",
         "does not say on which node the endpoint is; write nodeName: node-a"),
        (endpoint_slice(
            "addresses: [10.1.0.1], deprecatedTopology: {kubernetes.io/hostname: node-a}"),
         "endpoints[0].deprecatedTopology", "write nodeName: node-a"),
        (node("failure-domain.beta.kubernetes.io/zone: z1"),
         "metadata.labels.failure-domain.beta.kubernetes.io/zone",
         "write topology.kubernetes.io/zone"),
        (node(status="status: {addresses: [{type: InternalIp, address: 192.0.2.1}]}"),
         "status.addresses[0].type", "write InternalIP: this address is not used"),
        ("apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: k}\n",
         "spec.cidrs", "is empty"),
        ("apiVersion: v1\nkind: list\nitems: [{}]\n", "kind", "with its items; write List"),
    ],
)  # fmt: skip
def test_what_is_valid_and_yet_not_meant_so_is_warned_of(text, field, said):
    content = read_content("a.yaml", text.encode())
    (problem,) = content.problems
    assert problem.severity is Severity.WARNING
    assert (problem.field, problem.line is None) == (field, False)
    assert said in problem.text()


def test_topology_beside_a_node_name_is_what_old_clusters_wrote():
    both = "addresses: [10.1.0.1], nodeName: n, deprecatedTopology: {kubernetes.io/hostname: n}"
    zone_alone = "addresses: [10.1.0.1], deprecatedTopology: {topology.kubernetes.io/zone: z}"
    assert lines(endpoint_slice(both) + "---\n" + service()) == []
    assert lines(endpoint_slice(zone_alone)) == []


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{app: web}", "no kubernetes.io/service-name, so it belongs to no Service"),
        ("{kubernetes.io/service-name: ''}", "an empty kubernetes.io/service-name"),
        ("{kubernetes.io/servicename: a}", "what 'kubernetes.io/servicename' was most likely"),
        ("{k8s.io/service-name: a}", "what 'k8s.io/service-name' was most likely meant to be"),
        ("{service_name: a}", "what 'service_name' was most likely meant to be"),
    ],
)
def test_a_slice_of_no_service_is_warned_of_and_left_out(labels, said):
    text = endpoint_slice().replace("{kubernetes.io/service-name: a}", labels)
    content = read_content("a.yaml", text.encode())
    (problem,) = content.problems
    assert said in problem.text()
    (left_out,) = content.left_out
    assert (str(left_out.key), left_out.service, left_out.where) == ("default/a-1", None, "a.yaml")
    assert said in left_out.why


def test_a_slice_of_a_headless_service_belongs_to_nobody_on_purpose():
    headless = "{service.kubernetes.io/headless: '', kubernetes.io/service-name: a}"
    text = endpoint_slice().replace("{kubernetes.io/service-name: a}", headless)
    content = read_content("a.yaml", text.encode())
    assert (content.problems, content.left_out) == ((), ())


@pytest.mark.parametrize(
    ("version", "kind", "field", "write"),
    [
        ("v1", "service", "kind", "write Service"),
        ("v1", "Services", "kind", "write Service"),
        ("v1", "svc", "kind", "write Service"),
        ("v1", "Serivce", "kind", "write Service"),
        ("core/v1", "Service", "apiVersion", "write v1"),
        ("apps/v1", "Service", "apiVersion", "write v1"),
        ("V1", "Service", "apiVersion", "write v1"),
        ("v1", "nodes", "kind", "write Node"),
        ("v1", "EndpointSlice", "apiVersion", "write discovery.k8s.io/v1"),
        ("discovery.k8s.io/v1", "Endpointslice", "kind", "write EndpointSlice"),
        ("discovery.k8s.io/v1", "Endpoint-Slices", "kind", "write EndpointSlice"),
        ("v1", "EndpointSlcie", "kind", "write EndpointSlice in apiVersion discovery.k8s.io/v1"),
        ("discovery.k8s.oi/v1", "EndpointSlice", "apiVersion", "write discovery.k8s.io/v1"),
        ("discovery/v1", "EndpointSlice", "apiVersion", "write discovery.k8s.io/v1"),
        ("discovery.k8s.io/v1beta1", "EndpointSlice", "apiVersion",
         "write discovery.k8s.io/v1, and nodeName and zone in place of topology"),
        ("networking.k8s.io/v1beta1", "ServiceCIDR", "apiVersion", "write networking.k8s.io/v1"),
        ("networking.k8s.io/v1", "ServiceCidrs", "kind", "write ServiceCIDR"),
    ],
)  # fmt: skip
def test_a_kind_that_is_nearly_ours_is_told_what_it_is_meant_to_be(version, kind, field, write):
    missed = near_miss(version, kind)
    assert missed is not None
    assert (missed.field, missed.why) == (field, f"is passed over; {write}")


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "Pod"), ("v1", "Secret"), ("v1", "Endpoints"), ("v1", "ServiceAccount"),
        ("v1", "Namespace"), ("networking.k8s.io/v1", "IPAddress"), ("v1", ""), ("", "Deployment"),
        ("serving.knative.dev/v1", "Service"), ("management.cattle.io/v3", "Node"),
        ("cilium.io/v2", "CiliumNode"), ("cilium.io/v2alpha1", "CiliumEndpointSlice"),
        ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"), ("storage.k8s.io/v1", "CSINode"),
        ("monitoring.coreos.com/v1", "ServiceMonitor"), ("x" * 99_999 + "/v1", "Service"),
        ("v1", "Service" * 9_999),
    ],
)  # fmt: skip
def test_a_kind_of_somebody_else_is_no_near_miss(version, kind):
    assert near_miss(version, kind) is None


def test_fields_of_the_api_are_never_called_wrong():
    for kind in Kind:
        document = {"apiVersion": "v1", "kind": kind.value, "metadata": {"ownerReferences": []}}
        assert not list(misnamed(kind, document | {"somethingOfTheFuture": 1}))
    spec = {"ipFamily": "IPv4", "ipFamilies": [], "clusterIP": "", "clusterIPs": [], "selector": {}}
    assert not list(misnamed(Kind.SERVICE, {"spec": spec, "status": {"conditions": []}}))


def test_what_a_refused_service_claims_is_kept_for_who_asks():
    spec = ", clusterIPs: [10.96.0.1, 'fd00::0:1', x, 7], externalIPs: 192.0.2.1"
    text = service(spec=spec, ports="{port: '80', nodePort: '30080'}, {nodePort: [3]}, 5")
    content = read_content("a.yaml", text.encode())
    (left,) = content.left_out
    assert left.destinations == ("10.96.0.1", "fd00::1", "192.0.2.1", ":30080")


def test_of_a_hopeless_object_a_few_errors_are_named():
    ports = ", ".join("{port: '80', protocol: tcp}" for _ in range(99))
    content = read_content("a.yaml", service(ports=ports).encode())
    assert len(content.problems) == MAX_REFUSALS
    assert len({problem.field for problem in content.problems}) == MAX_REFUSALS


def test_what_strangers_wrote_stays_short_and_on_its_line():
    long = "a\n\x1b[31m" + "b" * 100_000
    problem = Problem(Severity.ERROR, "a.yaml", 1, 1, f"Service default/{long}", long, long, "")
    assert problem.text().isprintable()
    assert len(problem.text()) < 2000
    label = service(f', labels: {{"{"k" * 100_000}": 1}}')
    assert all(len(line) < 2000 for line in lines(label))
