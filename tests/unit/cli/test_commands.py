"""Every command from the outside, as far as it needs no kernel."""

import re
import subprocess
import sys

import pytest

from kproxy import __version__

COMMANDS = ["check", "cleanup", "explain", "kube-proxy", "render", "run"]
NODE = ("--node-name", "node-1")


def test_the_help_names_every_command_and_the_exit_codes(invoke):
    result = invoke("--help")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.split("Commands:\n")[1].splitlines()] == (
        COMMANDS
    )
    assert "Exit codes" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_its_exit_codes(invoke, command):
    for option in ("--help", "-h"):
        result = invoke(command, option)
        assert result.exit_code == 0
        assert "Exit codes:" in " ".join(result.stdout.split())
        assert result.stderr == ""


def test_the_version_is_told(invoke):
    assert invoke("--version").stdout == f"kproxy {__version__}\n"


@pytest.mark.parametrize("words", [[], ["explain"], ["render"], ["run"]])
def test_without_arguments_the_help_comes_as_it_is(invoke, words):
    result = invoke(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: kproxy")
    assert len(result.stderr.splitlines()) > 10


@pytest.mark.parametrize("packet", [["--from", "1.1.1.1", "--to", "2.2.2.2:2"], ["--flows", "-"]])
def test_a_full_disk_under_the_output_is_one_line_and_code_1(spawn, manifests, packet):
    with open("/dev/full", "wb") as full:
        process = spawn("explain", "--manifests", manifests, *NODE, *packet, stdout=full)
        flow = b'{"from": "1.1.1.1", "to": "2.2.2.2:2", "protocol": "tcp"}'
        _, stderr = process.communicate(flow, timeout=60)
    assert process.returncode == 1
    assert stderr.decode() == "kproxy: cannot write the output: No space left on device\n"


def test_an_unknown_command_is_one_line_and_code_2(invoke):
    result = invoke("explode")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "kproxy: No such command 'explode' (see kproxy --help)\n"


@pytest.mark.parametrize("command", ["run", "render"])
def test_a_data_path_to_come_is_refused_and_the_others_named(invoke, manifests, command):
    result = invoke(command, "--manifests", manifests, *NODE, "--proxy-mode", "nftables")
    assert result.exit_code == 2
    assert result.stderr == (
        "kproxy: proxy mode nftables is not available yet in this version; "
        "available: iptables, ipvs, ebpf\n"
    )


def test_render_of_ebpf_prints_the_entries_of_each_map(invoke, manifests):
    result = invoke("render", "--manifests", manifests, *NODE, "--proxy-mode", "ebpf")
    assert result.exit_code == 0
    assert re.findall(r"^(?:# IP.*|map \w+)", result.stdout, re.MULTILINE) == [
        *("# IPv4", "map frontends", "map chunks", "map members", "map source_ranges"),
        *("map unclaimed_networks", "map node_port_networks", "map table_rules"),
        *("# IPv6", "map frontends", "map chunks", "map members", "map source_ranges"),
        *("map unclaimed_networks", "map node_port_networks", "map table_rules"),
    ]
    assert "10.1.0.9:8080" in result.stdout
    assert "[fd00:1::9]:8080" in result.stdout


def test_render_prints_an_input_for_each_family_and_table(invoke, manifests):
    result = invoke("render", "--manifests", manifests, *NODE)
    assert result.exit_code == 0
    assert re.findall(r"^(?:# IP.*|\*.*|COMMIT)$", result.stdout, re.MULTILINE) == [
        *("# IPv4", "*filter", "COMMIT", "*nat", "COMMIT"),
        *("# IPv6", "*filter", "COMMIT", "*nat", "COMMIT"),
    ]
    assert "--to-destination 10.1.0.9:8080" in result.stdout
    assert "--to-destination [fd00:1::9]:8080" in result.stdout


def test_render_of_one_family_is_that_half(invoke, manifests):
    both = invoke("render", "--manifests", manifests, *NODE).stdout
    halves = [
        invoke("render", "--manifests", manifests, *NODE, "--family", family).stdout
        for family in ("ipv4", "ipv6")
    ]
    assert both == "".join(halves)


def test_render_takes_the_configuration(invoke, manifests, config):
    bit = config(iptables={"masqueradeBit": 3})
    text = invoke("render", "--manifests", manifests, *NODE, "--config", bit).stdout
    assert "0x8/0x8" in text
    assert "0x4000" not in text


def test_render_names_the_ipsets_of_affinity(invoke, manifests):
    text = (manifests / "all.yaml").read_text()
    sticky = text.replace("type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP")
    (manifests / "all.yaml").write_text(sticky)
    printed = invoke("render", "--manifests", manifests, *NODE, "--family", "ipv4").stdout
    created = re.findall(
        r"^# ipset create (kproxy-4-\S+) hash:ip family inet timeout 10800 maxelem \d+ forceadd$",
        printed,
        re.MULTILINE,
    )
    assert len(created) == 2
    assert all(f"--add-set {name} " in printed for name in created)


def test_listing_the_data_paths_imports_none():
    script = (
        "import sys, kproxy.proxy.data_paths\nprint(*[m for m in sys.modules if 'backends' in m])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.strip() == b""


@pytest.mark.parametrize("left", [False, True])
def test_of_ebpf_nothing_is_imported_unless_it_left_something(tmp_path, left):
    (tmp_path / "kproxy" / ("ipv4" if left else "")).mkdir(parents=True)
    script = f"""
import sys
import msgspec
from kproxy.config.fields import Configuration, Mode
from kproxy.proxy.data_paths import others
given = {{"mode": "iptables", "kproxy": {{"ebpf": {{"bpffs": {str(tmp_path)!r}}}}}}}
print(*sorted(type(each).__name__ for each in others(msgspec.convert(given, Configuration))))
print("backends.ebpf.path" in sys.modules)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert found.stdout.splitlines() == (
        ["EbpfPath IpvsPath", "True"] if left else ["IpvsPath", "False"]
    )
