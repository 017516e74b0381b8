"""Tests that send packets through a real kernel, in namespaces of their own."""
