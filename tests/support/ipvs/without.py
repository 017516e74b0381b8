"""Tests of what becomes of this data path on a kernel without ipvs."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.ipvs.on_node import IS_HERE
from tests.support.waiting import LONGEST_S


def _could_be_here() -> bool:
    """Say whether this kernel has ipvs, or would load it for whoever asks."""
    asked = ("modprobe", "--dry-run", "--quiet", "ip_vs")
    return IS_HERE or subprocess.run(asked, check=False, timeout=LONGEST_S).returncode == 0


ON_A_KERNEL_WITHOUT_IPVS = pytest.mark.skipif(_could_be_here(), reason="this kernel has ip_vs")
