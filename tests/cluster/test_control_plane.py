"""The control plane is real, obeys, and goes without a trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.cluster.api import ApiError
from tests.support.cluster.control_plane import ControlPlane
from tests.support.cluster.leftovers import remove_leftovers
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.cluster

_ROOT = Path(__file__).parents[2]
_SERVICES = "/api/v1/services"
_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
_IP_ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
_LISTER = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: lister, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lister}
rules: [{apiGroups: [""], resources: [services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lister}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lister}
subjects: [{kind: ServiceAccount, name: lister, namespace: default}]
"""


def service(name, *, namespace="default", **spec):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80}], **spec},
    }


def endpoint_slice(name, *addresses, namespace="default"):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in addresses],
    }


def web(number, namespace):
    """Return a Service of both families and its slice."""
    name, ips = f"web-{number}", [f"10.96.1.{number}", f"fd00:96::1:{number}"]
    families = {"clusterIP": ips[0], "clusterIPs": ips, "ipFamilyPolicy": "RequireDualStack"}
    return (
        service(name, namespace=namespace, **families),
        endpoint_slice(name, "10.1.0.1", namespace=namespace),
    )


def names(objects):
    return sorted(each["metadata"]["name"] for each in objects)


def test_nothing_runs_on_after_it_was_closed(tmp_path):
    with ControlPlane(tmp_path / "it") as control_plane, control_plane.controllers():
        pids = [each.pid for each in control_plane.running]
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_program_does_not_outlive_a_run_that_is_killed(tmp_path):
    script = (
        "import sys, pathlib; from tests.support.cluster.process import Background;"
        "folder = pathlib.Path(sys.argv[1]);"
        "print(Background(pathlib.Path('/bin/sleep'), ['60'], log=folder / 'log').pid, flush=True);"
        "sys.stdin.read()"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with run:
        status = Path(f"/proc/{int(run.stdout.readline())}/stat")
        until(lambda: "(sleep)" in status.read_text(), within_s=LONGEST_S, what="the program runs")
        run.kill()

    def is_gone():
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"

    until(is_gone, within_s=LONGEST_S, what="the program is gone too")


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError, match=r"kube-apiserver ended(.|\n)*--no-such-flag"):
        ControlPlane(tmp_path / "it", flags=("--no-such-flag",))


@pytest.fixture
def token(control_plane):
    """The token of who may list Services, which the API server has noticed."""
    control_plane.apply(_LISTER)
    token = control_plane.service_account_token("default", "lister")
    until(
        lambda: control_plane.allows(token, _SERVICES),
        within_s=LONGEST_S,
        what="the role is in force",
    )
    return token


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(control_plane, token):
    with control_plane.as_token(token) as lister:
        assert names(lister.list(_SERVICES)) == ["kubernetes"]
        for refused in (
            lambda: lister.list(_SLICES),
            lambda: lister.create(service("mine")),
            lambda: list(lister.watch(_SERVICES, within_s=1)),
        ):
            with pytest.raises(ApiError, match="403 Forbidden"):
                refused()
    with control_plane.as_token("no token") as stranger, pytest.raises(ApiError, match="401"):
        stranger.list(_SERVICES)


def test_a_kubeconfig_gives_what_its_token_may(control_plane, token, tmp_path):
    file = control_plane.kubeconfig(tmp_path / "lister", token=token)

    options = ("--kubeconfig", str(file), "-o", "name")
    assert control_plane.kubectl("get", "services", *options) == "service/kubernetes\n"
    with pytest.raises(AssertionError, match="cannot list resource"):
        control_plane.kubectl("get", "endpointslices", *options)


def test_a_paused_api_server_answers_when_it_goes_on(control_plane, namespace):
    control_plane.api_server.pause()
    stat = Path(f"/proc/{control_plane.api_server.pid}/stat")
    until(lambda: " T " in stat.read_text(), within_s=LONGEST_S, what="it is stopped")
    connection = control_plane.api.connect(0.3)
    with closing(connection), pytest.raises(TimeoutError):
        connection.connect()
    control_plane.api_server.resume()

    assert control_plane.api.create(service("late", namespace=namespace))


def test_an_api_server_that_was_away_comes_back_with_what_it_had(control_plane, namespace):
    control_plane.api.create(service("kept", namespace=namespace))
    control_plane.stop_api_server()
    with pytest.raises(ConnectionRefusedError):
        control_plane.api.list(_SERVICES)
    control_plane.start_api_server()

    assert names(control_plane.api.list(_SERVICES)) == ["kept", "kubernetes"]


