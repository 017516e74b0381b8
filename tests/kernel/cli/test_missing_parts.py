"""`kproxy run` and `kproxy check` on a host that lacks parts of what the rules are made of."""

import subprocess

import pytest

from kproxy.core.addresses import Family
from tests.support import kube_proxy
from tests.support.ipvs.without import ON_A_KERNEL_WITHOUT_IPVS

pytestmark = pytest.mark.kernel

NODE = ("--node-name", "node-1")
DEADLINE_S = 60
WITHOUT_RAW_SOCKETS = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")


def test_without_the_capability_for_ipsets_all_is_served_but_affinity(
    spawn, node, manifests, rules, variant
):
    """One of the variants needs raw sockets for everything; then that is said."""
    text = (manifests / "all.yaml").read_text()
    (manifests / "all.yaml").write_text(
        text.replace("type: NodePort", "type: NodePort\n  sessionAffinity: ClientIP")
    )
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    process = spawn(*once, prefix=(*node, *WITHOUT_RAW_SOCKETS))
    stderr = process.communicate(timeout=DEADLINE_S)[1].decode()
    if variant == "legacy":
        assert process.returncode == 1
        assert "needs CAP_NET_RAW" in stderr
        return
    assert process.returncode == 3, stderr
    assert "no Service has sessionAffinity, as rules that name ipsets need CAP_NET_RAW" in stderr
    assert any("10.1.0.9:8080" in line for line in rules())


def test_a_legacy_table_that_may_not_be_read_keeps_nothing_in_the_other_variant(
    spawn, node, manifests
):
    """That one was asked for once, by whomever, is enough for it to be there."""
    subprocess.run([*node, "iptables-legacy", "-S"], check=True, capture_output=True)
    left = kube_proxy.iptables_mode(Family.IPV4).encode()
    subprocess.run([*node, "iptables-nft-restore", "--noflush"], check=True, input=left)
    assert "KUBE-SERVICES" in ruleset(node)

    once = ("run", "--manifests", manifests, *NODE, "--once", "--take-over")
    for words in ((*once, "--iptables-variant", "nft"), once, ("cleanup",)):
        process = spawn(*words, prefix=(*node, *WITHOUT_RAW_SOCKETS))
        stderr = process.communicate(timeout=DEADLINE_S)[1].decode()
        assert "reading the legacy tables filter: needs CAP_NET_RAW" in stderr
        assert "KUBE-SERVICES" not in ruleset(node)
        assert ("KPROXY-SERVICES" in ruleset(node)) == (words != ("cleanup",))


def ruleset(node):
    """Return all that is in nf_tables."""
    command = [*node, "nft", "list", "ruleset"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_without_an_indispensable_part_the_start_fails_with_a_remedy(
    kproxy, manifests, hide, variant, rules
):
    hide("libxt_statistic.so")
    once = ("run", "--manifests", manifests, *NODE, "--once", "--iptables-variant", variant)
    code, _, stderr = kproxy(*once)
    assert code == 1
    assert "modprobe xt_statistic" in stderr
    assert not any("KPROXY" in line for line in rules())
    code, stdout, _ = kproxy("check")
    assert code == 1
    assert "modprobe xt_statistic" in stdout


def test_check_says_what_goes_without_a_part(kproxy, node, hide):
    subprocess.run([*node, "ip", "link", "set", "lo", "up"], check=True)
    hide("libxt_set.so", "libxt_bpf.so")
    code, stdout, _ = kproxy("check")
    assert code == 0, "it works all the same"
    assert "no Service has sessionAffinity" in stdout
    assert "each endpoint that may choose itself takes a rule of its own" in stdout


@ON_A_KERNEL_WITHOUT_IPVS
def test_on_a_kernel_without_ipvs_its_mode_is_refused_with_a_remedy(kproxy, manifests):
    remedy = "load the kernel module: modprobe ip_vs"
    code, stdout, stderr = kproxy("check", "--proxy-mode", "ipvs")
    assert (code, stderr) == (1, "")
    _, *said = stdout.split("ipvs, ")
    missed = f"MISS ip_vs: the kernel has no ip_vs\n       {remedy}\n"
    assert said == [f"{family.value}:\n  {missed}" for family in Family]
    code, _, stderr = kproxy("run", "--manifests", manifests, *NODE, "--proxy-mode", "ipvs")
    assert code == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("kproxy: no IP family can be served: ")
    assert last.endswith(f"the kernel has no ip_vs; {remedy}")
