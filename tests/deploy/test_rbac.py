"""The role that is shipped: enough for what kproxy asks, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from kproxy.watch.api.access import Access, connect
from kproxy.watch.api.events import Events
from kproxy.watch.api.resources import followed
from kproxy.watch.api.source import ApiSource
from tests.deploy.rights import Right, rights
from tests.deploy.shipped import BASE, Object, kustomized, of_kind, text_of
from tests.support.cluster.api import ApiError
from tests.support.cluster.control_plane import ControlPlane
from tests.support.waiting import LONGEST_S, until

pytestmark = pytest.mark.cluster

RBAC_KINDS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding"}
UNBOUND = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {"name": "nobody", "namespace": "kube-system"},
}
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-a"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]},
}
LOG = logging.getLogger("kproxy.test")


@pytest.fixture
def shipped(plane):
    """The shipped role, bound to the shipped ServiceAccount; the chart has the same."""
    objects = [each for each in kustomized(BASE) if each["kind"] in RBAC_KINDS]
    plane.apply(text_of(objects))
    return of_kind(objects, "ClusterRole")


def test_the_role_of_kube_proxy_includes_ours(plane):
    """So the image swap works with the ServiceAccount of a kubeadm cluster as it is."""
    upstream = plane.api.get(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:node-proxier"},
        }
    )

    ours = of_kind(kustomized(BASE), "ClusterRole")
    assert rights(ours["rules"]) <= rights(upstream["rules"])


def test_the_role_names_what_is_followed(shipped):
    followed_here = [each.name.partition(".") for each in followed("node-a")]

    assert {each for each in rights(shipped["rules"]) if each.verb in ("list", "watch")} == {
        Right(group, resource, verb)
        for resource, _, group in followed_here
        for verb in ("list", "watch")
    }


def test_a_token_of_the_account_may_do_what_the_role_says_and_nothing_else(plane, shipped):
    plane.api.apply(UNBOUND)

    assert may_do(plane, "kproxy") - may_do(plane, "nobody") == rights(shipped["rules"])


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/secrets",
        "/api/v1/pods",
        "/api/v1/namespaces/kube-system/configmaps",
        "/api/v1/nodes/node-a/proxy/metrics",
    ],
)
def test_what_is_nobodys_business_is_refused(plane, shipped, path):
    token = plane.service_account_token("kube-system", "kproxy")

    with plane.as_token(token) as api, pytest.raises(ApiError, match="Forbidden"):
        api.call("GET", path)


def test_kproxy_asks_for_all_that_the_role_allows(plane, audit, shipped, tmp_path):
    plane.api.apply(NODE)
    token = plane.service_account_token("kube-system", "kproxy")
    api = connect(Access(kubeconfig=str(plane.kubeconfig(tmp_path / "kubeconfig", token=token))))
    source = ApiSource(api, node_name="node-a", log=LOG)
    twice = 2  # what happens again is told by a change of the first event
    user = "system:serviceaccount:kube-system:kproxy"
    granted = rights(shipped["rules"])

    def wait_for_all() -> None:
        until(
            lambda: audit.requested(user) == granted,
            within_s=LONGEST_S,
            what=f"every right was used, and no other: {sorted(granted)}",
        )

    async def follow() -> None:
        async with contextlib.aclosing(source.batches()) as batches:
            await anext(batches)
            await asyncio.to_thread(wait_for_all)

    with contextlib.closing(Events(api, node_name="node-a", log=LOG)) as events:
        for _ in range(twice):
            events.post(
                kind="Node", namespace="", name="node-a", type="Normal",
                reason="Starting", action="StartKubeProxy", note="",
            )  # fmt: skip
        asyncio.run(follow())


def test_the_role_has_no_wildcard_and_writes_only_events(shipped):
    granted = rights(shipped["rules"])

    assert all("*" not in (each.group, each.resource, each.verb) for each in granted)
    assert {each for each in granted if each.verb not in ("list", "watch")} == {
        Right("events.k8s.io", "events", "create"),
        Right("events.k8s.io", "events", "patch"),
    }


def may_do(plane: ControlPlane, account: str) -> frozenset[Right]:
    """Return what the API server says that the bearer of a fresh token may do."""
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "kube-system"},
    }
    with plane.as_token(plane.service_account_token("kube-system", account)) as api:
        answer = api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
    assert not answer["status"]["incomplete"]
    return rights(answer["status"]["resourceRules"])
