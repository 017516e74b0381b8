"""The page of the ipvs data path: its commands in a cluster, and its numbers and names."""

from __future__ import annotations

import pytest
import yaml

from backends.ipvs.driver.link import LINK, STEERING_RULE, TABLE
from backends.ipvs.render.marks import FIRST_MARK
from backends.ipvs.render.rules import CHAIN_PREFIX
from backends.ipvs.render.sets import SET_PREFIX
from backends.kernel.ipset_elements import MOST_ELEMENTS
from backends.kube_proxy.ipvs_leftovers import LINK as KUBE_PROXYS_LINK
from tests.deploy.desk import Desk
from tests.deploy.nodes import node, until_modes
from tests.deploy.pod_template import pod_template
from tests.deploy.shipped import IPVS_PAGE, of_kind
from tests.support.cluster.control_plane import ControlPlane

RULES = {"NET_ADMIN", "NET_RAW"}


@pytest.mark.cluster
def test_the_mode_is_all_that_is_written(plane: ControlPlane, tmp_path):
    plane.api.apply(node("node-a"))
    desk = Desk(plane, tmp_path)
    for step in ("cp -r deploy/kustomize/example", "sed -i", "label nodes --all kproxy="):
        desk.types(step)
    desk.types("mode: ipvs", page=IPVS_PAGE)
    with plane.controllers("daemonset-controller"):
        desk.types("apply -k my-cluster")
        until_modes(plane, {"node-a": ["ipvs"]})

    objects = list(yaml.safe_load_all(desk.runs("kubectl kustomize my-cluster")))
    (proxy,) = pod_template(of_kind(objects, "DaemonSet"), {"spec.nodeName": "node-a"}).main
    assert proxy.capabilities == RULES


@pytest.mark.parametrize(
    "written",
    [
        *(f"`{LINK}`", f"`{KUBE_PROXYS_LINK}`", f"{CHAIN_PREFIX}…", f"{SET_PREFIX}4-…"),
        *(f"table {TABLE}", f"pref {STEERING_RULE.priority}", f"mark {STEERING_RULE.mark:#x}"),
        *(f"from {FIRST_MARK:#x} on", f"{MOST_ELEMENTS:,}"),
    ],
)
def test_what_it_names_on_the_node_is_called_so(written):
    assert written in IPVS_PAGE.read_text()
