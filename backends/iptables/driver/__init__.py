"""Observing and committing iptables chains: everything that does I/O."""
