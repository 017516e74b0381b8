"""The data path of iptables: on a kernel, and simulated."""
