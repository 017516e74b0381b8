"""Forwarding table to entries of maps. Pure."""
