"""Forwarding table to virtual servers, entries of sets, and rules. Pure."""
