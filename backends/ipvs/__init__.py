"""The ipvs data path: virtual servers of the kernel, and a constant number of iptables rules."""
