"""Programs, maps, links and pins of the kernel's BPF, by bpf(2) itself: no LLVM, no library."""
