"""`kproxy run`, `check` and `cleanup` on a real kernel, in a network namespace of their own."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.kernel

NODE = ("--node-name", "node-1")
DEADLINE_S = 60

# What `nfacct add` would do, which is rarely installed.
_ENSURE = (
    "from backends.iptables.driver.accounting import ensure\n"
    "from kproxy.core.addresses import Family\n"
    "ensure(Family.{})"
)
COUNTERS = {"ipv4": _ENSURE.format("IPV4"), "ipv6": _ENSURE.format("IPV6")}


class Log:
    """The JSON log of a running process, read as it comes."""

    def __init__(self, stream):
        self._stream = stream
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)
        os.set_blocking(stream.fileno(), False)
        self._rest = b""
        self.messages = []

    def wait_for(self, words):
        """Return the first message with these words in it that was not returned before."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            while self.messages:
                message = self.messages.pop(0)
                if words in message:
                    return message
            self._selector.select(timeout=deadline - time.monotonic())
            lines = (self._rest + (self._stream.read() or b"")).split(b"\n")
            self._rest = lines.pop()
            self.messages += [json.loads(line)["message"] for line in lines]
        raise AssertionError(f"no log line with {words!r} within {DEADLINE_S} s")


@pytest.fixture
def running(spawn, node, manifests, variant):
    """Start `kproxy run` and wait until it is ready; return the process and its log."""
    arguments = ("run", "--manifests", manifests, *NODE, "--log-format", "json")
    process = spawn(*arguments, "--iptables-variant", variant, prefix=node, bufsize=0)
    log = Log(process.stderr)
    log.ready = log.wait_for("ready: ")
    return process, log


