"""Exec plugins, which give tokens and certificates."""

import json

import pytest
import trustme

from tests.fake_api.server import PROXY_USER
from tests.watch.api.kubeconfigs import SECRET, by, kubeconfig, refusal, tokens, write


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
        ({"token": 7}, {}, "Expected `str | null`, got `int` - at `$.token`"),
        ({"token": SECRET}, {"command": "/missing/plugin"}, "No such file or directory"),
        ({"token": SECRET}, {"command": "/bin/false"}, "process returned 1"),
        ({"token": SECRET}, {"command": "/bin/true"}, "failed to decode process output"),
        ({"token": SECRET}, {"command": "/bin/echo", "args": ["5"]}, "no ExecCredential"),
        (
            {"token": SECRET},
            {"apiVersion": "client.authentication.k8s.io/v1beta1"},
            "does not match",
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
