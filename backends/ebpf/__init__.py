"""The ebpf data path: socket hooks and tc programs, IPv4 and IPv6."""
