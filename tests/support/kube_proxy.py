# ruff: noqa: E501 - rules stand as the tools print them
"""Rule sets as kube-proxy 1.36 and 1.37 write them (reference 5.1 to 5.3), and kubelet's beside."""

from kproxy.core.addresses import Family

# Kubelet's own. It writes KUBE-FIREWALL too, kube-proxy only adds its guard there.
KUBELET_FILTER = """
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -p tcp -m comment --comment "block incoming localnet connections" -j DROP
"""
KUBELET = {
    "filter": KUBELET_FILTER,
    "nat": """
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
""",
    "mangle": """
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
""",
}

FOREIGN = {
    "filter": """
:DOCKER-USER - [0:0]
-A FORWARD -p tcp -m comment --comment "kubernetes is not mentioned -j KUBE-FORWARD" -j DOCKER-USER
-A DOCKER-USER -p udp -j RETURN
""",
    "nat": """
:CNI-HOSTPORT - [0:0]
-A PREROUTING -p tcp -m comment --comment "kubernetes host ports" -j CNI-HOSTPORT
-A CNI-HOSTPORT -p tcp -m tcp --dport 8080 -j RETURN
""",
    "mangle": "-A PREROUTING -p tcp -j MARK --set-xmark 0x1/0x1\n",
}


def _rules(family: Family) -> dict[str, str]:
    v4 = family is Family.IPV4
    vip, pod = ("172.30.0.", "10.0.0.") if v4 else ("fd00:30::", "fd00:10::")
    host = "/32" if v4 else "/128"
    pods = "10.0.0.0/16" if v4 else "fd00:10::/64"

    def target(number: int) -> str:
        return f"{pod}{number}:8080" if v4 else f"[{pod}{number}]:8080"

    not_loopback = "" if v4 else "! -d ::1/128 "
    reject = "icmp-port-unreachable" if v4 else "icmp6-port-unreachable"
    new = "-m conntrack --ctstate NEW"
    return {
        "mangle": "\n:KUBE-PROXY-CANARY - [0:0]\n",
        "filter": f"""
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT {new} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A INPUT {new} -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A FORWARD {new} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD {new} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A FORWARD {new} -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT {new} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A OUTPUT {new} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "shop/idle:http has no endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30090 -j REJECT --reject-with {reject}
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/edge:http health check node port" -m tcp --dport 31999 -j ACCEPT
-A KUBE-PROXY-FIREWALL -d {vip}77{host} -p tcp -m comment --comment "shop/edge:http traffic not accepted by KUBE-FW-AAAAAAAAAAAAAAA2" -m tcp --dport 80 -j DROP
-A KUBE-SERVICES -d {vip}9{host} -p tcp -m comment --comment "shop/idle:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with {reject}
""",
        "nat": f"""
:KUBE-EXT-AAAAAAAAAAAAAAA2 - [0:0]
:KUBE-FW-AAAAAAAAAAAAAAA2 - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAA3 - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAA4 - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAA5 - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAA2 - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAA7 - [0:0]
:KUBE-SVL-AAAAAAAAAAAAAAA2 - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-EXT-AAAAAAAAAAAAAAA2 -s {pods} -m comment --comment "pod traffic for shop/edge:http external destinations" -j KUBE-SVC-AAAAAAAAAAAAAAA2
-A KUBE-EXT-AAAAAAAAAAAAAAA2 -m comment --comment "masquerade LOCAL traffic for shop/edge:http external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A KUBE-EXT-AAAAAAAAAAAAAAA2 -m comment --comment "route LOCAL traffic for shop/edge:http external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-AAAAAAAAAAAAAAA2
-A KUBE-EXT-AAAAAAAAAAAAAAA2 -j KUBE-SVL-AAAAAAAAAAAAAAA2
-A KUBE-FW-AAAAAAAAAAAAAAA2 -s {vip}200{host} -m comment --comment "shop/edge:http loadbalancer IP" -j KUBE-EXT-AAAAAAAAAAAAAAA2
-A KUBE-FW-AAAAAAAAAAAAAAA2 -m comment --comment "other traffic to shop/edge:http will be dropped by KUBE-PROXY-FIREWALL"
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/edge:http" -m tcp --dport 30080 -j KUBE-EXT-AAAAAAAAAAAAAAA2
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-AAAAAAAAAAAAAAA3 -s {pod}3{host} -m comment --comment "shop/edge:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAA3 -p tcp -m comment --comment "shop/edge:http" -m tcp -j DNAT --to-destination {target(3)}
-A KUBE-SEP-AAAAAAAAAAAAAAA4 -s {pod}4{host} -m comment --comment "shop/edge:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAA4 -p tcp -m comment --comment "shop/edge:http" -m tcp -j DNAT --to-destination {target(4)}
-A KUBE-SEP-AAAAAAAAAAAAAAA5 -s {pod}5{host} -m comment --comment "shop/db:sql" -j KUBE-MARK-MASQ
-A KUBE-SEP-AAAAAAAAAAAAAAA5 -p tcp -m comment --comment "shop/db:sql" -m tcp -j DNAT --to-destination {target(5)}
-A KUBE-SERVICES -d {vip}7{host} -p tcp -m comment --comment "shop/edge:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAA2
-A KUBE-SERVICES -d {vip}77{host} -p tcp -m comment --comment "shop/edge:http loadbalancer IP" -m tcp --dport 80 -j KUBE-FW-AAAAAAAAAAAAAAA2
-A KUBE-SERVICES -d {vip}8{host} -p tcp -m comment --comment "shop/db:sql cluster IP" -m tcp --dport 5432 -j KUBE-SVC-AAAAAAAAAAAAAAA7
-A KUBE-SERVICES {not_loopback}-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-AAAAAAAAAAAAAAA2 ! -s {pods} -d {vip}7{host} -p tcp -m comment --comment "shop/edge:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-AAAAAAAAAAAAAAA2 -m comment --comment "shop/edge:http -> {target(3)}" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-AAAAAAAAAAAAAAA3
-A KUBE-SVC-AAAAAAAAAAAAAAA2 -m comment --comment "shop/edge:http -> {target(4)}" -j KUBE-SEP-AAAAAAAAAAAAAAA4
-A KUBE-SVC-AAAAAAAAAAAAAAA7 ! -s {pods} -d {vip}8{host} -p tcp -m comment --comment "shop/db:sql cluster IP" -m tcp --dport 5432 -j KUBE-MARK-MASQ
-A KUBE-SVC-AAAAAAAAAAAAAAA7 -m comment --comment "shop/db:sql -> {target(5)}" -j KUBE-SEP-AAAAAAAAAAAAAAA5
-A KUBE-SVL-AAAAAAAAAAAAAAA2 -m comment --comment "shop/edge:http -> {target(3)}" -j KUBE-SEP-AAAAAAAAAAAAAAA3
""",
    }


