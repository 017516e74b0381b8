"""Configuration files, and what they mean."""

HEADER = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}

# Reference 2.1, durations in seconds.
DEFAULTS = {
    "featureGates": {},
    "clientConnection": {
        "kubeconfig": "",
        "acceptContentTypes": "",
        "contentType": "application/vnd.kubernetes.protobuf",
        "qps": 5.0,
        "burst": 10,
    },
    "logging": {
        "format": "text",
        "flushFrequency": {"span": 5.0, "as_number": False},
        "verbosity": 0,
        "vmodule": [],
        "options": {
            "text": {"splitStream": False, "infoBufferSize": "0"},
            "json": {"splitStream": False, "infoBufferSize": "0"},
        },
    },
    "hostnameOverride": "",
    "bindAddress": "0.0.0.0",
    "healthzBindAddress": "0.0.0.0:10256",
    "metricsBindAddress": "127.0.0.1:10249",
    "bindAddressHardFail": False,
    "enableProfiling": False,
    "showHiddenMetricsForVersion": "",
    "mode": "iptables",
    "iptables": {
        "masqueradeBit": 14,
        "masqueradeAll": False,
        "localhostNodePorts": True,
        "syncPeriod": 30.0,
        "minSyncPeriod": 1.0,
    },
    "ipvs": {
        "syncPeriod": 30.0,
        "minSyncPeriod": 0.0,
        "scheduler": "",
        "excludeCIDRs": None,
        "strictARP": False,
        "tcpTimeout": 0.0,
        "tcpFinTimeout": 0.0,
        "udpTimeout": 0.0,
    },
    "nftables": {
        "masqueradeBit": 14,
        "masqueradeAll": False,
        "syncPeriod": 30.0,
        "minSyncPeriod": 1.0,
    },
    "winkernel": {
        "networkName": "",
        "sourceVip": "",
        "enableDSR": False,
        "rootHnsEndpointName": "",
        "forwardHealthCheckVip": False,
    },
    "detectLocalMode": "ClusterCIDR",
    "detectLocal": {"bridgeInterface": "", "interfaceNamePrefix": ""},
    "clusterCIDR": "",
    "nodePortAddresses": None,
    "oomScoreAdj": -999,
    "conntrack": {
        "maxPerCore": 32768,
        "min": 131072,
        "tcpEstablishedTimeout": 86400.0,
        "tcpCloseWaitTimeout": 3600.0,
        "tcpBeLiberal": False,
        "udpTimeout": 0.0,
        "udpStreamTimeout": 0.0,
    },
    "configSyncPeriod": 900.0,
    "portRange": "",
    "windowsRunAsService": False,
    "kproxy": {
        "iptables": {"variant": "auto"},
        "ebpf": {
            "cgroup": "",
            "bpffs": "/sys/fs/bpf",
            "socketHooks": "all",
            "serviceEntries": 131072,
            "flowEntries": 262144,
            "affinityEntries": 16384,
        },
        "takeOver": False,
    },
}

# What kubeadm writes: most fields are there with their Go zero value.
KUBEADM = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
featureGates: {}
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""
