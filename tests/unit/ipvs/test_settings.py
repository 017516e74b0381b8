"""The node's settings that ipvs needs, on a made-up tree of files."""

from dataclasses import replace

import pytest

from backends.ipvs.driver.settings import NodeSettings, node_settings
from backends.ipvs.options import timeouts
from backends.kernel.sysctl import Setting
from backends.kernel.virtual_servers import Timeouts
from kproxy.core.addresses import Family
from kproxy.ports.data_path import BackendError
from tests.support.ipvs.options import PLAIN

FAMILIES = pytest.mark.parametrize("family", Family, ids=lambda family: family.value)
NEW, OLD = (6, 1), (5, 8)

FRESH = {
    "net.ipv4.ip_forward": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv4.vs.conntrack": "0",
    "net.ipv4.vs.conn_reuse_mode": "0",
    "net.ipv4.vs.expire_nodest_conn": "0",
    "net.ipv4.vs.expire_quiescent_template": "0",
    "net.ipv4.conf.all.arp_ignore": "0",
    "net.ipv4.conf.all.arp_announce": "0",
}


class Tree:
    """Settings as files below a folder that stands for /proc/sys."""

    def __init__(self, root):
        self._root = root

    def write(self, values):
        for name, value in values.items():
            file = self._file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")

    def altered(self):
        """What is otherwise than in a fresh kernel."""
        found = {name: self._file(name).read_text().strip() for name in FRESH}
        return {name: value for name, value in found.items() if value != FRESH[name]}

    def refuse(self, *names):
        """Let nobody read or write these, be it root."""
        for name in names:
            self._file(name).unlink()
            self._file(name).mkdir()

    def permit(self, *names):
        for name in names:
            self._file(name).rmdir()
        self.write({name: FRESH[name] for name in names})

    def _file(self, name):
        return self._root / name.replace(".", "/")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """The settings of a kernel with ipvs that nobody has touched."""
    monkeypatch.setattr("backends.kernel.sysctl._SYSCTL", tmp_path)
    made = Tree(tmp_path)
    made.write(FRESH)
    return made


def missing(settings, image):
    """The keys that a commit would be asked to put."""
    return image.keys() - settings.observe().keys()


@FAMILIES
def test_what_is_needed_is_written_once_and_found_by_the_next_start(tree, family):
    settings = NodeSettings(family, PLAIN)
    image = settings.render()
    assert settings.render() == {}, "it never changes"
    assert missing(settings, image) == image.keys()
    settings.put(["filter/KPROXY-IPVS-FILTER", b"V", *image])

    forwarding = "ip_forward" if family is Family.IPV4 else "conf.all.forwarding"
    assert tree.altered() == {
        f"net.ipv{4 if family is Family.IPV4 else 6}.{forwarding}": "1",
        "net.ipv4.vs.conntrack": "1",
        "net.ipv4.vs.conn_reuse_mode": "1",
        "net.ipv4.vs.expire_nodest_conn": "1",
        "net.ipv4.vs.expire_quiescent_template": "1",
    }
    assert not settings.disturbed()
    assert NodeSettings(family, PLAIN).observe() == image


@FAMILIES
def test_strict_arp_is_for_ipv4_where_it_is_asked_for(tree, family):
    settings = NodeSettings(family, replace(PLAIN, strict_arp=True))
    settings.put(settings.render())

    strict = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
    found = {name: value for name, value in tree.altered().items() if ".arp_" in name}
    assert found == (strict if family is Family.IPV4 else {})


@pytest.mark.parametrize(("kernel", "value"), [(NEW, "1"), ((5, 9), "1"), (OLD, "0")])
def test_a_port_that_is_used_again_is_as_upstream_has_it_by_the_kernel(kernel, value):
    found = list(node_settings(Family.IPV4, PLAIN, kernel))
    assert Setting("net/ipv4/vs/conn_reuse_mode", value) in found


def test_what_others_alter_is_noticed_and_put_right_alone(tree):
    settings = NodeSettings(Family.IPV4, PLAIN)
    image = settings.render()
    settings.put(image)
    tree.write({"net.ipv4.vs.conntrack": "0"})
    assert settings.disturbed()

    (altered,) = missing(settings, image)
    assert altered == "sysctl/net.ipv4.vs.conntrack"
    settings.put([altered])
    assert not settings.disturbed()
    assert missing(settings, image) == set()


def test_what_is_refused_stops_nothing_and_is_tried_again_until_it_is_had(tree):
    refused = "net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn"
    tree.refuse(*refused)
    settings = NodeSettings(Family.IPV4, PLAIN)
    image = settings.render()
    settings.put(image)
    assert settings.observe() == image, "else each look would begin the same commit again"
    assert not settings.disturbed()
    words = r"sysctl -w net\.ipv4\.vs\.conntrack=1"
    with pytest.raises(BackendError, match=rf"{words}; 1 more refused$"):
        settings.settle()

    tree.permit(refused[1])
    with pytest.raises(BackendError, match=rf"{words}$"):
        settings.settle()
    tree.permit(refused[0])
    settings.settle()
    assert tree.altered().keys() >= set(refused)
    tree.write({"net.ipv4.vs.expire_nodest_conn": "0"})
    assert settings.disturbed()


def test_timeouts_are_a_setting_where_one_is_chosen():
    plain = [each.name for each in node_settings(Family.IPV4, PLAIN, NEW)]
    chosen = replace(PLAIN, timeouts=Timeouts(900, 0, 30))
    (added,) = (e for e in node_settings(Family.IPV4, chosen, NEW) if e.name not in plain)
    assert (added.name, added.value) == ("ipvs timeouts", "tcp 900 s, udp 30 s")


def test_timeouts_are_whole_seconds_and_never_none_where_some_time_was_asked_for():
    assert timeouts(tcp_s=1.5, tcp_fin_s=1e-9, udp_s=0.0) == (2, 1, 0)
    assert timeouts(tcp_s=9e9, tcp_fin_s=0, udp_s=60.0) == (2**31 - 1, 0, 60)
