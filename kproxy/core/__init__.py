"""Every decision about Services and packets. Pure: no I/O, no clock, no randomness."""
