"""Exec plugins, which give tokens and certificates."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import msgspec
import pytest
import trustme

from kproxy.core.objects import Kind
from kproxy.ports.source import SourceState
from kproxy.watch.api.errors import ApiError
from kproxy.watch.api.plugin import Exec, Plugin
from tests.support.fake_api.server import PROXY_USER
from tests.support.waiting import LONGEST_S
from tests.unit.watch.api.following import Following
from tests.unit.watch.api.kubeconfigs import SECRET, by, encoded, kubeconfig, refusal, tokens, write


class Program:
    """An exec plugin that answers what a file says, and counts how often it is asked."""

    def __init__(self, folder):
        self._answer = folder / "answer"
        self._asked = folder / "asked"
        self._asked.write_text("")
        self.path = folder / "plugin"
        self.path.write_text(f"#!/bin/sh\necho >> {self._asked}\ncat {self._answer}\n")
        self.path.chmod(0o755)

    def answers(self, **status):
        version = "client.authentication.k8s.io/v1"
        answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
        self._answer.write_text(json.dumps(answer))

    @property
    def asked(self):
        return len(self._asked.read_text())

    def section(self, **fields):
        version = "client.authentication.k8s.io/v1"
        return {"exec": {"apiVersion": version, "command": str(self.path), **fields}}


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


def test_a_plugin_is_asked_until_its_token_expires(fake, cluster, tmp_path, program, ask, at_once):
    program.answers(token=fake.fake.token, expirationTimestamp="2999-01-01T00:00:00Z")
    api = by(write(tmp_path / "config", kubeconfig(cluster, program.section())))
    ask(api)
    ask(api)
    assert program.asked == 1

    program.answers(token=fake.fake.token, expirationTimestamp="2001-01-01T00:00:00Z")
    api = by(write(tmp_path / "config", kubeconfig(cluster, program.section())))
    ask(api)
    ask(api)
    assert program.asked == 4


def test_a_plugin_is_asked_again_if_its_token_is_refused(fake, cluster, tmp_path, program, ask):
    program.answers(token=fake.fake.token)
    api = by(write(tmp_path / "config", kubeconfig(cluster, program.section())))
    fake.fake.revoke(fake.fake.token)
    newer = fake.fake.issue(PROXY_USER)
    program.answers(token=newer)
    ask(api)

    assert tokens(fake) == [fake.fake.token, newer]


def test_a_plugin_may_give_a_certificate(cluster, tmp_path, program):
    pair = trustme.CA().issue_cert("somebody")
    program.answers(
        clientCertificateData=pair.cert_chain_pems[0].bytes().decode(),
        clientKeyData=pair.private_key_pem.bytes().decode(),
    )

    by(write(tmp_path / "config", kubeconfig(cluster, program.section())))


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        ({}, {}, "gives neither a token nor a certificate with its key"),
        ({"clientCertificateData": "x"}, {}, "gives neither a token nor a certificate"),
        ({"token": 7}, {}, "Expected `str | null`, got `int` - at `$.status.token`"),
        ({"token": SECRET}, {"command": "/missing/plugin"}, "No such file or directory"),
        ({"token": SECRET}, {"command": "/bin/false"}, "ends with status 1"),
        ({"token": SECRET}, {"command": "/bin/true"}, "answers with no JSON"),
        ({"token": SECRET}, {"command": "/bin/echo", "args": ["5"]}, "no ExecCredential"),
        ({"token": SECRET}, {"command": "/bin/printf", "args": ["\\377"]}, "answers with no JSON"),
        (
            {"token": SECRET},
            {"command": "/a\0b"},
            "its command or env cannot be used: embedded null",
        ),
        (
            {"token": SECRET},
            {"env": [{"name": "a=b", "value": ""}]},
            "illegal environment variable",
        ),
        ({"token": SECRET}, {"env": [{"name": "a", "value": "\0"}]}, "embedded null"),
        ({"clientCertificateData": "\ud800", "clientKeyData": "x"}, {}, "answers with no JSON"),
        (
            {"token": SECRET},
            {"apiVersion": "client.authentication.k8s.io/v1beta1"},
            "answers as client.authentication.k8s.io/v1, which is not what it was asked as",
        ),
    ],
)
def test_a_plugin_that_fails_is_told(cluster, tmp_path, program, status, fields, words):
    program.answers(**status)
    file = write(tmp_path / "config", kubeconfig(cluster, program.section(**fields)))

    text = refusal(file)
    assert text.startswith(f"kubeconfig {file}: exec plugin /")
    assert words in text


def test_a_plugin_gets_its_arguments_and_environment(fake, cluster, tmp_path, ask):
    answer = (
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
        '"status":{"token":"\'$TOKEN\'"}}'
    )
    section = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "/bin/sh",
            "args": ["-c", f"echo '{answer}'"],
            "env": [{"name": "TOKEN", "value": fake.fake.token}],
        }
    }

    assert ask(by(write(tmp_path / "config", kubeconfig(cluster, section)))) == 200


def test_a_plugin_is_told_of_the_cluster_if_it_wants_to(fake, cluster, tmp_path, program, ask):
    program.answers(token=fake.fake.token)
    (tmp_path / "ca").write_bytes(fake.fake.ca_pem)
    told = tmp_path / "told"
    wrapped = {
        "command": "/bin/sh",
        "args": ["-c", f'echo "$KUBERNETES_EXEC_INFO" > {told}; exec {program.path}'],
        "provideClusterInfo": True,
    }
    extensions = [
        {"name": "other"},
        {"extension": {}},
        {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}},
    ]
    named = {"server": fake.fake.url, "certificate-authority": "ca", "extensions": extensions}
    ask(by(write(tmp_path / "config", kubeconfig(named, program.section(**wrapped)))))

    assert json.loads(told.read_text())["spec"] == {
        "interactive": False,
        "cluster": {
            "server": fake.fake.url,
            "certificate-authority-data": encoded(fake.fake.ca_pem),
            "config": {"audience": "x"},
        },
    }


class Hanging:
    """A plugin that starts another program, which never ends, when it is told to hang."""

    def __init__(self, folder, program):
        self._pid = folder / "pid"
        self._go = folder / "hang"
        script = (
            f"if [ -e {self._go} ]; then sleep 1000 & echo $! > {self._pid}.new; "
            f"mv {self._pid}.new {self._pid}; wait; fi; exec {program.path}"
        )
        self.section = program.section(command="/bin/sh", args=["-c", script])

    def hang(self):
        self._go.touch()

    def wait_until_it_hangs(self):
        wait(self._pid.exists)

    def is_gone(self):
        if not self._pid.exists():  # it was killed before it came so far
            return True
        status = Path(f"/proc/{int(self._pid.read_text())}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def hanging(tmp_path, program):
    plugin = Hanging(tmp_path, program)
    yield plugin
    if (tmp_path / "pid").exists() and not plugin.is_gone():
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def wait(true):
    deadline = time.monotonic() + LONGEST_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_plugin_that_hangs_is_killed_with_what_it_started(
    cluster, tmp_path, hanging, monkeypatch
):
    monkeypatch.setattr("kproxy.watch.api.plugin.LIMIT_S", 0.5)
    hanging.hang()

    text = refusal(write(tmp_path / "config", kubeconfig(cluster, hanging.section)))
    assert text.endswith("exec plugin /bin/sh: has not finished after 0 s")
    wait(hanging.is_gone)


def test_while_a_plugin_hangs_nothing_looks_healthy(
    fake, cluster, tmp_path, program, hanging, at_once, monkeypatch
):
    program.answers(token=fake.fake.token, expirationTimestamp="2001-01-01T00:00:00Z")
    api = by(write(tmp_path / "config", kubeconfig(cluster, hanging.section)))
    services = Following(api, Kind.SERVICE)
    services.until_state(SourceState.FOLLOWING)
    services.until(lambda each: fake.fake.watching("services") == 1)
    monkeypatch.setattr("kproxy.watch.api.plugin.LIMIT_S", 0.5)
    hanging.hang()
    fake.fake.revoke(fake.fake.token)
    fake.fake.cut("services")

    services.until_state(SourceState.FAILING)
    services.until(lambda each: "exec plugin /bin/sh: has not finished" in each.status.detail)
    services.close()


def test_others_go_on_with_what_is_known_while_a_plugin_hangs(
    fake, cluster, tmp_path, program, hanging, at_once, ask
):
    program.answers(token=fake.fake.token, expirationTimestamp="2001-01-01T00:00:00Z")
    api = by(write(tmp_path / "config", kubeconfig(cluster, hanging.section)))
    hanging.hang()
    waiting = threading.Thread(target=lambda: api.server)
    waiting.start()
    hanging.wait_until_it_hangs()

    assert ask(api) == 200
    api.session().close()
    waiting.join(LONGEST_S)
    assert not waiting.is_alive()


def test_a_session_that_ends_takes_the_plugin_along(
    fake, cluster, tmp_path, program, hanging, at_once
):
    program.answers(token=fake.fake.token, expirationTimestamp="2001-01-01T00:00:00Z")
    api = by(write(tmp_path / "config", kubeconfig(cluster, hanging.section)))
    services = Following(api, Kind.SERVICE)
    services.until(lambda each: fake.fake.watching("services") == 1)
    hanging.hang()
    fake.fake.cut("services")
    hanging.wait_until_it_hangs()

    services.close()
    wait(hanging.is_gone)


def test_a_plugin_that_is_interrupted_just_when_it_starts_ends(tmp_path, hanging, monkeypatch):
    """It runs before we know it: then the interruption waits until we do."""
    start = subprocess.Popen
    interrupting = []

    def started(*arguments, **options):
        process = start(*arguments, **options)
        hanging.wait_until_it_hangs()
        interrupting.append(threading.Thread(target=plugin.interrupt))
        interrupting[0].start()
        interrupting[0].join(0.1)
        return process

    monkeypatch.setattr(subprocess, "Popen", started)
    section = msgspec.convert(hanging.section["exec"], Exec)
    plugin = Plugin(tmp_path / "config", section)
    hanging.hang()
    with pytest.raises(ApiError, match="exec plugin /bin/sh: ends with status -9"):
        plugin.given({}, now=0.0, refused=False)
    interrupting[0].join()
    wait(hanging.is_gone)
