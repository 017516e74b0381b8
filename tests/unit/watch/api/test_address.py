"""Addresses of servers and of proxies."""

import pytest

from kproxy.text.urls import proxy_for, split_user, without_user

PROXY = "http://proxy:3128"
SERVER = "https://10.0.0.1:6443"


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        (SERVER, {}, ""),
        (SERVER, {"HTTPS_PROXY": PROXY}, PROXY),
        (SERVER, {"https_proxy": PROXY}, PROXY),
        (SERVER, {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        (SERVER, {"HTTP_PROXY": PROXY}, ""),
        (SERVER, {"ALL_PROXY": PROXY, "all_proxy": PROXY}, ""),
        ("http://10.0.0.1", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://127.0.0.9:6443", {"HTTPS_PROXY": PROXY}, ""),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, ""),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}, ""),
    ],
)
def test_which_proxy_the_environment_means(server, environment, proxy):
    assert proxy_for(server, environment) == proxy


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        (SERVER, "*", True),
        (SERVER, "10.0.0.0/8", True),
        (SERVER, "10.0.0.1", True),
        (SERVER, "10.0.0.1:6443", True),
        (SERVER, "10.0.0.1:443", False),
        (SERVER, "10.0.0.2, , 192.0.2.0/24", False),
        (SERVER, "1", False),
        ("https://[2001:db8::1]", "[2001:db8::1]:443", True),
        ("https://[2001:db8::1]", "2001:db8::/32", True),
        ("https://api.example", "example", True),
        ("https://API.example", ".Example", True),
        ("https://api.example", "*.example", True),
        ("https://api.example", "api.example:443", True),
        ("https://api.example", "pi.example", False),
        ("https://example", ".example", False),
        ("https://example", "*.example", False),
        ("https://example", ":443", False),
    ],
)
def test_who_is_reached_without_a_proxy(server, no_proxy, direct):
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}

    assert proxy_for(server, environment) == ("" if direct else PROXY)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://u:secret@proxy", "socks5://...@proxy is a SOCKS proxy, which is not supported"),
        ("http://[::1", "'http://[::1' is no address like http://name:port"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_variable(proxy, words):
    with pytest.raises(ValueError, match="HTTPS_PROXY in the environment: ") as caught:
        proxy_for(SERVER, {"HTTPS_PROXY": proxy})
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://u:secret@host:1", "https://...@host:1"),
        ("u:sec/ret@host", "...@host"),
        ("https://u:sec@ret@host", "https://...@host"),
        (SERVER, SERVER),
    ],
)
def test_an_address_is_shown_without_its_password(address, shown):
    assert without_user(address) == shown


def test_user_and_password_of_an_address_become_a_header():
    assert split_user("https://u:p%40@[::1]:6443/x") == ("https://[::1]:6443/x", "Basic dTpwQA==")
    assert split_user(SERVER) == (SERVER, "")