def eventually(condition):
    """Wait until `condition` holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_leaves_the_rules_at_the_end(running, rules, number):
    process, log = running
    counts = "2 Services with 2 ports and 3 endpoints in the kernel for IPv4 and IPv6"
    assert log.ready.startswith(f"ready: {counts}, ")
    before = rules(), rules("ip6tables")
    process.send_signal(number)
    assert process.wait(timeout=DEADLINE_S) == 0
    assert (rules(), rules("ip6tables")) == before
    assert any("10.1.0.9:8080" in line for line in before[0])
    assert any("[fd00:1::9]:8080" in line for line in before[1])


def test_it_follows_the_manifests(running, rules, manifests):
    text = (manifests / "all.yaml").read_text().replace("10.1.0.9", "10.1.0.77")
    (manifests / "all.yaml").write_text(text)
    eventually(lambda: any("10.1.0.77:8080" in line for line in rules()))
    assert not any("10.1.0.9:8080" in line for line in rules())


def test_a_second_start_finds_nothing_to_write(kproxy, manifests, variant, rules):
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    code, _, first = kproxy(*once)
    assert code == 0, first
    before = rules()
    code, _, second = kproxy(*once)
    assert code == 0, second
    assert rules() == before
    assert "IPv4: wrote 0 kernel objects" in second
    assert "IPv6: wrote 0 kernel objects" in second


def test_once_beside_a_running_kproxy_changes_nothing_and_is_code_1(
    running, kproxy, tmp_path, variant, rules
):
    process, _ = running
    before = rules(), rules("ip6tables")
    empty = tmp_path / "empty"
    empty.mkdir()
    once = ("run", "--manifests", empty, *NODE, "--once", "--iptables-variant", variant)
    code, _, stderr = kproxy(*once)
    assert code == 1
    assert stderr.splitlines()[-1] == (
        "kproxy: a kproxy runs here and would write its rules again: stop it first"
    )
    assert (rules(), rules("ip6tables")) == before

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=DEADLINE_S) == 0
    code, _, stderr = kproxy(*once)
    assert code == 0, stderr
    assert not any("10.1.0.9:8080" in line for line in rules())


def test_one_that_waits_for_another_has_set_nothing_yet(
    running, spawn, node, manifests, config, variant
):
    tracked = [*node, "sysctl", "-n", "net.netfilter.nf_conntrack_udp_timeout"]
    before = subprocess.run(tracked, check=True, capture_output=True).stdout
    wanted = config(conntrack={"maxPerCore": 0, "udpTimeout": "77s"})
    arguments = ("run", "--manifests", manifests, *NODE, "--config", wanted, "--log-format", "json")
    second = Log(spawn(*arguments, "--iptables-variant", variant, prefix=node, bufsize=0).stderr)
    second.wait_for("waiting until it ends")
    assert subprocess.run(tracked, check=True, capture_output=True).stdout == before

    process, _ = running
    process.send_signal(signal.SIGTERM)
    second.wait_for("set nf_conntrack_udp_timeout to 77")
    second.wait_for("ready: ")


def test_invalid_packets_pass_while_connection_tracking_is_liberal(
    spawn, node, manifests, config, variant, rules
):
    def drops_invalid():
        return any("INVALID" in line for line in rules())

    liberal = config(conntrack={"maxPerCore": 0, "tcpBeLiberal": True})
    arguments = ("run", "--manifests", manifests, *NODE, "--config", liberal)
    arguments += ("--iptables-variant", variant, "--log-format", "json")
    log = Log(spawn(*arguments, prefix=node, bufsize=0).stderr)
    log.wait_for("set nf_conntrack_tcp_be_liberal to 1")
    log.wait_for("ready: ")
    assert not drops_invalid()
    for value, passes in ((0, False), (1, True)):
        setting = f"net.netfilter.nf_conntrack_tcp_be_liberal={value}"
        subprocess.run([*node, "sysctl", "-qw", setting], check=True)
        eventually(lambda passes=passes: drops_invalid() is not passes)


def test_verbose_tells_of_our_own_doings_and_not_of_every_netlink_message(kproxy, manifests):
    once = ("run", "--manifests", manifests, *NODE, "--once", "-v")
    code, _, stderr = kproxy(*once)
    assert code == 0, stderr
    assert "NLMSG" not in stderr
    assert len(stderr.splitlines()) < 50


def test_applied_names_the_families_that_have_it(kproxy, manifests, node, variant):
    off = "net.ipv6.conf.all.disable_ipv6=1"
    subprocess.run([*node, "sysctl", "-qw", off], check=True)
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    code, _, stderr = kproxy(*once)
    assert code == 0, stderr
    assert "with 2 ports and 2 endpoints in the kernel for IPv4\n" in stderr


def test_the_other_variant_keeps_nothing_of_an_earlier_run(kproxy, node, manifests, variant, rules):
    other = {"nft": "legacy", "legacy": "nft"}[variant]
    for each in (other, variant):
        once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", each)
        code, _, stderr = kproxy(*once)
        assert code == 0, stderr
    assert any("10.1.0.9:8080" in line for line in rules())
    save = [*node, f"iptables-{other}-save"]
    left = subprocess.run(save, check=True, capture_output=True, text=True).stdout
    assert "KPROXY" not in left
    sysctl = [*node, "sysctl", "-n", "net.ipv4.conf.all.route_localnet"]
    assert subprocess.run(sysctl, check=True, capture_output=True).stdout == b"1\n"


def test_once_with_a_bad_manifest_applies_the_rest_and_is_code_3(kproxy, manifests, variant, rules):
    (manifests / "bad.yaml").write_text("a: [")
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    code, stdout, stderr = kproxy(*once)
    assert (code, stdout) == (3, "")
    assert "bad.yaml" in stderr
    assert any("10.1.0.9:8080" in line for line in rules())


PLANT = """\
apiVersion: v1
kind: Service
metadata: {name: plant}
spec: {clusterIP: 10.96.14.20, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: plant-1, labels: {LABEL: plant}}
addressType: IPv4
ports: [{name: PORT, port: 9376}]
endpoints: [{addresses: [10.1.2.3]}]
"""
SERVED_BY = "kubernetes.io/service-name"


def test_who_repairs_a_manifest_hears_of_each_mistake_until_packets_are_forwarded(
    running, manifests, rules
):
    def write(label, port):
        text = PLANT.replace("LABEL", label).replace("PORT", port)
        (manifests / "plant.yaml").write_text(text)

    _, log = running
    write("app", "http")
    assert log.wait_for("plant.yaml:8: ").endswith(f"no {SERVED_BY}, so it belongs to no Service")
    assert "plant-1 (plant.yaml) is left out" in log.wait_for("Service default/plant: ")
    write(SERVED_BY, "http")
    assert log.wait_for("Service default/plant: ").endswith("it has 'http' TCP: name both alike")
    write(SERVED_BY, '""')
    eventually(lambda: any("10.1.2.3:9376" in line for line in rules()))


def test_once_names_the_cause_too(kproxy, manifests):
    text = PLANT.replace("LABEL", SERVED_BY).replace("PORT", "http")
    (manifests / "plant.yaml").write_text(text)
    code, _, stderr = kproxy("run", "--manifests", manifests, *NODE, "--once")
    assert code == 0
    (line,) = (line for line in stderr.splitlines() if "default/plant" in line)
    assert " warning Service default/plant: port 80 TCP, IPv4: no usable endpoint" in line
    assert line.endswith("it has 'http' TCP: name both alike")


LISTEN = """
import socket, sys
with socket.create_server(("0.0.0.0", 30081)):
    print("listens", flush=True)
    sys.stdin.read()
