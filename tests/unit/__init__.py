"""Tests that need no root, no kernel and no other program."""
