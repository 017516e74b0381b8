"""Forwarding table to iptables chains and texts. Pure."""
