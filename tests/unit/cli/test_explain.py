"""`kproxy explain` from the outside."""

import contextlib
import json
import os
import select
import subprocess
import sys
import time

import pytest

NODE = ("--node-name", "node-1")
LONGEST_S = 60
KEYS = ["verdict", "service", "via", "endpoints", "masquerade", "reason"]


@pytest.fixture
def ask(invoke, manifests):
    """Ask about one packet and return the JSON answer."""

    def ask(source, to, *more, protocol="tcp", local="192.0.2.1"):
        result = invoke(
            *("explain", "--manifests", manifests, *NODE, "--local-address", local),
            *("--from", source, "--to", to, "--protocol", protocol, "-o", "json", *more),
        )
        assert result.exit_code == 0, result.stderr
        answer = json.loads(result.stdout)
        assert list(answer) == KEYS
        return answer

    return ask


def test_a_pod_reaches_both_endpoints(ask):
    answer = ask("10.1.0.5", "10.96.0.10:80")
    assert answer["verdict"] == "forward"
    assert answer["service"] == "shop/web:http"
    assert answer["via"] == "clusterIP"
    assert answer["endpoints"] == ["10.1.0.9:8080", "10.1.1.10:8080"]
    assert answer["masquerade"] is False


def test_ipv6_is_written_in_brackets(ask):
    answer = ask("fd00:1::5", "[fd00:96::10]:80")
    assert answer["endpoints"] == ["[fd00:1::9]:8080"]


def test_a_node_port_is_met_at_the_local_address_only(ask):
    assert ask("198.51.100.7", "192.0.2.1:30080")["via"] == "nodePort"
    assert ask("198.51.100.7", "192.0.2.2:30080")["verdict"] == "pass"
    assert ask("198.51.100.7", "192.0.2.2:30080", local="192.0.2.002")["via"] == "nodePort"


def cidr_around_the_node(manifests):
    """Put the node's network into a ServiceCIDR."""
    document = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["192.0.0.0/16"]},
    }
    (manifests / "cidr.json").write_text(json.dumps(document))


def test_a_neighbour_in_a_service_cidr_is_known_by_the_node_s_network(ask, manifests):
    cidr_around_the_node(manifests)
    assert ask("192.0.2.1", "192.0.2.9:22")["verdict"] == "drop"
    near = ask("192.0.2.1", "192.0.2.9:22", local="192.0.2.1/24")
    assert near["verdict"] == "pass"
    assert "192.0.2.0/24 (this node is directly connected to it)" in near["reason"]
    assert ask("192.0.2.1", "192.0.3.9:22", local="192.0.2.1/24")["verdict"] == "drop"
    assert ask("192.0.2.1", "192.0.2.9:22", local="192.0.2.1/32")["verdict"] == "drop"
    assert ask("198.51.100.7", "192.0.2.1:30080", local="192.0.2.001/24")["via"] == "nodePort"


@pytest.mark.parametrize("command", ["explain", "render"])
def test_ranges_that_overlap_are_said_once(invoke, manifests, command):
    cidr_around_the_node(manifests)
    where = ("--manifests", manifests, *NODE, "--local-address", "192.0.2.1/24")
    result = invoke(command, *where, *(PACKET if command == "explain" else ()))
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "ServiceCIDR 192.0.0.0/16 overlaps 192.0.2.0/24 (this node is directly" in line
    if command == "render":
        returns = result.stdout.index("-d 192.0.2.0/24 -j RETURN")
        assert 0 < returns < result.stdout.index("-d 192.0.0.0/16 -j DROP")


def test_a_load_balancer_address_of_the_node_s_own_is_left_out_and_said(invoke, ask, manifests):
    status = {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}}
    document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tunnel"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.12", "ports": [{"port": 80}]},
        "status": status,
    }
    (manifests / "tunnel.json").write_text(json.dumps(document))
    assert ask("127.0.0.1", "127.0.0.1:80")["verdict"] == "pass"
    assert ask("10.1.0.5", "10.96.0.12:80")["verdict"] == "reject"
    result = invoke("explain", "--manifests", manifests, *NODE, *PACKET)
    assert "Service default/tunnel: the load-balancer address 127.0.0.1 must not" in result.stderr


def test_nobody_serves_it(ask):
    answer = ask("10.1.0.5", "10.96.0.11:53", protocol="UDP")
    expected = {"verdict": "reject", "service": "shop/idle", "via": "clusterIP", "endpoints": []}
    assert answer == {**answer, **expected, "masquerade": False}


def test_what_is_not_ours_passes(ask):
    answer = ask("10.1.0.5", "203.0.113.1:80")
    assert answer == {**answer, "verdict": "pass", "service": None, "via": None, "endpoints": []}


