"""A virtual machine with Debian's own kernel, for what the kernel of this machine cannot show."""
