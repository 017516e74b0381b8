"""The iptables programs and tables, of both variants, whoever the rules belong to."""