def test_hairpin_alone_is_told_in_the_reason(ask, config):
    detect = config(detectLocalMode="NodeCIDR")
    answer = ask("10.1.0.9", "10.96.0.10:80", "--config", detect)
    assert answer["masquerade"] is False
    assert "10.1.0.9:8080" in answer["reason"]


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [("iptables", "forward"), ("ipvs", "pass"), ("nftables", "pass"), ("ebpf", "forward")],
)
def test_every_mode_has_its_own_default_for_localhost(ask, mode, verdict):
    answer = ask("127.0.0.1", "127.0.0.1:30080", "--proxy-mode", mode)
    assert answer["verdict"] == verdict


def test_primary_reads_the_node_object_and_not_the_local_addresses(ask):
    nftables = ("--proxy-mode", "nftables")
    assert ask("198.51.100.7", "192.0.2.1:30080", *nftables)["verdict"] == "forward"
    local = "192.0.2.9"
    assert ask("198.51.100.7", "192.0.2.9:30080", *nftables, local=local)["verdict"] == "pass"


def test_the_configuration_decides_too(ask, config):
    fields = config(mode="nftables", nftables={"masqueradeAll": True})
    assert ask("10.1.0.5", "10.96.0.10:80", "--config", fields)["masquerade"] is True
    fields = config(detectLocalMode="BridgeInterface", detectLocal={"bridgeInterface": "cbr0"})
    by_pod = ("--config", fields, "--in-interface", "cbr0")
    assert ask("10.1.0.5", "10.96.0.10:80", *by_pod)["masquerade"] is False
    assert ask("10.1.0.5", "10.96.0.10:80", "--config", fields)["masquerade"] is True