"""
LATE = """\
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {type: NodePort, clusterIP: 10.96.14.21, ports: [{port: 80, nodePort: 30081}]}
"""


@pytest.fixture
def listener(node):
    """Listen at a port that will be a NodePort."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*node, sys.executable, "-c", LISTEN], **pipes) as process:
        assert process.stdout.readline() == b"listens\n"
        yield
        process.stdin.close()


def test_a_program_that_loses_its_port_to_a_node_port_is_named(
    listener, running, kproxy, manifests
):
    process, log = running
    (manifests / "late.yaml").write_text(LATE)
    loser = "what listens at port 30081 of this node"
    said = f"NodePort 30081 TCP is claimed twice: default/late has it, {loser} does not"
    assert log.wait_for("claimed twice") == said
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=DEADLINE_S) == 0
    code, _, stderr = kproxy("run", "--manifests", manifests, *NODE, "--once")
    assert code == 0
    assert said in stderr


def test_what_render_prints_is_what_run_would_write(kproxy, node, manifests, variant):
    for family, stem in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        code, text, _ = kproxy("render", "--manifests", manifests, *NODE, "--family", family)
        assert code == 0
        assert "# nfacct add kproxy-" in text
        subprocess.run([*node, sys.executable, "-c", COUNTERS[family]], check=True)
        command = [*node, f"{stem}-{variant}-restore", "--noflush"]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
        settings = [line.removeprefix("# sysctl -w ") for line in text.splitlines()]
        settings = [line for line in settings if line.startswith("net.")]
        assert settings
        subprocess.run([*node, "sysctl", "-qw", *settings], check=True)
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    code, _, stderr = kproxy(*once)
    assert code == 0
    assert "IPv4: wrote 0 kernel objects" in stderr
    assert "IPv6: wrote 0 kernel objects" in stderr


def test_cleanup_removes_all_of_ours_and_nothing_else(kproxy, node, manifests, variant, rules):
    foreign = "*filter\n:MINE - [0:0]\n-A INPUT -j MINE\n-A MINE -p udp -j DROP\nCOMMIT\n"
    command = [*node, f"iptables-{variant}-restore", "--noflush"]
    subprocess.run(command, input=foreign, text=True, check=True)
    assert kproxy("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    assert any("KPROXY" in line for line in rules())
    code, stdout, stderr = kproxy("cleanup")
    assert (code, stderr) == (0, "")
    assert [line.partition(": removed")[0] for line in stdout.splitlines()] == [
        "iptables IPv4",
        "iptables IPv6",
        "ipvs IPv4",
        "ipvs IPv6",
        "ebpf IPv4",
        "ebpf IPv6",
    ]
    assert [line for line in rules() if line.startswith("-A")] == [
        "-A INPUT -j MINE",
        "-A MINE -p udp -j DROP",
    ]
    assert not any("KPROXY" in line for line in rules() + rules("ip6tables"))
    assert ": removed 0 kernel objects" in kproxy("cleanup")[1]


def test_check_says_that_iptables_can_work_here(kproxy, node):
    subprocess.run([*node, "ip", "link", "set", "lo", "up"], check=True)
    code, stdout, stderr = kproxy("check")
    assert stderr == ""
    assert "ok   nft DNAT" in stdout
    assert [line for line in stdout.splitlines() if line.endswith(":") and line[0] != " "] == [
        "this host:",
        "iptables, IPv4:",
        "iptables, IPv6:",
        "ipvs, IPv4:",
        "ipvs, IPv6:",
        "nftables (not available yet in this version):",
        "ebpf, IPv4:",
        "ebpf, IPv6:",
    ]
    assert code == 0


def test_check_of_a_data_path_to_come_is_code_1(kproxy):
    code, stdout, _ = kproxy("check", "--proxy-mode", "nftables")
    assert code == 1
    assert "iptables" not in stdout


def test_without_privilege_run_and_cleanup_say_so(spawn, manifests):
    for arguments in (("run", "--manifests", "/", *NODE), ("cleanup",)):
        process = spawn(*arguments, user=65534, group=65534)
        assert process.wait(timeout=DEADLINE_S) == 1
        (line,) = process.stderr.read().decode().splitlines()
        assert line.startswith("kproxy: needs CAP_NET_ADMIN")
