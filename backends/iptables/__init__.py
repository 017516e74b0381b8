"""The iptables data path: legacy and nf_tables variants, IPv4 and IPv6."""
