"""The kernel's capabilities by name."""

from __future__ import annotations

import re

# In the order of their numbers: linux/capability.h.
_NAMES = re.findall(
    r"\w+",
    """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""",
)


def held(status: str) -> list[str]:
    """Return the capabilities that /proc/<pid>/status names as permitted, without CAP_.

    A machine may withhold some from its root; nothing that root starts can have those.
    """
    found = re.search(r"^CapPrm:\s*([0-9a-f]+)$", status, re.MULTILINE)
    assert found is not None, status
    bits = int(found[1], 16)
    return [name for number, name in enumerate(_NAMES) if bits >> number & 1]
