"""Where a jump goes among the rules of others, as those are known to write them."""

import pytest

from backends.kernel.xtables import steps
from backends.kernel.xtables.placement import leading
from backends.kernel.xtables.steps import Action

KUBE_ROUTER = """
:KUBE-ROUTER-FORWARD :KUBE-POD-FW-A :KUBE-NWPLCY-A
-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
# here
-A FORWARD -i kube-bridge -m comment --comment "allow outbound traffic from pods" -j ACCEPT
-A KUBE-ROUTER-FORWARD -d 10.1.0.11/32 -j KUBE-POD-FW-A
-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT
-A KUBE-POD-FW-A -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-A -d 10.1.0.11/32 -m addrtype --src-type LOCAL -j ACCEPT
-A KUBE-POD-FW-A -j KUBE-NWPLCY-A
-A KUBE-POD-FW-A -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-A -j MARK --set-xmark 0x20000/0x20000
-A KUBE-NWPLCY-A -j MARK --set-xmark 0x10000/0x10000
"""
KUBE_ROUTER_WITHOUT_POLICIES = """
:KUBE-ROUTER-FORWARD
-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
# here
-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT
"""
CALICO = """
:cali-FORWARD :cali-from-wl-dispatch :cali-to-wl-dispatch
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
# here
-A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -m comment --comment "cali:mp77cMpurHhyjLrM" -j MARK --set-xmark 0x10000/0x10000
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-to-wl-dispatch -m comment --comment "Unknown interface" -j DROP
"""
CALICO_INPUT = """
:cali-INPUT :cali-wl-to-host :KUBE-FIREWALL
-A FORWARD -j cali-INPUT
-A FORWARD -j KUBE-FIREWALL
# here
-A FORWARD -i lo -j ACCEPT
-A cali-INPUT -p ipencap -j DROP
-A cali-INPUT -i cali+ -g cali-wl-to-host
-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-wl-to-host -j ACCEPT
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate DNAT -j DROP
"""
CANAL = """
:cali-FORWARD :FLANNEL-FWD
-A FORWARD -j cali-FORWARD
# here
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A cali-FORWARD -o cali+ -j DROP
-A FLANNEL-FWD -s 10.1.0.0/16 -j ACCEPT
"""
AN_ENGINE_BEHIND_WHAT_OPENS = """
:FLANNEL-FWD :POLICIES
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -j POLICIES
# here
-A FLANNEL-FWD -s 10.1.0.0/16 -j ACCEPT
-A POLICIES -d 10.1.0.11/32 -j DROP
"""
WEAVE = """
:WEAVE-NPC :WEAVE-NPC-EGRESS :WEAVE-NPC-DEFAULT
-A FORWARD -i weave -m comment --comment "NOTE: before '-j KUBE-FORWARD'" -j WEAVE-NPC-EGRESS
-A FORWARD -o weave -m comment --comment "NOTE: before '-j KUBE-FORWARD'" -j WEAVE-NPC
-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o weave -j DROP
# here
-A FORWARD -i weave ! -o weave -j ACCEPT
-A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-DEFAULT
-A WEAVE-NPC-DEFAULT -m set --match-set weave-x dst -j ACCEPT
-A WEAVE-NPC-EGRESS -m state --state NEW -m mark ! --mark 0x40000/0x40000 -j DROP
"""
AZURE = """
:AZURE-NPM
-A FORWARD -m conntrack --ctstate NEW -j AZURE-NPM
# here
-A AZURE-NPM -m mark --mark 0x400/0x400 -j DROP
"""
# These accept all that belongs to pods, and enforce policies elsewhere or not at all.
FLANNEL = """
:FLANNEL-FWD
# here
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.1.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.1.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
"""
CILIUM = """
:CILIUM_FORWARD
# here
-A FORWARD -m comment --comment "cilium-feeder: CILIUM_FORWARD" -j CILIUM_FORWARD
-A CILIUM_FORWARD -o cilium_host -j ACCEPT
-A CILIUM_FORWARD -i lxc+ -j ACCEPT
"""
ANTREA = """
:ANTREA-FORWARD
# here
-A FORWARD -m comment --comment "Antrea: jump to Antrea forwarding rules" -j ANTREA-FORWARD
-A ANTREA-FORWARD -i antrea-gw0 -j ACCEPT
-A ANTREA-FORWARD -o antrea-gw0 -j ACCEPT
"""
DOCKER = """
:DOCKER-USER :DOCKER-ISOLATION-STAGE-1 :DOCKER-ISOLATION-STAGE-2 :DOCKER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
# here
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
"""
UFW = """
:ufw-before-logging-forward :ufw-before-forward :ufw-user-forward :ufw-reject-forward
-A FORWARD -j ufw-before-logging-forward
# here
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-logging-forward -m limit --limit 3/min -j LOG --log-prefix "[UFW AUDIT] "
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
"""
UFW_THAT_REFUSES_ALL = """
:ufw-before-forward :ufw-user-forward :ufw-reject-forward
-A FORWARD -j ufw-before-forward
# here
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
-A ufw-user-forward -s 203.0.113.0/24 -j DROP
-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable
"""
FIREWALLD = """
:FORWARD_direct
# here
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -i lo -j ACCEPT
-A FORWARD -j FORWARD_direct
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
-A FORWARD_direct -d 10.1.0.11/32 -j DROP
"""
AN_ENGINE_BEHIND_WHAT_DECIDES_ABOUT_OPEN_CONNECTIONS = """
:POLICIES
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m comment --comment open -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i eth1 -m state --state ESTABLISHED -j RETURN
-A FORWARD -j POLICIES
# here
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
-A POLICIES -d 10.1.0.11/32 -j DROP
"""
AN_ENGINE_BEHIND_WHAT_ACCEPTS_NEW_CONNECTIONS = """
:POLICIES
# here
-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
-A FORWARD -j POLICIES
-A POLICIES -d 10.1.0.11/32 -j DROP
"""
OPEN_CONNECTIONS_AND_NO_ENGINE = """
# here
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
"""
REFUSES_ALL = """
# here
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
"""
REFUSES_PODS_FROM_OUTSIDE = """
# here
-A FORWARD -d 10.1.0.0/16 -i eth0 -j DROP
"""
NEVER_COMES_BACK = """
:ALL :REST
# here
-A FORWARD -j ALL
-A ALL -p tcp -j LOG
-A ALL -j REST
-A REST -d 10.1.0.11/32 -j DROP
-A REST -j ACCEPT
"""
COMES_BACK_AT_TIMES = """
:ALL
-A FORWARD -j ALL
# here
-A ALL -s 10.1.0.0/16 -j RETURN
-A ALL -j DROP
"""
A_GOTO_DOES_NOT_COME_BACK = """
:POLICIES
# here
-A FORWARD -g POLICIES
-A POLICIES -d 10.1.0.11/32 -j DROP
"""
EMPTY_CHAINS = """
:ONE :TWO
-A FORWARD -j ONE
-A FORWARD -p tcp -j TWO
# here
"""
KUBE_PROXYS_AND_OURS_COUNT_FOR_NOTHING = """
:KUBE-ROUTER-FORWARD :KUBE-FORWARD :KPROXY-FORWARD
-A FORWARD -j KPROXY-FORWARD
-A FORWARD -j KUBE-FORWARD
-A FORWARD -j KUBE-ROUTER-FORWARD
# here
-A KUBE-ROUTER-FORWARD -d 10.1.0.11/32 -j DROP
-A KUBE-FORWARD -j ACCEPT
"""
CHAINS_THAT_LEAD_TO_EACH_OTHER = """
:ONE :TWO :THREE
-A FORWARD -j ONE
# here
-A ONE -p tcp -j TWO
-A ONE -p udp -j THREE
-A TWO -p tcp -j THREE
-A THREE -d 10.1.0.11/32 -j DROP
"""
A_PROGRAM_DECIDES = """
:NFQ
-A FORWARD -j NFQ
# here
-A NFQ -d 10.1.0.11/32 -j NFQUEUE --queue-num 100
"""
# In nat nothing closes. Who comes first there translates, and so far that were Services.
HOST_PORTS = """
:CNI-HOSTPORT-DNAT
# here
-A FORWARD -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.11:80
"""
CALICO_NAT = """
:cali-PREROUTING :cali-fip-dnat
-A FORWARD -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
# here
-A cali-PREROUTING -j cali-fip-dnat
"""
MASQUERADE = """
:FLANNEL-POSTRTG
# here
-A FORWARD -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.1.0.0/16 -d 10.1.0.0/16 -j RETURN
-A FLANNEL-POSTRTG -s 10.1.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
"""

