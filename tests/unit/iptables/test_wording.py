"""A chain's first rule carries its digest, before its target."""

import pytest

from backends.kernel.xtables.wording import fingerprint, signed


@pytest.mark.parametrize(
    ("rule", "match", "target"),
    [
        ("-j RETURN", "", "-j RETURN"),
        ("-s 10.0.0.0/8 -g KPROXY-A", "-s 10.0.0.0/8 ", "-g KPROXY-A"),
        ("-m set --match-set kproxy-x-j src -g A", "-m set --match-set kproxy-x-j src ", "-g A"),
        ("-j SET --add-set k-x-g src --exist", "", "-j SET --add-set k-x-g src --exist"),
    ],
)
def test_the_digest_stands_before_the_target_whatever_names_end_in(rule, match, target):
    rules = (rule, "-j ACCEPT")

    assert signed(rules) == (
        f"{match}-m comment --comment kp:{fingerprint(rules)} {target}",
        rules[1],
    )
