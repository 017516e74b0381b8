"""The program under the name `kube-proxy`."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from kproxy import __version__
from kproxy.cli.kube_proxy import main
from kproxy.config.fields import Mode
from kproxy.proxy.failures import BadUsage, Failed


@dataclass
class Cluster:
    """Stands for a proxy of a cluster, and only notes what it was asked for."""

    asked: list = field(default_factory=list)
    fails: Exception | None = None

    def _note(self, what, options):
        self.asked.append((what, options))
        if self.fails is not None:
            raise self.fails
        return 0

    def serve(self, options):
        return self._note("serve", options)

    def initialise(self, options):
        return self._note("initialise", options)

    def clean_up(self, options):
        return self._note("clean up", options)


@pytest.fixture
def cluster(monkeypatch):
    """Put a proxy that only notes what it is asked for in the place of the real one."""
    stand_in = Cluster()
    monkeypatch.setattr("kproxy.proxy.cluster", stand_in, raising=False)
    return stand_in


def test_without_more_it_serves_and_takes_over(cluster):
    assert main(["--hostname-override=Node-1", "--proxy-mode=iptables", "--master=http://x"]) == 0
    ((what, options),) = cluster.asked
    assert what == "serve"
    assert (options.node_name, options.master) == ("node-1", "http://x")
    assert options.loaded.configuration.kproxy.take_over
    assert options.loaded.configuration.kproxy.take_over
    assert options.config_file is None
    assert options.flags["proxy-mode"] == "iptables"


def test_a_file_is_loaded_and_remembered(cluster, config):
    path = config(mode="ipvs", hostnameOverride="a", kproxy={"takeOver": False})
    assert main([f"--config={path}"]) == 0
    ((_, options),) = cluster.asked
    assert options.config_file == path
    assert options.loaded.content == path.read_bytes()
    assert options.loaded.configuration.mode is Mode.IPVS
    assert not options.loaded.configuration.kproxy.take_over


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--cleanup"], "clean up"),
        (["--init-only"], "initialise"),
        (["--cleanup", "--init-only"], "clean up"),
        (["--cleanup=false"], "serve"),
    ],
)
def test_what_it_is_asked_for(cluster, words, what):
    assert main(words) == 0
    assert [asked for asked, _ in cluster.asked] == [what]


@pytest.mark.parametrize("error", [Failed("one\x1b", "two"), BadUsage("one\x1b", "two")])
def test_a_failure_is_a_line_each_and_code_1_as_upstream(cluster, capsys, error):
    cluster.fails = error
    assert main([]) == 1
    assert capsys.readouterr().err == "kube-proxy: one\\x1b\nkube-proxy: two\n"


def test_the_version_is_ours(capsys, cluster):
    assert main(["--version", "--proxy-mode=ipvs"]) == 0
    assert capsys.readouterr().out == (
        f"kproxy {__version__} (in the place of kube-proxy v1.37.1)\n"
    )
    assert cluster.asked == []


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["-v2", "--help"]])
def test_the_help_is_printed(capsys, words):
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Usage: kube-proxy [flags]\n")
    assert printed.err == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--bogus"], "unknown flag --bogus (see kube-proxy --help)"),
        (["--bogus", "--help"], "unknown flag --bogus (see kube-proxy --help)"),
        (["--version", "x\n"], r"takes no arguments, got 'x\n' (see kube-proxy --help)"),
        (["--iptables-sync-period=0"], "command line: iptables.syncPeriod: must be more than 0s"),
        (["--config=/none"], "/none: cannot be read: No such file or directory"),
        (["--hostname-override= "], "command line: hostnameOverride: must not be blank"),
        (["--write-config-to=/none/x"], "cannot write /none/x: No such file or directory"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_1(capsys, cluster, words, line):
    assert main(words) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"kube-proxy: {line}")
    assert cluster.asked == []


def test_the_effective_configuration_is_written_and_nothing_else_done(
    tmp_path, capsys, cluster, config
):
    path = config(mode="ipvs", bogus=1)
    written = tmp_path / "written.yaml"
    words = [f"--config={path}", "--hostname-override=Here", "--cleanup"]
    assert main([*words, f"--write-config-to={written}"]) == 0
    fields = yaml.safe_load(written.read_text())
    assert (fields["mode"], fields["hostnameOverride"]) == ("ipvs", "here")
    assert capsys.readouterr().err == f"kube-proxy: {path}: unknown fields, skipped: bogus\n"
    assert cluster.asked == []


def test_a_server_that_is_turned_off_cannot_be_written_down(tmp_path):
    written = tmp_path / "written.yaml"
    words = ["--healthz-port=0", "--healthz-bind-address=192.0.2.1", f"--write-config-to={written}"]
    assert main(words) == 0
    assert yaml.safe_load(written.read_text())["healthzBindAddress"] == "192.0.2.1:10256"


def test_the_name_of_the_program_decides(tmp_path):
    script = tmp_path / "kube-proxy"
    script.write_text(f"#!{sys.executable}\nfrom kproxy.__main__ import main\nmain()\n")
    script.chmod(0o755)
    (tmp_path / "kproxy").symlink_to(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for name, told in (("kube-proxy", "(in the place of"), ("kproxy", f"kproxy {__version__}\n")):
        done = subprocess.run(
            [tmp_path / name, "--version"],
            env=environment,
            capture_output=True,
            check=True,
            text=True,
        )
        assert told in done.stdout
        assert ("in the place of" in done.stdout) is (name == "kube-proxy")


def test_it_is_a_command_of_kproxy_too(invoke, cluster):
    result = invoke("kube-proxy", "-v", "2", "--master", "x", "--", "y")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "takes no arguments, got 'y'" in result.stderr
    assert invoke("kube-proxy", "-v2", "--proxy_mode=ipvs").exit_code == 0
    ((_, options),) = cluster.asked
    assert options.loaded.configuration.mode is Mode.IPVS
    assert options.loaded.configuration.logging.verbosity == 2


def test_writing_a_configuration_needs_no_client_and_no_data_path(tmp_path):
    script = (
        "import sys; from kproxy.cli.kube_proxy import main\n"
        f"assert main(['--write-config-to={tmp_path / 'x'}']) == 0\n"
        "print(*[name for name in sys.modules if name.startswith(('kubernetes', 'backends'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b""