LAYOUTS = {
    name.lower().replace("_", " "): text
    for name, text in globals().items()
    if isinstance(text, str) and "# here\n" in text
}


def ours(chain: str) -> bool:
    return chain in ("KPROXY-FORWARD", "KUBE-FORWARD")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_jump_goes_behind_what_closes_and_before_what_ends_the_chain(layout):
    rules: dict[str, list[steps.RuleStep]] = {"FORWARD": []}
    for line in layout.strip().splitlines():
        if line.startswith(":"):
            rules |= {name.removeprefix(":"): [] for name in line.split()}
        elif line.startswith("-A"):
            chain, _, spec = line.removeprefix("-A ").partition(" ")
            step = steps.parse(spec).step
            known = not step.chain or step.chain in rules
            rules[chain].append(step if known else step._replace(action=Action.PASS, chain=""))
    before = layout.partition("# here")[0].count("-A FORWARD")
    assert leading(rules.pop("FORWARD"), lambda chain: rules[chain], ours) == before
    assert len(LAYOUTS) > 25


def test_a_map_that_decides_may_close_and_ends_the_leading_jumps_when_it_stands_alone():
    chains = {"X": [steps.RuleStep(Action.ANY, condition=b"?")]}
    jump, alone = steps.RuleStep(Action.JUMP, "X"), steps.RuleStep(Action.ANY, condition=b"?")
    assert leading([jump, alone, jump], chains.__getitem__, ours) == 1
