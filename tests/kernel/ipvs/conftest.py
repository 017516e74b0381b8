"""What needs the kernel's ipvs is collected where it is: else in the virtual machine alone."""

from pathlib import Path

collect_ignore = [] if Path("/proc/net/ip_vs").exists() else ["test_servers.py"]
