"""What a kubeconfig may say, and what it is refused for."""

import logging

import pytest
import trustme

from tests.unit.watch.api.kubeconfigs import SECRET, by, encoded, kubeconfig, refusal, write


@pytest.mark.parametrize(
    "bad",
    ["", "{", kubeconfig({"server": "https://x", "proxy-url": "no"}), b"\xff".decode("latin-1")],
)
def test_a_kubeconfig_that_goes_bad_leaves_the_last_good_one(
    fake, cluster, tmp_path, ask, at_once, caplog, bad
):
    caplog.set_level(logging.INFO)
    good = kubeconfig(cluster, {"token": fake.fake.token})
    file = write(tmp_path / "config", good)
    api = by(file)
    write(file, bad)
    for _ in range(3):
        assert ask(api) == 200
    write(file, good)
    assert ask(api) == 200

    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "INFO"]
    assert said[0][1].startswith(f"kubeconfig {file}: ")
    assert said[0][1].endswith("; going on with what was read before")


def test_who_acts_as_somebody_else_says_so(fake, cluster, tmp_path, ask):
    user = {
        "token": fake.fake.token,
        "as": "jane",
        "as-uid": "7",
        "as-groups": ["dev", "ops"],
        "as-user-extra": {"Scope/a b": ["x", "y"]},
    }
    ask(by(write(tmp_path / "config", kubeconfig(cluster, user))))

    (request,) = fake.fake.asked("services")
    sent = {name: text for name, text in request.headers.items() if "impersonate" in name}
    assert sent == {
        "impersonate-user": "jane",
        "impersonate-uid": "7",
        "impersonate-group": "dev, ops",
        "impersonate-extra-scope%2fa%20b": "x, y",
    }


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "is no mapping"),
        ("a: [\n", "line 2: "),
        ("a: 1\na: 2\n", "line 2: key 'a' is there twice"),
        ({}, "missing required field current-context"),
        (kubeconfig({}, contexts=None), "got null - at contexts"),
        (kubeconfig({"server": 7}), "got int - at clusters[0].cluster.server"),
        (kubeconfig({"server": "https://x"}, {"token": 7}), "got int - at users[0].user.token"),
        (kubeconfig({"server": "https://x"}, users=[{"user": {}}]), "missing required field name"),
        (
            kubeconfig({"server": "https://x"}, **{"current-context": "there"}),
            "contexts holds none named 'there'",
        ),
        (kubeconfig({"server": "https://x"}, clusters=[]), "clusters holds none named 'c'"),
        (kubeconfig({"server": "https://x"}, users=[]), "users holds none named 'u'"),
        (kubeconfig({}), "server '' is no address like https://name:port"),
        (kubeconfig({"server": "https://:6443"}), "server 'https://:6443' is no address"),
        (
            kubeconfig({"server": "https://x", "certificate-authority-data": "%%%"}),
            "certificate-authority-data is no base64",
        ),
        (
            kubeconfig({"server": "https://x", "certificate-authority-data": "ä"}),
            "certificate-authority-data is no base64",
        ),
        (
            kubeconfig({"server": "https://x", "proxy-url": "10.0.0.1:3128"}),
            "proxy-url: '10.0.0.1:3128' is no address like http://name:port",
        ),
        (
            kubeconfig({"server": "https://x", "proxy-url": f"socks5://u:{SECRET}@10.0.0.1"}),
            "proxy-url: socks5://...@10.0.0.1 is a SOCKS proxy, which is not supported",
        ),
        (
            kubeconfig({"server": f"https://u:{SECRET}@:6443"}),
            "server 'https://...@:6443' is no address",
        ),
        (
            kubeconfig({"server": "https://x"}, {"auth-provider": {"name": "gcp"}}),
            "auth-provider 'gcp' is not supported: use an exec plugin",
        ),
        (
            kubeconfig({"server": "https://x"}, {"as-groups": ["g"]}),
            "the user has as-uid, as-groups or as-user-extra, but no `as`",
        ),
        (
            kubeconfig({"server": "https://x"}, {"tokenFile": "a\0b"}),
            "tokenFile 'a\\x00b' is no path: ",
        ),
        (
            kubeconfig({"server": "https://x", "certificate-authority": "missing.crt"}),
            "missing.crt cannot be read: No such file or directory",
        ),
        (
            kubeconfig({"server": "https://x"}, {"client-certificate-data": "QQ=="}),
            "needs both client-certificate and client-key, or neither",
        ),
        (
            kubeconfig({"server": "https://x"}, {"tokenFile": "/missing/token"}),
            "/missing/token cannot be read: No such file or directory",
        ),
        (
            kubeconfig({"server": "https://x"}, {"tokenFile": "/dev/null"}),
            "tokenFile /dev/null is empty",
        ),
    ],
)
def test_a_kubeconfig_is_refused_by_file_and_field(tmp_path, document, words):
    file = write(tmp_path / "config", document)

    text = refusal(file)
    assert text.startswith(f"kubeconfig {file}: ")
    assert words in text


def test_a_kubeconfig_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "none") == (
        f"kubeconfig {tmp_path}/none: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        (
            {"certificate-authority-data": encoded(b"garbage")},
            {},
            "no CA certificate in certificate-authority-data of /",
        ),
        (
            {},
            {"client-certificate-data": encoded(b"x"), "client-key-data": encoded(b"y")},
            "no client certificate with a fitting key in client-certificate-data of /",
        ),
        ({}, {"token": f"{SECRET}\nX-Evil: 1"}, "the token holds spaces or characters"),
        ({}, {"as": "a\nb"}, "Impersonate-User cannot be 'a\\nb': no HTTP header can carry that"),
        ({"tls-server-name": ".x"}, {}, "no server can have the name '.x'"),
        ({"tls-server-name": "a\0b"}, {}, "no server can have the name 'a\\x00b'"),
        ({"server": f"https://{'a' * 64}"}, {}, "no server can have the name 'aaa"),
    ],
)
def test_what_no_connection_could_be_made_with_is_refused(tmp_path, cluster, user, words):
    document = kubeconfig({"server": "https://x", **cluster}, user)

    assert words in refusal(write(tmp_path / "config", document))


def test_a_key_with_a_password_is_not_asked_for_on_the_terminal(tmp_path):
    from cryptography.hazmat.primitives import serialization as formats

    pair = trustme.CA().issue_cert("somebody")
    key = formats.load_pem_private_key(pair.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        formats.Encoding.PEM,
        formats.PrivateFormat.PKCS8,
        formats.BestAvailableEncryption(b"password"),
    )
    user = {
        "client-certificate-data": encoded(pair.cert_chain_pems[0].bytes()),
        "client-key-data": encoded(locked),
    }
    text = refusal(write(tmp_path / "config", kubeconfig({"server": "https://x"}, user)))
    assert "no client certificate with a fitting key in" in text
