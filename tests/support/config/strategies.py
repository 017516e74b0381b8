"""Configurations and command lines that mean something, mostly, and are never dull.

What only kproxy refuses, or only kproxy takes, is left out: Windows, interface names that Linux
does not allow, a blank host name, and null for a duration.
"""

from __future__ import annotations

from hypothesis import strategies as st

from kproxy.config.known_gates import known_gates

BOOLEANS = st.booleans()
NUMBERS = st.sampled_from([0, 1, 5, 14, 31, 32, 1000, 2**31 - 1, -1, -1000, 2**31])
DURATIONS = st.sampled_from(
    ["0s", "1s", "30s", "1h", "1h30m", "1.5s", "300ms", "1m0.25s", "100h", "-1s", "1", "x"]
) | st.integers(0, 10**15).map(lambda ns: f"{ns}ns")
TEXTS = st.text("abXYyYnN019-_.:/#, '\"{}[]&*!|>%@`~?\\=+<é", max_size=12) | st.sampled_from(
    [
        *("yes", "null", "~", "1.5", "1e3", "0x10", "017", "1_000", "2024-01-01", "1:30", "- a"),
        *("a: b", "a #b", "...", "---", "<<", ".inf", "-", "?", "1.2.3.4", "10.0.0.0/8", "a:"),
    ]
)
WORDS = st.from_regex(r"[a-zA-Z0-9./-]{0,10}", fullmatch=True)
ADDRESSES = st.sampled_from(
    ["0.0.0.0", "::", "192.0.2.1", "010.0.0.1", "fd00::1", "FD00::1", "::ffff:1.2.3.4", "x", ""]
)
ADDRESS_PORTS = st.sampled_from(
    ["0.0.0.0:10256", "[::]:80", "[::1]:080", "192.0.2.1", "fd00::1", "x:80", ":80", "::1:80", ""]
)
NETWORKS = st.sampled_from(["10.0.0.0/8", "010.1.0.0/16", "fd00::/8", "10.0.0.0", "x", "::/0"])
NODE_PORTS = NETWORKS | st.sampled_from(["primary", "localhost", "all"])
MODES = st.sampled_from(["", "iptables", "ipvs", "nftables", "nftables", "ipvs", "userspace"])
LOCAL_MODES = st.sampled_from(["", "ClusterCIDR", "NodeCIDR", "NodeCIDR", "Other"])
GATES = st.dictionaries(
    st.sampled_from([*sorted(known_gates()), "Nobody"]), st.booleans(), max_size=2
)
QUANTITIES = st.sampled_from(["0", 0, "0Ki", "64Ki", "x"])
VMODULE = st.fixed_dictionaries(
    {"filePattern": st.sampled_from(["a", "b*", "a=b", ""]), "verbosity": st.integers(0, 9)}
)


def _some(**fields):
    """Return any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def configurations():
    """Return the fields of a configuration file, without its header."""
    periods = {"syncPeriod": DURATIONS, "minSyncPeriod": DURATIONS}
    marking = {"masqueradeBit": NUMBERS | st.none(), "masqueradeAll": BOOLEANS}
    output = _some(infoBufferSize=QUANTITIES, splitStream=BOOLEANS)
    timeouts = dict.fromkeys(("tcpTimeout", "tcpFinTimeout", "udpTimeout"), DURATIONS)
    return _some(
        mode=MODES,
        featureGates=GATES,
        clientConnection=_some(
            kubeconfig=TEXTS,
            contentType=TEXTS,
            acceptContentTypes=TEXTS,
            burst=NUMBERS,
            qps=st.floats(-1e30, 1e30) | NUMBERS,
        ),
        logging=_some(
            format=st.sampled_from(["", "text", "json", "xml"]),
            flushFrequency=DURATIONS | NUMBERS,
            verbosity=st.integers(-1, 2**32),
            vmodule=st.lists(VMODULE, max_size=2),
            options=_some(text=output, json=output),
        ),
        hostnameOverride=TEXTS.filter(lambda text: not text or text.strip()),
        bindAddress=ADDRESSES,
        healthzBindAddress=ADDRESS_PORTS,
        metricsBindAddress=ADDRESS_PORTS,
        bindAddressHardFail=BOOLEANS,
        enableProfiling=BOOLEANS,
        showHiddenMetricsForVersion=st.sampled_from(["", "1.36", "1.37"]),
        iptables=_some(**periods, **marking, localhostNodePorts=BOOLEANS | st.none()),
        ipvs=_some(
            **periods,
            **timeouts,
            scheduler=TEXTS,
            excludeCIDRs=st.none() | st.lists(NETWORKS, max_size=2),
            strictARP=BOOLEANS,
        ),
        nftables=_some(**periods, **marking),
        detectLocalMode=LOCAL_MODES,
        detectLocal=_some(bridgeInterface=TEXTS, interfaceNamePrefix=TEXTS),
        clusterCIDR=st.lists(NETWORKS, max_size=2).map(",".join),
        nodePortAddresses=st.none() | st.lists(NODE_PORTS, max_size=3),
        oomScoreAdj=NUMBERS | st.none(),
        conntrack=_some(
            maxPerCore=NUMBERS | st.none(),
            min=NUMBERS | st.none(),
            tcpEstablishedTimeout=DURATIONS | st.none(),
            tcpCloseWaitTimeout=DURATIONS | st.none(),
            tcpBeLiberal=BOOLEANS,
            udpTimeout=DURATIONS,
            udpStreamTimeout=DURATIONS,
        ),
        configSyncPeriod=DURATIONS,
        portRange=TEXTS,
    )


def command_lines():
    """Return the words of a command line."""
    numbers = st.sampled_from(["0", "7", "+7", "-1", "010", "0x1F", "1_0", "1.5", "", "2147483648"])
    gates = GATES.map(lambda gates: ",".join(f"{k}={v}" for k, v in gates.items()))
    values = {
        numbers: "iptables-masquerade-bit conntrack-min conntrack-max-per-core oom-score-adj "
        "kube-api-burst kube-api-qps v",
        DURATIONS: "iptables-sync-period iptables-min-sync-period ipvs-sync-period "
        "ipvs-min-sync-period ipvs-udp-timeout conntrack-udp-timeout config-sync-period "
        "conntrack-tcp-timeout-established log-flush-frequency",
        st.sampled_from(["true", "F", "0", "yes", "TRUE", ""]): "masquerade-all ipvs-strict-arp "
        "profiling iptables-localhost-nodeports conntrack-tcp-be-liberal log-json-split-stream",
        st.lists(NODE_PORTS, max_size=2).map(",".join): "nodeport-addresses",
        st.lists(NETWORKS, max_size=2).map(",".join): "ipvs-exclude-cidrs cluster-cidr",
        st.sampled_from(["1.2.3.4:5", "[::]:1", "x:1"]): "healthz-bind-address "
        "metrics-bind-address",
        ADDRESSES.filter(bool): "bind-address",
        MODES: "proxy-mode",
        LOCAL_MODES: "detect-local-mode",
        gates: "feature-gates",
        WORDS: "kubeconfig kube-api-content-type ipvs-scheduler hostname-override master",
        st.sampled_from(["a=1,b=2", "a", "a=x", ""]): "vmodule",
    }
    one = [
        st.tuples(st.sampled_from(names.split()), strategy) for strategy, names in values.items()
    ]
    return st.lists(st.one_of(one).map(lambda pair: f"--{pair[0]}={pair[1]}"), max_size=5)
