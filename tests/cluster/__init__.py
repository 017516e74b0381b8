"""Tests against a real API server, and beside the real kube-proxy."""
