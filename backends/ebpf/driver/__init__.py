"""Loading, attaching and filling eBPF programs: everything that does I/O."""
