"""What ipvs mode keeps in the kernel: reading it and writing it."""