def test_services_of_both_families_get_addresses_from_the_ranges(control_plane, namespace):
    wanted = service("both", namespace=namespace, ipFamilyPolicy="RequireDualStack")
    made = control_plane.api.create(wanted)
    four, six = made["spec"]["clusterIPs"]

    assert four.startswith("10.")
    assert six.startswith("fd00:96:")


def test_the_controller_makes_slices_of_the_pods_of_a_service(control_plane, namespace):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": namespace, "labels": {"app": "web"}},
        "spec": {"nodeName": "node-a", "containers": [{"name": "it", "image": "it"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.1.0.11",
            "podIPs": [{"ip": "10.1.0.11"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    control_plane.apply("{apiVersion: v1, kind: Node, metadata: {name: node-a}}")
    control_plane.api.apply(pod)
    control_plane.api.create(service("web", namespace=namespace, selector={"app": "web"}))
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    with control_plane.controllers():
        for event in control_plane.api.watch(path, within_s=LONGEST_S):
            endpoints = event["object"].get("endpoints") or ()
            if [each["addresses"] for each in endpoints] == [["10.1.0.11"]]:
                break
        else:
            pytest.fail(f"no slice with the pod's address within {LONGEST_S} s")

    assert endpoints[0]["conditions"]["ready"]
    assert endpoints[0]["nodeName"] == "node-a"


def test_what_is_seeded_reads_as_if_it_had_been_created(control_plane, namespace):
    control_plane.seed([*web(1, namespace), *web(2, namespace)])
    for each in web(3, namespace):
        control_plane.api.create(each)

    for path, count in ((_SERVICES, 1), (_SLICES, 1), (_IP_ADDRESSES, 2)):
        every = control_plane.api.list(path)
        seeded, created = about(every, 2), about(every, 3)
        assert seeded == created
        assert len(seeded) == count
    taken, _ = web(2, namespace)
    with pytest.raises(ApiError, match="provided IP is already allocated"):
        control_plane.api.create({**taken, "metadata": {"name": "another"}})


def about(objects, number):
    """Return what is about the Service of this number, but for what no two objects share."""
    found = [each for each in objects if f"web-{number}" in str(each)]
    for each in found:
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
            each["metadata"].pop(field)
    return [re.sub(rf"(web-|1\.|1:){number}'", r"\g<1>N'", str(each)) for each in found]


def test_the_api_server_has_nothing_to_repair_in_what_is_seeded(control_plane, namespace):
    control_plane.seed(each for number in range(1, 101) for each in web(number, namespace))
    services = control_plane.api.list(f"/api/v1/namespaces/{namespace}/services")
    addresses = control_plane.api.list(_IP_ADDRESSES)
    assert len(services) == 100

    # What it repairs it writes anew. A few Services it may see before it sees their addresses.
    written = sorted(int(each["metadata"]["resourceVersion"]) for each in services)[1]
    kept = [each for each in addresses if int(each["metadata"]["resourceVersion"]) < written]
    assert len(kept) > 160
    metas = [each["metadata"] for each in kept]
    labels = {(":" in meta["name"], str(meta["labels"])) for meta in metas}
    assert len(labels) == 2, "one family, one set of labels: that of the first, which is created"


def test_nothing_of_a_test_is_left_for_the_next(control_plane, namespace):
    control_plane.apply(_LISTER)
    control_plane.api.create(service("web", namespace=namespace))
    control_plane.api.create(endpoint_slice("web", "10.1.0.1", namespace=namespace))
    wanted = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "more", "finalizers": ["kproxy.test/stay"]},
        "spec": {"cidrs": ["10.200.0.0/24"]},
    }
    control_plane.api.create(wanted)
    event = {
        "metadata": {"generateName": "repaired-"},
        "involvedObject": {"kind": "Service", "namespace": namespace, "name": "web"},
    }
    events = f"/api/v1/namespaces/{namespace}/events"
    control_plane.api.call("POST", f"{events}?fieldManager=kube-apiserver", event)
    remove_leftovers(control_plane.api)

    assert control_plane.api.list(events) == []
    assert names(control_plane.api.list(_SERVICES)) == ["kubernetes"]
    assert names(control_plane.api.list(_SLICES)) == ["kubernetes"]
    assert names(control_plane.api.list("/apis/networking.k8s.io/v1/servicecidrs")) == [
        "kubernetes"
    ]
    assert namespace not in names(control_plane.api.list("/api/v1/namespaces"))
    with pytest.raises(ApiError, match="NotFound"):
        control_plane.service_account_token("default", "lister")