def iptables_mode(family: Family) -> str:
    """Return what kube-proxy's iptables mode adds for three Services, as restore input."""
    return restore_input(_rules(family))


def ipvs_mode(family: Family) -> tuple[str, str]:
    """Return what kube-proxy's ipvs mode adds: input for `ipset restore`, and for iptables."""
    prefix, inet = ("KUBE-", "inet") if family is Family.IPV4 else ("KUBE-6-", "inet6")
    source_cidr = f"{prefix}LOAD-BALANCER-SOURCE-CIDR"[:31]
    sets = f"""create {prefix}CLUSTER-IP hash:ip,port family {inet} hashsize 1024 maxelem 65536
create {prefix}LOOP-BACK hash:ip,port,ip family {inet}
create {source_cidr} hash:ip,port,net family {inet}
create {prefix}NODE-PORT-TCP bitmap:port range 0-65535
create {prefix}IPVS-IPS hash:ip family {inet}
"""
    new = "-m conntrack --ctstate NEW"
    rules = {
        "nat": f"""
:KUBE-LOAD-BALANCER - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-NODE-PORT -p tcp -m comment --comment "Kubernetes nodeport TCP port for masquerade purpose" -m set --match-set {prefix}NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose" -m set --match-set {prefix}LOOP-BACK dst,dst,src -j MASQUERADE
-A KUBE-SERVICES -m comment --comment "Kubernetes service cluster ip + port for masquerade purpose" -m set --match-set {prefix}CLUSTER-IP src,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-SERVICES -m set --match-set {prefix}CLUSTER-IP dst,dst -j ACCEPT
""",
        "filter": f"""
:KUBE-FORWARD - [0:0]
:KUBE-IPVS-FILTER - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
-A INPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER
-A INPUT -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT
-A FORWARD -m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-OUT-FILTER
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-IPVS-FILTER -m set --match-set {prefix}CLUSTER-IP dst,dst -j RETURN
-A KUBE-IPVS-FILTER {new} -m set --match-set {prefix}IPVS-IPS dst -j REJECT
-A KUBE-PROXY-FIREWALL -m set --match-set {source_cidr} dst,dst,src -j KUBE-SOURCE-RANGES-FIREWALL
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
""",
    }
    return sets, restore_input(rules)


def restore_input(tables: dict[str, str]) -> str:
    """Return `iptables-restore --noflush` input."""
    return "".join(f"*{name}\n{rules.strip()}\nCOMMIT\n" for name, rules in tables.items())