def test_text_is_for_a_person(invoke, manifests):
    result = invoke(
        *("explain", "--manifests", manifests, *NODE, "--local-address", "192.0.2.1"),
        *("--from", "198.51.100.7", "--in-interface", "eth0", "--to", "192.0.2.1:30080"),
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    head, *rows = result.stdout.splitlines()
    assert head == (
        "198.51.100.7 -> 192.0.2.1:30080 tcp, in by eth0: FORWARD to one of the endpoints below"
    )
    assert [row.split()[0] for row in rows if row[2] != " "] == [
        "service",
        "via",
        "endpoints",
        "masquerade",
        "why",
    ]


PACKET = ("--from", "10.1.0.5", "--to", "10.96.0.10:80")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((*NODE,), "give --from IP and --to IP:PORT, or --flows FILE"),
        ((*NODE, "--from", "10.1.0.5"), "give --from IP and --to IP:PORT, or --flows FILE"),
        ((*NODE, "--from", "x", "--to", "10.96.0.10:80"), "--from: expected an IP address"),
        ((*NODE, "--from", "::1", "--to", "10.96.0.10:80"), "--from and to must be of one IP"),
        ((*NODE, *PACKET, "--flows", os.devnull), "--flows stands alone"),
        ((*NODE, *PACKET, "--local-address", "x"), "--local-address: 'x'"),
        (
            (*NODE, *PACKET, "--local-address", "192.0.2.1/x"),
            "--local-address: '192.0.2.1/x' is no",
        ),
        (
            (*NODE, *PACKET, "--local-address", "192.0.2.1/33"),
            "--local-address: '192.0.2.1/33' is no",
        ),
        ((*NODE, *PACKET, "--protocol", "icmp"), "Invalid value for '--protocol'"),
        ((*NODE, *PACKET, "--proxy-mode", "magic"), "Invalid value for '--proxy-mode'"),
        ((*NODE, *PACKET, "--config", "/nowhere/file"), "/nowhere/file: cannot be read"),
        (("--node-name", " ", *PACKET), "the node name must not be blank"),
        ((*NODE, *PACKET, "--bogus"), "No such option '--bogus'"),
        ((*NODE, *PACKET, "surplus"), "Got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(invoke, manifests, arguments, expected):
    result = invoke("explain", "--manifests", manifests, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"kproxy: {expected}")


def test_a_folder_that_is_not_there_is_code_2(invoke, tmp_path):
    result = invoke("explain", "--manifests", tmp_path / "none", *NODE, *PACKET)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_each_configuration_error_has_its_line(invoke, manifests, config):
    bad = config(mode="magic", oomScoreAdj=5000)
    result = invoke("explain", "--manifests", manifests, *NODE, *PACKET, "--config", bad)
    assert result.exit_code == 2
    assert [line.split(": ")[2] for line in result.stderr.splitlines()] == ["mode", "oomScoreAdj"]


def test_a_bad_manifest_is_told_and_costs_nothing_else(invoke, manifests):
    (manifests / "bad.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\n")
    (manifests / "worse.yaml").write_text("a: [")
    result = invoke("explain", "--manifests", manifests, *NODE, *PACKET, "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["verdict"] == "forward"
    assert {line.split(":")[1] for line in result.stderr.splitlines()} == {
        " bad.yaml",
        " worse.yaml",
    }


def test_a_frontend_that_two_services_claim_is_told(invoke, manifests):
    (manifests / "thief.yaml").write_text(
        """
apiVersion: v1
kind: Service
metadata: {name: thief, namespace: shop}
spec:
  clusterIP: 10.96.0.99
  externalIPs: [10.96.0.10]
  ports: [{name: http, port: 80}]
"""
    )
    result = invoke("explain", "--manifests", manifests, *NODE, *PACKET)
    assert result.stderr == (
        "kproxy: 10.96.0.10:80 TCP is claimed twice: shop/web:http has it, "
        "shop/thief:http does not\n"
    )


def flow(source="10.1.0.5", to="10.96.0.10:80", protocol="tcp", **more):
    return json.dumps({"from": source, "to": to, "protocol": protocol, **more})


def test_flows_are_answered_one_for_one(invoke, manifests):
    lines = [
        flow(),
        "nonsense",
        flow(to="10.96.0.11:53", protocol="udp", in_interface=None),
        "",
        flow(source="fd00:1::5"),
        flow(source="fd00:1::5", to="[fd00:96::10]:80", in_interface="eth0"),
    ]
    command = ("explain", "--manifests", manifests, *NODE, "--flows", "-")
    result = invoke(*command, stdin="\n".join(lines))
    assert result.exit_code == 1
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each.get("verdict", "error") for each in answers] == [
        *("forward", "error", "reject", "error", "error", "forward"),
    ]
    assert all(list(each) == (KEYS if "verdict" in each else ["error"]) for each in answers)


def test_flows_from_a_file_without_a_bad_line_are_code_0(invoke, manifests, tmp_path):
    file = tmp_path / "flows"
    file.write_text(f"{flow()}\n{flow()}\n")
    result = invoke("explain", "--manifests", manifests, *NODE, "--flows", file)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2


def test_each_answer_comes_before_the_next_question(spawn, manifests):
    command = ("explain", "--manifests", manifests, *NODE, "--local-address", "192.0.2.1")
    process = spawn(*command, "--flows", "-", bufsize=0)
    said = select.poll()  # `select` takes no descriptor above 1023
    said.register(process.stdout, select.POLLIN)
    for to in ("10.96.0.10:80", "10.96.0.12:80", "192.0.2.1:30080"):
        process.stdin.write(flow(to=to).encode() + b"\n")
        assert said.poll(1000 * LONGEST_S), "no answer"
        assert json.loads(process.stdout.readline())["verdict"] in ("forward", "pass")
    process.stdin.close()
    assert process.wait(timeout=LONGEST_S) == 0


def test_a_reader_that_leaves_ends_it_quietly(spawn, manifests):
    command = ("explain", "--manifests", manifests, *NODE, "--local-address", "192.0.2.1")
    process = spawn(*command, "--flows", "-")
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(flow().encode() + b"\n")
        process.stdin.flush()
    process.wait(timeout=LONGEST_S)
    assert process.stderr.read() == b""


def test_ten_thousand_flows_take_about_a_second(invoke, manifests):
    lines = "".join(flow(source=f"10.1.{n >> 8}.{n & 255}") + "\n" for n in range(10_000))
    started = time.process_time()
    result = invoke("explain", "--manifests", manifests, *NODE, "--flows", "-", stdin=lines)
    assert time.process_time() - started < 5  # a fifth of that where nothing else runs
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 10_000


def test_explain_does_not_load_what_it_does_not_need():
    script = (
        "import sys, kproxy.cli.explain\n"
        "print(*{'pyroute2', 'rich', 'iptc', 'kproxy.proxy.data_paths'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.strip() == b""


def test_an_address_of_the_node_that_is_none_is_told_and_the_node_is_used(invoke, manifests):
    everything = manifests / "all.yaml"
    text = everything.read_text()
    none = "- address: ''\n    type: ExternalIP"
    changed = text.replace("- address: 192.0.2.1\n", f"{none}\n  - address: 192.0.2.1\n")
    assert changed != text
    everything.write_text(changed)

    result = invoke("explain", "--manifests", manifests, *NODE, *PACKET)

    assert result.exit_code == 0
    assert result.stderr == (
        "kproxy: Node node-1: '' among its addresses is none; going on without it\n"
    )
