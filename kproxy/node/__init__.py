"""The node that this process runs on: its lock, settings, memory and features."""
