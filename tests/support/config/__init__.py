"""Configurations to try."""
